//! How much an interaction of each kind says about taste. Training and serving must agree on it.

use marquee_schemas::Kind;

/// Weight of a kind in a user's history, as the models understand it: 1 for a plain positive, less for weaker
/// evidence, negative for refusal. `None` for kinds that make no history ([`Kind::is_history`]).
///
/// A view or click alone stays below the models' like threshold: looking is not approving.
#[must_use]
pub fn weight(kind: Kind) -> Option<f32> {
    match kind {
        // How good the rating was is told by its stars.
        Kind::Rating | Kind::Like => Some(1.0),
        Kind::View => Some(0.4),
        Kind::Click => Some(0.3),
        Kind::Dislike => Some(-1.0),
        Kind::Impression | Kind::WatchlistAdd | Kind::WatchlistRemove | Kind::Preference => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_history_kinds_have_a_weight() {
        for kind in Kind::ALL {
            assert_eq!(weight(kind).is_some(), kind.is_history(), "{kind:?}");
        }
    }
}
