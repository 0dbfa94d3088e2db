//! The one interface that candidate generators share.

/// One entry of a user's history, oldest first when in a slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistoryItem {
    /// Dense item index.
    pub item: u32,
    /// Fold-in weight: 1 for a plain positive, less for older or weaker evidence; finite, may be negative for dislikes
    /// where the model says so.
    pub weight: f32,
}

/// Buffers a scorer may use between calls, so that scoring does not allocate once they have grown.
#[derive(Debug, Default, Clone)]
pub struct Scratch {
    /// General-purpose `f32` workspaces.
    pub floats: Vec<f32>,
    /// A second one, for solvers that need a matrix and a vector.
    pub more_floats: Vec<f32>,
}

/// A fitted model that scores every item for a user known only by history (fold-in, then score).
pub trait Scorer: Send + Sync {
    /// Stable lower-case name, as used on the command line and in logs: `als`, `ease`, `cosine`, ...
    fn name(&self) -> &'static str;

    /// Number of items it can score; indices at or beyond it are unknown to it and are ignored in a history.
    fn items(&self) -> usize;

    /// Writes one score per item into `out` (length [`Scorer::items`]); higher is better, seen items are not masked.
    /// An empty history writes zeros (or the model's own prior, such as popularity).
    fn score_into(&self, history: &[HistoryItem], scratch: &mut Scratch, out: &mut [f32]);
}
