//! What is known of items beyond interactions, and how live indices meet a model's.

use std::collections::HashMap;

/// One item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CatalogueItem {
    /// The public movie id.
    pub external_id: u32,
    /// Year of release, if known.
    pub year: Option<u16>,
    /// One bit per genre; which bit is which is the caller's choice, as long as it is always the same.
    pub genres: u32,
}

/// Items in dense index order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalogue {
    items: Vec<CatalogueItem>,
}

impl Catalogue {
    /// Item `i` gets dense index `i`.
    #[must_use]
    pub fn new(items: Vec<CatalogueItem>) -> Self {
        Self { items }
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Items in index order.
    #[must_use]
    pub fn items(&self) -> &[CatalogueItem] {
        &self.items
    }

    /// Appends an item and returns its dense index.
    pub fn push(&mut self, item: CatalogueItem) -> u32 {
        self.items.push(item);
        (self.items.len() - 1) as u32
    }

    /// Public ids in index order.
    #[must_use]
    pub fn external_ids(&self) -> Vec<u32> {
        self.items.iter().map(|item| item.external_id).collect()
    }
}

/// A model's item that is not in the live space, or a live item that the model does not know.
pub(crate) const UNKNOWN: u32 = u32::MAX;

/// Live dense indices ↔ model indices, with what scoring wants to know of each live item.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// Model index of each live item, or [`UNKNOWN`].
    model_of_live: Vec<u32>,
    /// Live index of each model item, or [`UNKNOWN`].
    live_of_model: Vec<u32>,
    items: Vec<CatalogueItem>,
}

impl Binding {
    pub(crate) fn new(model: &Catalogue, live_ids: &[u32], live: Option<&Catalogue>) -> Self {
        let index: HashMap<u32, u32> = model
            .items()
            .iter()
            .enumerate()
            .map(|(index, item)| (item.external_id, index as u32))
            .collect();
        let mut live_of_model = vec![UNKNOWN; model.len()];
        let mut model_of_live = Vec::with_capacity(live_ids.len());
        let mut items = Vec::with_capacity(live_ids.len());
        for (position, id) in live_ids.iter().enumerate() {
            let known = index.get(id).copied();
            if let Some(known) = known {
                live_of_model[known as usize] = position as u32;
            }
            model_of_live.push(known.unwrap_or(UNKNOWN));
            let described = live
                .and_then(|catalogue| catalogue.items().get(position))
                .or_else(|| known.and_then(|known| model.items().get(known as usize)));
            items.push(described.copied().unwrap_or(CatalogueItem {
                external_id: *id,
                year: None,
                genres: 0,
            }));
        }
        Self {
            model_of_live,
            live_of_model,
            items,
        }
    }

    /// Number of live items bound; scores have this length.
    #[must_use]
    pub fn len(&self) -> usize {
        self.model_of_live.len()
    }

    /// Whether nothing is bound.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.model_of_live.is_empty()
    }

    /// The model's index of a live item, if the model was fitted with it.
    #[must_use]
    pub fn model_index(&self, live: u32) -> Option<u32> {
        self.model_of_live
            .get(live as usize)
            .copied()
            .filter(|&index| index != UNKNOWN)
    }

    pub(crate) fn live_of_model(&self) -> &[u32] {
        &self.live_of_model
    }

    pub(crate) fn items(&self) -> &[CatalogueItem] {
        &self.items
    }
}
