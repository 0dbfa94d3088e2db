//! The bounded list of partners of one item.

use serde::{Deserialize, Serialize};

use super::KERNELS;

/// Partners ascending by item, so that a lookup is a binary search and a scan is one pass over two slices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    partners: Vec<u32>,
    weights: Vec<[f32; KERNELS]>,
    /// Total per kernel over every event ever counted, evicted partners included, so that shares stay shares.
    mass: [f32; KERNELS],
}

impl Row {
    pub(super) fn partners(&self) -> &[u32] {
        &self.partners
    }

    pub(super) fn mass(&self, kernel: usize) -> f32 {
        self.mass[kernel]
    }

    pub(super) fn get(&self, partner: u32) -> Option<&[f32; KERNELS]> {
        self.partners
            .binary_search(&partner)
            .ok()
            .map(|place| &self.weights[place])
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(u32, &[f32; KERNELS])) {
        for (&partner, weights) in self.partners.iter().zip(&self.weights) {
            visit(partner, weights);
        }
    }

    pub(super) fn add(&mut self, partner: u32, weights: [f32; KERNELS], limit: usize) {
        for (total, weight) in self.mass.iter_mut().zip(weights) {
            *total += weight;
        }
        match self.partners.binary_search(&partner) {
            Ok(place) => {
                for (stored, weight) in self.weights[place].iter_mut().zip(weights) {
                    *stored += weight;
                }
            }
            Err(place) => {
                self.partners.insert(place, partner);
                self.weights.insert(place, weights);
                // Evicting an eighth at once keeps the cost per event constant.
                if self.partners.len() > limit + limit / 8 {
                    self.shrink(limit);
                }
            }
        }
    }

    pub(super) fn scale(&mut self, scale: f32) {
        for total in &mut self.mass {
            *total *= scale;
        }
        for weights in &mut self.weights {
            for weight in weights {
                *weight *= scale;
            }
        }
    }

    /// Keeps the `limit` partners of the largest total weight; of equals the smaller item index.
    fn shrink(&mut self, limit: usize) {
        let mut order: Vec<(f32, u32, usize)> = self
            .partners
            .iter()
            .zip(&self.weights)
            .enumerate()
            .map(|(place, (&partner, weights))| (weights.iter().sum(), partner, place))
            .collect();
        order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        order.truncate(limit);
        order.sort_unstable_by_key(|&(_, partner, _)| partner);
        self.weights = order.iter().map(|&(_, _, place)| self.weights[place]).collect();
        self.partners = order.iter().map(|&(_, partner, _)| partner).collect();
    }
}
