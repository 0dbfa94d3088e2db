//! Where the numbers of an item lie while a list is made.
//!
//! In a small catalogue every item is scored, and its index is its place. In a large one almost all items have no number
//! that speaks for them: only a *pool* is scored, of items that somebody's history leads to and of what is most popular,
//! each at its place in the pool.

use crate::kernels::widest;

/// A way from items to places.
pub(crate) trait Places: Copy {
    /// The place of an item; behind all columns if it is not scored.
    fn place(self, item: u32) -> usize;

    /// Number of places.
    fn len(self) -> usize;

    /// Fills `column`, which is empty, with the numbers of the items, which lie by item in `numbers`, times `factor`.
    fn collect(self, numbers: &[f64], factor: f64, column: &mut Vec<f32>);
}

/// Every item of so many, each at its index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole(pub(crate) usize);

impl Places for Whole {
    #[inline(always)]
    fn place(self, item: u32) -> usize {
        item as usize
    }

    fn len(self) -> usize {
        self.0
    }

    fn collect(self, numbers: &[f64], factor: f64, column: &mut Vec<f32>) {
        column.resize(self.0, 0.0);
        widest(
            #[inline(always)]
            || {
                for (value, number) in column.iter_mut().zip(numbers) {
                    *value = (number * factor) as f32;
                }
            },
        );
    }
}

/// No place.
const NOWHERE: u32 = u32::MAX;

/// Some of the items, in the order they came in. Cleared by its items, so that a large catalogue costs nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    items: Vec<u32>,
    /// By item; [`NOWHERE`] for who is not in.
    places: Vec<u32>,
}

impl Pool {
    /// Empties it, for a catalogue of so many items.
    pub(crate) fn begin(&mut self, items: usize) {
        for item in self.items.drain(..) {
            if let Some(place) = self.places.get_mut(item as usize) {
                *place = NOWHERE;
            }
        }
        self.places.resize(items, NOWHERE);
    }

    /// Lets an item in, unless it is in already or outside the catalogue.
    #[inline]
    pub(crate) fn add(&mut self, item: u32) {
        if let Some(place) = self.places.get_mut(item as usize)
            && *place == NOWHERE
        {
            *place = self.items.len() as u32;
            self.items.push(item);
        }
    }

    /// The items by place.
    pub(crate) fn items(&self) -> &[u32] {
        &self.items
    }
}

impl Places for &Pool {
    #[inline(always)]
    fn place(self, item: u32) -> usize {
        self.places.get(item as usize).copied().unwrap_or(NOWHERE) as usize
    }

    fn len(self) -> usize {
        self.items.len()
    }

    fn collect(self, numbers: &[f64], factor: f64, column: &mut Vec<f32>) {
        let number = |item: u32| numbers.get(item as usize).copied().unwrap_or(0.0);
        column.extend(self.items.iter().map(|&item| (number(item) * factor) as f32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_the_pool_has_a_place_there_and_nobody_stays_from_last_time() {
        let mut pool = Pool::default();
        pool.begin(9);
        for item in [7, 2, 7, 9, 1_000] {
            pool.add(item);
        }
        assert_eq!(pool.items(), [7, 2]);
        let places = &pool;
        assert_eq!((places.place(7), places.place(2), places.len()), (0, 1, 2));
        assert!(places.place(3) >= places.len() && places.place(u32::MAX) >= places.len());
        let mut column = Vec::new();
        places.collect(&[0.0, 0.0, 3.0], 2.0, &mut column);
        assert_eq!(column, [0.0, 6.0]);
        pool.begin(4);
        pool.add(3);
        assert!((&pool).place(2) >= 1 && (&pool).place(7) >= 1);
        assert_eq!((&pool).place(3), 0);
    }
}
