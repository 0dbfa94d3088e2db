//! A ranker as tensors.

use super::Ranker;
use crate::Error;
use crate::gbdt::{Gbdt, Node, Tree};
use crate::tensors::{Tensor, TensorMap};

impl Ranker {
    /// `features`, `thresholds` and `lefts` of all nodes, tree after tree; `ends`, where each tree ends among them;
    /// `width`, a single number.
    #[must_use]
    pub fn to_tensors(&self) -> TensorMap {
        let nodes = || self.model.trees.iter().flat_map(|tree| &tree.nodes);
        let mut end = 0;
        let ends = self
            .model
            .trees
            .iter()
            .map(|tree| {
                end += tree.nodes.len() as u32;
                end
            })
            .collect();
        let mut map = TensorMap::new();
        map.insert(
            "features",
            Tensor::u32s(nodes().map(|node| node.feature).collect()),
        );
        map.insert(
            "thresholds",
            Tensor::f32s(nodes().map(|node| node.threshold).collect()),
        );
        map.insert("lefts", Tensor::u32s(nodes().map(|node| node.left).collect()));
        map.insert("ends", Tensor::u32s(ends));
        map.insert("width", Tensor::u32s(vec![self.width as u32]));
        map
    }

    /// Rebuilds a ranker.
    ///
    /// # Errors
    /// [`Error::Stored`] if a tensor is missing or malformed, or a tree would not end.
    pub fn from_tensors(mut tensors: TensorMap) -> Result<Self, Error> {
        let refuse = |what: &str| Error::Stored(format!("the ranker's {what}"));
        let (_, features) = tensors.take_u32::<1>("features")?;
        let (_, thresholds) = tensors.take_f32::<1>("thresholds")?;
        let (_, lefts) = tensors.take_u32::<1>("lefts")?;
        let (_, ends) = tensors.take_u32::<1>("ends")?;
        let (_, width) = tensors.take_u32::<1>("width")?;
        let [width] = width[..] else {
            return Err(refuse("width is not a single number"));
        };
        if thresholds.len() != features.len() || lefts.len() != features.len() {
            return Err(refuse("node tensors differ in length"));
        }
        let nodes: Vec<Node> = features
            .into_iter()
            .zip(thresholds)
            .zip(lefts)
            .map(|((feature, threshold), left)| Node {
                feature,
                threshold,
                left,
            })
            .collect();
        let mut trees = Vec::with_capacity(ends.len());
        let mut begin = 0;
        for end in ends {
            let end = end as usize;
            let part = nodes
                .get(begin..end)
                .ok_or_else(|| refuse("trees do not fit its nodes"))?;
            let tree = Tree { nodes: part.to_vec() };
            if !tree.is_sound(width as usize) {
                return Err(refuse("trees are damaged"));
            }
            trees.push(tree);
            begin = end;
        }
        if begin != nodes.len() {
            return Err(refuse("trees do not fill its nodes"));
        }
        Ok(Self::new(Gbdt { trees }, width as usize))
    }
}
