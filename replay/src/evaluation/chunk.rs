//! The lake in stretches of event time, so that memory does not grow with the period that is asked about.

use datafusion::common::DataFusionError;
use datafusion::prelude::SessionContext;

use super::attribution::{Attribution, SKEW_MS, attribute};
use super::list::{Answer, List};
use super::load;

/// The usual length of a stretch, ms.
const CHUNK_MS: i64 = 60 * 60 * 1000;

/// The most stretches of one period: records with odd times must not make a period endless.
const MOST: i64 = 1_000;

/// Lists of one stretch, their neighbours, and what answers them.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) lists: Vec<List>,
    pub(crate) answers: Vec<Answer>,
    /// Of the stretch's own lists alone.
    pub(crate) attributions: Vec<Attribution>,
    from_ms: i64,
    to_ms: i64,
}

impl Chunk {
    /// Whether a list belongs to this stretch rather than to a neighbour's edge.
    pub(crate) fn owns(&self, list: &List) -> bool {
        (self.from_ms..self.to_ms).contains(&list.time_ms)
    }

    /// End of the stretch, exclusive.
    pub(crate) fn to_ms(&self) -> i64 {
        self.to_ms
    }

    /// The stretch's own lists with their places in `lists`.
    pub(crate) fn own_lists(&self) -> impl Iterator<Item = (usize, &List)> {
        self.lists.iter().enumerate().filter(|(_, list)| self.owns(list))
    }
}

/// Loads the lists from `from_ms` (inclusive) to `to_ms` (exclusive) with what answers them. Lists outside compete for
/// the interactions at its edges and are loaded too.
pub(crate) async fn load_chunk(
    context: &SessionContext,
    from_ms: i64,
    to_ms: i64,
    window_ms: i64,
) -> Result<Chunk, DataFusionError> {
    let last = to_ms.saturating_add(window_ms);
    let lists = load::lists(context, from_ms.saturating_sub(window_ms), last).await?;
    let answers = load::answers(context, from_ms.saturating_sub(SKEW_MS), last).await?;
    let mut chunk = Chunk {
        attributions: attribute(&lists, &answers, window_ms),
        lists,
        answers,
        from_ms,
        to_ms,
    };
    let own: Vec<bool> = chunk.lists.iter().map(|list| chunk.owns(list)).collect();
    chunk.attributions.retain(|found| own[found.list]);
    Ok(chunk)
}

/// The stretches of `[from_ms, to_ms)` in which one of `spans` (first and last moment of files with lists) has rows.
/// None is shorter than `window_ms`, for each loads as much at its edges.
pub(crate) fn stretches(from_ms: i64, to_ms: i64, window_ms: i64, spans: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let spans: Vec<(i64, i64)> = spans
        .iter()
        .map(|&(first, last)| (first.max(from_ms), last.min(to_ms.saturating_sub(1))))
        .filter(|(first, last)| first <= last)
        .collect();
    let first = spans.iter().map(|span| span.0).min().unwrap_or(0);
    let last = spans.iter().map(|span| span.1).max().unwrap_or(0);
    let length = CHUNK_MS.max(window_ms).max(last.saturating_sub(first) / MOST);
    let mut starts: Vec<i64> = spans
        .iter()
        .flat_map(|(first, last)| first.div_euclid(length)..=last.div_euclid(length))
        .collect();
    starts.sort_unstable();
    starts.dedup();
    starts
        .into_iter()
        .map(|at| {
            let start = at * length;
            (start.max(from_ms), start.saturating_add(length).min(to_ms))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_cover_what_has_rows_within_the_period_and_nothing_else() {
        let hour = CHUNK_MS;
        let of = |from, to, spans: &[(i64, i64)]| stretches(from, to, hour / 2, spans);
        assert_eq!(
            of(
                10,
                3 * hour + 5,
                &[(0, 20), (hour + 1, hour + 2), (2 * hour, 9 * hour)]
            ),
            [
                (10, hour),
                (hour, 2 * hour),
                (2 * hour, 3 * hour),
                (3 * hour, 3 * hour + 5)
            ]
        );
        assert_eq!(of(0, 100, &[(100, 200), (-50, -1)]), []);
        assert_eq!(of(5 * hour, i64::MAX, &[(0, 5 * hour)]), [(5 * hour, 6 * hour)]);
        assert_eq!(stretches(0, i64::MAX, 3 * hour, &[(0, hour)]), [(0, 3 * hour)]);
        assert!(of(0, i64::MAX, &[(0, 400 * 365 * 24 * hour)]).len() <= 1_001);
    }
}
