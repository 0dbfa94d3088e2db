//! Item-item cosine similarity: an item is scored by its likeness to what the user chose.
//!
//! Sarwar, Karypis, Konstan, Riedl, "Item-based collaborative filtering recommendation algorithms" (WWW 2001),
//! section 3.1.1, with the shrinkage of Bell and Koren, "Scalable collaborative filtering with jointly derived
//! neighborhood interpolation weights" (ICDM 2007), section 3.

use rayon::prelude::*;

use crate::checked::require;
use crate::tensors::{Tensor, TensorMap};
use crate::{Checked, Error, HistoryItem, Interactions, Scorer, Scratch};

/// Hyperparameters of [`Cosine`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineParams {
    /// Neighbours kept per item, the most similar ones.
    pub neighbours: usize,
    /// Added to the product of the norms, so that likeness from few common users counts less; 0 is plain cosine.
    pub shrinkage: f32,
}

impl Default for CosineParams {
    fn default() -> Self {
        Self {
            neighbours: 100,
            shrinkage: 0.0,
        }
    }
}

impl CosineParams {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] if no neighbour may be kept, or the shrinkage is negative or not finite.
    pub fn check(self) -> Result<Checked<Self>, Error> {
        require(self.neighbours > 0, "neighbours", self.neighbours, "at least 1")?;
        require(
            self.shrinkage.is_finite() && self.shrinkage >= 0.0,
            "shrinkage",
            self.shrinkage,
            "finite and not negative",
        )?;
        Ok(Checked::new(self))
    }
}

/// The nearest neighbours of every item.
#[derive(Debug, Clone, PartialEq)]
pub struct Cosine {
    /// Where each item's list starts; one more entry than there are items.
    starts: Vec<usize>,
    neighbours: Vec<u32>,
    similarities: Vec<f32>,
}

impl Cosine {
    /// Finds each item's nearest neighbours by `⟨i, j⟩ / (|i| |j| + shrinkage)` over the items' user columns.
    ///
    /// Ties go to the lower item index, so the result depends on nothing but the input. An item without events has
    /// no neighbours.
    ///
    /// # Errors
    /// [`Error::Data`] if the weights are so large that a norm is not finite.
    pub fn fit(interactions: &Interactions, params: &Checked<CosineParams>) -> Result<Self, Error> {
        let items = interactions.items();
        let by_user = interactions.by_user();
        let by_item = interactions.by_item();
        let norms: Vec<f32> = by_item
            .outer_iterator()
            .map(|column| {
                column
                    .data()
                    .iter()
                    .map(|weight| weight * weight)
                    .sum::<f32>()
                    .sqrt()
            })
            .collect();
        if norms.iter().any(|norm| !norm.is_finite()) {
            return Err(Error::Data(
                "the weights are too large: a squared sum overflows".into(),
            ));
        }
        let lists: Vec<Vec<(u32, f32)>> = (0..items)
            .into_par_iter()
            .map_init(
                || (vec![0.0_f32; items], Vec::new(), Vec::new()),
                |(products, touched, list), item| {
                    if let Some(users) = by_item.outer_view(item) {
                        for (user, &weight) in users.iter() {
                            let Some(row) = by_user.outer_view(user) else {
                                continue;
                            };
                            for (&other, &other_weight) in row.indices().iter().zip(row.data()) {
                                let product = &mut products[other as usize];
                                if *product == 0.0 {
                                    touched.push(other);
                                }
                                *product += weight * other_weight;
                            }
                        }
                    }
                    let norm = norms[item];
                    list.clear();
                    list.extend(touched.drain(..).filter_map(|other| {
                        let product = std::mem::take(&mut products[other as usize]);
                        let similarity = product / (norm * norms[other as usize] + params.shrinkage);
                        (other as usize != item && similarity > 0.0).then_some((other, similarity))
                    }));
                    nearest(list, params.neighbours).to_vec()
                },
            )
            .collect();
        let mut model = Self {
            starts: vec![0],
            neighbours: Vec::new(),
            similarities: Vec::new(),
        };
        for list in lists {
            for (neighbour, similarity) in list {
                model.neighbours.push(neighbour);
                model.similarities.push(similarity);
            }
            model.starts.push(model.neighbours.len());
        }
        Ok(model)
    }

    /// An item's neighbours and their similarities, most similar first; empty for an unknown item.
    #[must_use]
    pub fn neighbours(&self, item: u32) -> (&[u32], &[f32]) {
        match self.starts.get(item as usize..) {
            Some(&[begin, end, ..]) => (&self.neighbours[begin..end], &self.similarities[begin..end]),
            _ => (&[], &[]),
        }
    }

    /// The model as tensors: `counts [items]`, and, lists concatenated, `neighbours` and `similarities`.
    #[must_use]
    pub fn to_tensors(&self) -> TensorMap {
        let counts = self
            .starts
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as u32)
            .collect();
        let mut map = TensorMap::new();
        map.insert("counts", Tensor::u32s(counts));
        map.insert("neighbours", Tensor::u32s(self.neighbours.clone()));
        map.insert("similarities", Tensor::f32s(self.similarities.clone()));
        map
    }

    /// Rebuilds a model from its tensors.
    ///
    /// # Errors
    /// [`Error::Stored`] if a tensor is missing or malformed, the lengths disagree, or a neighbour is out of range.
    pub fn from_tensors(mut tensors: TensorMap) -> Result<Self, Error> {
        let ([items], counts) = tensors.take_u32("counts")?;
        let ([_], neighbours) = tensors.take_u32("neighbours")?;
        let ([_], similarities) = tensors.take_f32("similarities")?;
        let mut starts = vec![0_usize];
        let mut total = 0_usize;
        for count in counts {
            total = total.saturating_add(count as usize);
            starts.push(total);
        }
        if total != neighbours.len() || total != similarities.len() {
            return Err(Error::Stored("neighbour lists disagree in length".into()));
        }
        if neighbours.iter().any(|&neighbour| neighbour as usize >= items) {
            return Err(Error::Stored(format!("a neighbour lies outside {items} items")));
        }
        Ok(Self {
            starts,
            neighbours,
            similarities,
        })
    }
}

impl Scorer for Cosine {
    fn name(&self) -> &'static str {
        "cosine"
    }

    fn items(&self) -> usize {
        self.starts.len() - 1
    }

    /// Adds up, over the history, weight times similarity to each neighbour; a negative weight pushes away.
    fn score_into(&self, history: &[HistoryItem], _scratch: &mut Scratch, out: &mut [f32]) {
        out.fill(0.0);
        for entry in history {
            let (neighbours, similarities) = self.neighbours(entry.item);
            for (&neighbour, &similarity) in neighbours.iter().zip(similarities) {
                out[neighbour as usize] += entry.weight * similarity;
            }
        }
    }
}

/// The `count` most similar entries in descending order, lower index first among equals.
fn nearest(list: &mut [(u32, f32)], count: usize) -> &[(u32, f32)] {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if list.len() > count {
        list.select_nth_unstable_by(count, order);
    }
    let kept = list.len().min(count);
    let nearest = &mut list[..kept];
    nearest.sort_unstable_by(order);
    nearest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small() -> Interactions {
        // Items as columns of users: a = (1,1,0), b = (1,0,0), c = (0,1,1), d = nobody.
        Interactions::from_triplets(
            3,
            4,
            &[(0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0), (1, 2, 1.0), (2, 2, 1.0)],
        )
        .unwrap()
    }

    fn fit(neighbours: usize, shrinkage: f32) -> Cosine {
        let params = CosineParams {
            neighbours,
            shrinkage,
        }
        .check()
        .unwrap();
        Cosine::fit(&small(), &params).unwrap()
    }

    #[test]
    fn similarities_match_the_hand_computed_ones() {
        let model = fit(5, 0.0);
        // cos(a, b) = 1 / (√2 · 1), cos(a, c) = 1 / (√2 · √2).
        let (neighbours, similarities) = model.neighbours(0);
        assert_eq!(neighbours, &[1, 2]);
        assert!((similarities[0] - 0.5_f32.sqrt()).abs() < 1e-6);
        assert!((similarities[1] - 0.5).abs() < 1e-6);
        assert_eq!(model.neighbours(3), (&[][..], &[][..]));
        assert_eq!(model.neighbours(9), (&[][..], &[][..]));
    }

    #[test]
    fn shrinkage_adds_to_the_norms() {
        let model = fit(5, 1.0);
        assert!((model.neighbours(0).1[1] - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn only_the_nearest_are_kept() {
        assert_eq!(fit(1, 0.0).neighbours(0).0, &[1]);
    }

    #[test]
    fn scores_add_weighted_similarities_and_ignore_unknown_items() {
        let model = fit(5, 0.0);
        let history = [(1, 2.0), (2, -1.0), (77, 1.0)].map(|(item, weight)| HistoryItem { item, weight });
        let mut out = [9.0; 4];
        model.score_into(&history, &mut Scratch::default(), &mut out);
        assert!((out[0] - (2.0 * 0.5_f32.sqrt() - 0.5)).abs() < 1e-6);
        assert_eq!(out[3], 0.0);
    }

    #[test]
    fn parameters_out_of_domain_are_refused_by_name() {
        let none = CosineParams {
            neighbours: 0,
            ..CosineParams::default()
        };
        assert!(matches!(
            none.check(),
            Err(Error::Hyperparameter {
                name: "neighbours",
                ..
            })
        ));
        let nan = CosineParams {
            shrinkage: f32::NAN,
            ..CosineParams::default()
        };
        assert!(matches!(
            nan.check(),
            Err(Error::Hyperparameter {
                name: "shrinkage",
                ..
            })
        ));
    }

    #[test]
    fn storage_keeps_the_model_and_refuses_a_foreign_neighbour() {
        let model = fit(5, 0.0);
        assert_eq!(Cosine::from_tensors(model.to_tensors()).unwrap(), model);
        let mut broken = model.to_tensors();
        broken.insert("neighbours", Tensor::u32s(vec![7; model.neighbours.len()]));
        assert!(matches!(Cosine::from_tensors(broken), Err(Error::Stored(_))));
        let mut short = model.to_tensors();
        short.insert("similarities", Tensor::f32s(vec![0.5]));
        assert!(matches!(Cosine::from_tensors(short), Err(Error::Stored(_))));
    }

    proptest! {
        #[test]
        fn plain_cosine_is_symmetric_and_at_most_one(
            pairs in prop::collection::vec((0_u32..6, 0_u32..6, 0.1_f32..5.0), 1..30),
        ) {
            let matrix = Interactions::from_triplets(6, 6, &pairs).unwrap();
            let model = Cosine::fit(&matrix, &CosineParams::default().check().unwrap()).unwrap();
            for item in 0..6 {
                let (neighbours, similarities) = model.neighbours(item);
                for (&other, &similarity) in neighbours.iter().zip(similarities) {
                    prop_assert!(similarity > 0.0 && similarity < 1.0 + 1e-5);
                    let (back, back_similarities) = model.neighbours(other);
                    let position = back.iter().position(|&candidate| candidate == item);
                    let back = position.map(|position| back_similarities[position]);
                    prop_assert!(back.is_some_and(|back| (back - similarity).abs() < 1e-6));
                }
            }
        }
    }
}
