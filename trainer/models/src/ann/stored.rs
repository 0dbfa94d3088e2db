//! An index as tensors.

use super::{Lists, Metric, VectorIndex};
use crate::Error;
use crate::padded::Padded;
use crate::tensors::{Tensor, TensorMap};

impl VectorIndex {
    /// `vectors [items, dimensions]` by row, `items`, the item of each row, `metric` (0 inner product, 1 cosine), and
    /// of an index that is not exact `centroids [lists, dimensions]`, `reach [lists]`, `ends [lists]`, `probes` and
    /// `recall`, single numbers.
    #[must_use]
    pub fn to_tensors(&self) -> TensorMap {
        let mut map = TensorMap::new();
        map.insert("vectors", Tensor::matrix(&self.rows.clone().into_array()));
        map.insert("items", Tensor::u32s(self.items.clone()));
        map.insert(
            "metric",
            Tensor::u32s(vec![u32::from(self.metric == Metric::Cosine)]),
        );
        if let Some(lists) = &self.lists {
            map.insert("centroids", Tensor::matrix(&lists.centroids.clone().into_array()));
            map.insert("reach", Tensor::f32s(lists.reach.clone()));
            map.insert("ends", Tensor::u32s(lists.ends.clone()));
            map.insert("probes", Tensor::u32s(vec![lists.probes as u32]));
            map.insert("recall", Tensor::f32s(vec![lists.recall as f32]));
        }
        map
    }

    /// Rebuilds an index.
    ///
    /// # Errors
    /// [`Error::Stored`] if a tensor is missing or malformed, or they do not fit together.
    pub fn from_tensors(mut tensors: TensorMap) -> Result<Self, Error> {
        let refuse = |what: &str| Error::Stored(format!("the index's {what}"));
        let vectors = tensors.take_matrix("vectors")?;
        let (_, items) = tensors.take_u32::<1>("items")?;
        let metric = match tensors.take_u32::<1>("metric")?.1[..] {
            [0] => Metric::InnerProduct,
            [1] => Metric::Cosine,
            _ => return Err(refuse("metric is unknown")),
        };
        if vectors.is_empty() || vectors.nrows() != items.len() {
            return Err(refuse("vectors do not fit its items"));
        }
        let mut places = vec![u32::MAX; items.len()];
        for (row, &item) in (0_u32..).zip(&items) {
            match places.get_mut(item as usize) {
                Some(place) if *place == u32::MAX => *place = row,
                _ => return Err(refuse("items are not each there once")),
            }
        }
        let lists = if tensors.get("centroids").is_some() {
            let centroids = tensors.take_matrix("centroids")?;
            let (_, reach) = tensors.take_f32::<1>("reach")?;
            let (_, ends) = tensors.take_u32::<1>("ends")?;
            let (_, probes) = tensors.take_u32::<1>("probes")?;
            let (_, recall) = tensors.take_f32::<1>("recall")?;
            let ([probes], [recall]) = (&probes[..], &recall[..]) else {
                return Err(refuse("probes or recall is not a single number"));
            };
            let is_sound = ends.len() == centroids.nrows()
                && reach.len() == ends.len()
                && centroids.ncols() == vectors.ncols()
                && ends.is_sorted()
                && ends.last().is_some_and(|&end| end as usize <= items.len())
                && (1..=ends.len()).contains(&(*probes as usize));
            if !is_sound {
                return Err(refuse("lists do not fit its vectors"));
            }
            Some(Lists {
                centroids: Padded::from_array(&centroids.view()),
                reach,
                ends,
                probes: *probes as usize,
                recall: f64::from(*recall),
            })
        } else {
            None
        };
        Ok(Self {
            metric,
            rows: Padded::from_array(&vectors.view()),
            items,
            places,
            lists,
        })
    }
}
