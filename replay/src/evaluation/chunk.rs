//! The lake in stretches of event time, so that memory does not grow with the period that is asked about, and a stretch
//! in pieces by user, so that it does not grow with the traffic either.
//!
//! Who answers which list is decided among one user's lists and interactions alone, and for a list without a user among
//! the interactions that name it. So a piece needs nothing of the others, and the pieces of a stretch together show what
//! the stretch as a whole would. What would take more memory than there is falls into smaller pieces; a user with more
//! lists than fit, into shorter times.

use std::collections::HashSet;

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::prelude::SessionContext;

use super::attribution::{Attribution, attribute};
use super::list::{Answer, List, Rivals};
use super::load;

/// The usual length of a stretch, ms.
const CHUNK_MS: i64 = 60 * 60 * 1000;

/// The most stretches of one period: records with odd times must not make a period endless.
const MOST: i64 = 1_000;

/// Lists that a piece is begun with; a piece of more than its memory holds is divided.
const LISTS_AT_ONCE: u64 = 200_000;

/// Most shares of the users; each reads the stretch's ids again.
const MOST_SHARES: u64 = 256;

/// The shortest time that is still divided, ms.
const SHORTEST_MS: i64 = 1_000;

/// Event times of rows: first and last, ms, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    pub(crate) rows: u64,
}

impl Span {
    /// How many of its rows lie from `from_ms` (inclusive) to `to_ms` (exclusive), if they are spread evenly.
    fn rows_between(&self, from_ms: i64, to_ms: i64) -> u64 {
        let (first, end) = (
            self.first_ms.max(from_ms),
            self.last_ms.saturating_add(1).min(to_ms),
        );
        let (part, whole) = (
            end.saturating_sub(first).max(0),
            self.last_ms
                .saturating_sub(self.first_ms)
                .saturating_add(1)
                .max(1),
        );
        (self.rows as f64 * (part as f64 / whole as f64)).ceil() as u64
    }
}

/// Whose lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Everybody's.
    All,
    /// Those of no user.
    Nobodys,
    /// Those of the users whose id leaves `rest` when divided by `by`.
    Share { rest: u64, by: u64 },
}

/// A piece of a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(super) from_ms: i64,
    /// Exclusive.
    pub(super) to_ms: i64,
    pub(super) whose: Whose,
    /// Whether the stretch ends with it.
    ends_stretch: bool,
}

/// What is still to be looked at, the next at the end.
#[derive(Debug, Clone)]
pub(crate) struct Pieces(Vec<Piece>);

impl Pieces {
    /// The period `[from_ms, to_ms)` where one of `spans` (of files with lists) has rows.
    pub(crate) fn of(from_ms: i64, to_ms: i64, window_ms: i64, spans: &[Span]) -> Self {
        let mut pieces: Vec<Piece> = stretches(from_ms, to_ms, window_ms, spans)
            .into_iter()
            .flat_map(|(from_ms, to_ms)| {
                let rows: u64 = spans.iter().map(|span| span.rows_between(from_ms, to_ms)).sum();
                let whole = Piece {
                    from_ms,
                    to_ms,
                    whose: Whose::All,
                    ends_stretch: true,
                };
                match rows.div_ceil(LISTS_AT_ONCE).min(MOST_SHARES) {
                    0 | 1 => vec![whole],
                    shares => whole.in_shares(shares),
                }
            })
            .collect();
        pieces.reverse();
        Self(pieces)
    }

    /// Puts the parts of `piece` in its place; false if it cannot be divided any further.
    pub(crate) fn divide(&mut self, piece: Piece) -> bool {
        let parts = piece.parts();
        self.0.extend(parts.iter().rev());
        !parts.is_empty()
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        self.0.pop()
    }
}

impl Piece {
    fn in_shares(self, by: u64) -> Vec<Piece> {
        let nobodys = std::iter::once(Whose::Nobodys);
        self.each(nobodys.chain((0..by).map(|rest| Whose::Share { rest, by })))
    }

    fn each(self, whose: impl Iterator<Item = Whose>) -> Vec<Piece> {
        let mut parts: Vec<Piece> = whose
            .map(|whose| Piece {
                whose,
                ends_stretch: false,
                ..self
            })
            .collect();
        if let Some(last) = parts.last_mut() {
            last.ends_stretch = self.ends_stretch;
        }
        parts
    }

    /// Half the users each, or half the time each where few enough are left; nothing where neither can be halved.
    fn parts(self) -> Vec<Piece> {
        match self.whose {
            Whose::All => self.in_shares(2),
            Whose::Share { rest, by } if by < MOST_SHARES => {
                let by_two = by.saturating_mul(2);
                self.each(
                    [rest, rest + by]
                        .into_iter()
                        .map(|rest| Whose::Share { rest, by: by_two }),
                )
            }
            Whose::Nobodys | Whose::Share { .. } => {
                let length = self.to_ms.saturating_sub(self.from_ms);
                if length < SHORTEST_MS {
                    return Vec::new();
                }
                let middle = self.from_ms + length / 2;
                let first = Piece {
                    to_ms: middle,
                    ends_stretch: false,
                    ..self
                };
                let second = Piece {
                    from_ms: middle,
                    ..self
                };
                vec![first, second]
            }
        }
    }
}

/// Lists of one piece, and what answers them.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) lists: Vec<List>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) attributions: Vec<Attribution>,
    piece: Piece,
    _held: MemoryReservation,
}

impl Chunk {
    /// End of the piece, exclusive.
    pub(crate) fn to_ms(&self) -> i64 {
        self.piece.to_ms
    }

    /// Whether all lists of the stretch have been seen with this chunk.
    pub(crate) fn ends_stretch(&self) -> bool {
        self.piece.ends_stretch
    }
}

/// Loads a piece's lists with what answers them. Lists outside of it compete for the interactions at its edges; of them
/// only what that takes is loaded, and only where a user has interactions to compete for.
///
/// # Errors
/// [`DataFusionError::ResourcesExhausted`] if the session's memory does not hold it: divide the piece.
pub(crate) async fn load_chunk(
    context: &SessionContext,
    piece: Piece,
    window_ms: i64,
) -> Result<Chunk, DataFusionError> {
    let held = MemoryConsumer::new("lists and answers").register(&context.runtime_env().memory_pool);
    let lists = load::lists(context, piece, &held).await?;
    let users: HashSet<u64> = lists.iter().filter_map(|list| list.user_id).collect();
    let nobodys: HashSet<&str> = lists
        .iter()
        .filter(|list| list.user_id.is_none())
        .map(|list| list.request_id.as_str())
        .collect();
    let answers = load::answers(context, piece, window_ms, &held, |user, request| {
        users.contains(&user) || request.is_some_and(|request| nobodys.contains(request))
    })
    .await?;
    drop(nobodys);
    let rivals = match piece.whose {
        // The one list that an interaction names wins in any case.
        Whose::Nobodys => Rivals::default(),
        _ if answers.is_empty() => Rivals::default(),
        _ => load::rivals(context, piece, window_ms, &held, &wanted(&answers)).await?,
    };
    Ok(Chunk {
        attributions: attribute(&lists, &rivals, &answers, window_ms),
        lists,
        answers,
        piece,
        _held: held,
    })
}

/// Which lists can compete for `answers`: those of their users, and those that they name.
fn wanted(answers: &[Answer]) -> load::Wanted<'_> {
    load::Wanted {
        users: answers.iter().map(|answer| answer.user_id).collect(),
        named: answers
            .iter()
            .filter_map(|answer| answer.request_id.as_deref())
            .collect(),
    }
}

/// The stretches of `[from_ms, to_ms)` in which one of `spans` has rows. None is shorter than `window_ms`, for each loads
/// as much at its edges.
fn stretches(from_ms: i64, to_ms: i64, window_ms: i64, spans: &[Span]) -> Vec<(i64, i64)> {
    let spans: Vec<(i64, i64)> = spans
        .iter()
        .map(|span| {
            (
                span.first_ms.max(from_ms),
                span.last_ms.min(to_ms.saturating_sub(1)),
            )
        })
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

    fn span(first_ms: i64, last_ms: i64) -> Span {
        Span {
            first_ms,
            last_ms,
            rows: 1,
        }
    }

    #[test]
    fn stretches_cover_what_has_rows_within_the_period_and_nothing_else() {
        let hour = CHUNK_MS;
        let of = |from, to, spans: &[Span]| stretches(from, to, hour / 2, spans);
        assert_eq!(
            of(
                10,
                3 * hour + 5,
                &[span(0, 20), span(hour + 1, hour + 2), span(2 * hour, 9 * hour)]
            ),
            [
                (10, hour),
                (hour, 2 * hour),
                (2 * hour, 3 * hour),
                (3 * hour, 3 * hour + 5)
            ]
        );
        assert_eq!(of(0, 100, &[span(100, 200), span(-50, -1)]), []);
        assert_eq!(
            of(5 * hour, i64::MAX, &[span(0, 5 * hour)]),
            [(5 * hour, 6 * hour)]
        );
        assert_eq!(
            stretches(0, i64::MAX, 3 * hour, &[span(0, hour)]),
            [(0, 3 * hour)]
        );
        assert!(of(0, i64::MAX, &[span(0, 400 * 365 * 24 * hour)]).len() <= 1_001);
    }

    #[test]
    fn a_stretch_begins_in_as_many_shares_as_its_rows_ask_for() {
        let busy = Span {
            first_ms: 0,
            last_ms: CHUNK_MS - 1,
            rows: 6 * LISTS_AT_ONCE,
        };
        let whose: Vec<Whose> = Pieces::of(0, CHUNK_MS / 2, 1, &[busy])
            .map(|piece| piece.whose)
            .collect();
        let shares = (0..3).map(|rest| Whose::Share { rest, by: 3 });
        assert_eq!(
            whose,
            std::iter::once(Whose::Nobodys).chain(shares).collect::<Vec<_>>()
        );
        assert_eq!(Pieces::of(0, CHUNK_MS, 1, &[span(5, 9)]).count(), 1);
    }

    #[test]
    fn a_piece_falls_into_users_then_into_times_and_its_stretch_ends_once() {
        let mut pieces = Pieces::of(0, CHUNK_MS, 1, &[span(0, 10)]);
        let mut ends = 0;
        let mut smallest = 0;
        let mut users_of_a_moment = 0;
        while let Some(piece) = pieces.next() {
            // Only what comes first is divided on, so that the walk stays short.
            let divides =
                piece.from_ms == 0 && matches!(piece.whose, Whose::All | Whose::Share { rest: 0, .. });
            if divides && pieces.divide(piece) {
                continue;
            }
            smallest += u64::from(divides);
            ends += u64::from(piece.ends_stretch);
            if let Whose::Share { by, .. } = piece.whose {
                users_of_a_moment += MOST_SHARES / by * u64::from(piece.from_ms == 0);
            }
        }
        assert_eq!((ends, smallest), (1, 1));
        assert_eq!(users_of_a_moment, MOST_SHARES);
    }
}
