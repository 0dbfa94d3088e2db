//! The items that the dense models know.

use crate::live::Interaction;
use crate::served::catalogue::UNKNOWN;

/// Items with enough interactions to be worth a row and a column, and the way from model items to rows and back.
///
/// Item × item models cost the cube of their items to fit: the long tail, of which they know next to nothing, would
/// make them unaffordable. It is served by the live terms.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Core {
    /// Model items, ascending.
    items: Vec<u32>,
    /// Row of each model item, or [`UNKNOWN`].
    rows: Vec<u32>,
}

impl Core {
    /// The items among `0..items` with at least `min_events` interactions; of more than `max_items` the most popular,
    /// of equals those of the smaller index.
    pub(crate) fn choose(
        interactions: &[Interaction],
        items: usize,
        min_events: usize,
        max_items: usize,
    ) -> Self {
        let mut counts = vec![0_usize; items];
        for event in interactions {
            counts[event.item as usize] += 1;
        }
        let mut chosen: Vec<u32> = (0_u32..)
            .zip(&counts)
            .filter(|&(_, &count)| count >= min_events.max(1))
            .map(|(item, _)| item)
            .collect();
        chosen.sort_by_key(|&item| std::cmp::Reverse(counts[item as usize]));
        chosen.truncate(max_items);
        chosen.sort_unstable();
        Self::new(chosen, items)
    }

    /// Of model items `chosen` (ascending) among `0..items`.
    pub(crate) fn new(chosen: Vec<u32>, items: usize) -> Self {
        let mut rows = vec![UNKNOWN; items];
        for (row, &item) in (0_u32..).zip(&chosen) {
            if let Some(place) = rows.get_mut(item as usize) {
                *place = row;
            }
        }
        Self { items: chosen, rows }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Model items by row.
    pub(crate) fn items(&self) -> &[u32] {
        &self.items
    }

    /// Row of a model item.
    pub(crate) fn row(&self, item: u32) -> Option<u32> {
        self.rows
            .get(item as usize)
            .copied()
            .filter(|&row| row != UNKNOWN)
    }

    /// The interactions with these items, renamed to rows.
    pub(crate) fn keep(&self, interactions: &[Interaction]) -> Vec<Interaction> {
        interactions
            .iter()
            .filter_map(|event| {
                let item = self.row(event.item)?;
                Some(Interaction { item, ..*event })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(items: &[u32]) -> Vec<Interaction> {
        items
            .iter()
            .map(|&item| Interaction {
                user: 0,
                item,
                rating: None,
                weight: 1.0,
                time_ms: 0,
            })
            .collect()
    }

    #[test]
    fn rare_items_stay_outside_and_the_popular_come_first() {
        let events = events(&[4, 4, 4, 2, 2, 7, 7, 1]);
        let core = Core::choose(&events, 9, 2, 10);
        assert_eq!(core.items(), [2, 4, 7]);
        assert_eq!((core.row(4), core.row(1), core.row(99)), (Some(1), None, None));
        assert_eq!(core.keep(&events).len(), 7);
        assert_eq!(Core::choose(&events, 9, 2, 2).items(), [2, 4]);
    }
}
