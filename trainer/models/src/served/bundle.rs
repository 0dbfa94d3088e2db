//! A served model as bytes: safetensors, with a manifest text that carries the format's version and the settings.

use serde::{Deserialize, Serialize};

use super::catalogue::{Catalogue, CatalogueItem};
use super::features::row::WIDTH;
use super::generators::Generators;
use super::generators::core::Core;
use super::generators::weights::ItemWeights;
use super::{ServedModel, ServedParams};
use crate::Error;
use crate::ranker::{Ranker, Verdict};
use crate::tensors::{Tensor, TensorMap};

/// Name of the format in the manifest.
const FORMAT: &str = "marquee-served";
/// The version that this build writes and reads. Older models are refused: training anew costs less than keeping the
/// code of every layout there ever was.
pub const VERSION: u32 = 2;
/// Stored for an unknown year; no movie is that old.
const NO_YEAR: u32 = 0;

/// Read first, alone, so that a newer format is recognised whatever else it changed.
#[derive(Debug, Deserialize)]
struct Envelope {
    format: String,
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: String,
    version: u32,
    seed: u64,
    trained_on: u64,
    trained_until_ms: i64,
    verdict: Option<Verdict>,
    params: ServedParams,
}

impl ServedModel {
    /// The model as bytes; equal models give equal bytes.
    ///
    /// # Errors
    /// [`Error::Stored`] if the format's header limit is exceeded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            seed: self.seed,
            trained_on: self.trained_on,
            trained_until_ms: self.trained_until_ms,
            verdict: self.verdict,
            params: self.params.clone(),
        };
        let mut tensors = TensorMap::new();
        let items = self.catalogue.items();
        tensors.insert("catalogue.ids", Tensor::u32s(self.catalogue.external_ids()));
        tensors.insert(
            "catalogue.years",
            Tensor::u32s(
                items
                    .iter()
                    .map(|item| item.year.map_or(NO_YEAR, u32::from))
                    .collect(),
            ),
        );
        tensors.insert(
            "catalogue.genres",
            Tensor::u32s(items.iter().map(|item| item.genres).collect()),
        );
        tensors.insert("core", Tensor::u32s(self.generators.core.items().to_vec()));
        for (name, weights) in self.generators.parts() {
            if let Some(weights) = weights {
                tensors.insert_all(name, weights.to_tensors());
            }
        }
        if let Some(ranker) = &self.ranker {
            tensors.insert_all("ranker", ranker.to_tensors());
        }
        let manifest = serde_json::to_string(&manifest).map_err(|error| Error::Stored(error.to_string()))?;
        tensors.serialize(Some(&manifest))
    }

    /// Reads a model back.
    ///
    /// # Errors
    /// [`Error::Stored`] for bytes that are damaged, truncated or of another format, [`Error::NewerFormat`] for a
    /// later version of it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (mut tensors, manifest) = TensorMap::deserialize(bytes)?;
        let manifest = manifest.ok_or_else(|| Error::Stored("the manifest is missing".into()))?;
        let refused = |error: serde_json::Error| Error::Stored(format!("manifest: {error}"));
        let envelope: Envelope = serde_json::from_str(&manifest).map_err(refused)?;
        if envelope.format != FORMAT {
            return Err(Error::Stored(format!(
                "format {} is not {FORMAT}",
                envelope.format
            )));
        }
        if envelope.version > VERSION {
            return Err(Error::NewerFormat {
                found: envelope.version,
                supported: VERSION,
            });
        }
        if envelope.version < VERSION {
            return Err(Error::Stored(format!(
                "format version {} is older than {VERSION}, the one this build reads: train a new model",
                envelope.version
            )));
        }
        let manifest: Manifest = serde_json::from_str(&manifest).map_err(refused)?;
        manifest
            .params
            .check()
            .map_err(|error| Error::Stored(format!("manifest: {error}")))?;
        let catalogue = read_catalogue(&mut tensors)?;
        let generators = read_generators(&mut tensors, catalogue.len())?;
        Ok(Self {
            params: manifest.params,
            seed: manifest.seed,
            catalogue,
            generators,
            ranker: read_ranker(&mut tensors)?,
            verdict: manifest.verdict,
            trained_on: manifest.trained_on,
            trained_until_ms: manifest.trained_until_ms,
        })
    }
}

fn read_generators(tensors: &mut TensorMap, items: usize) -> Result<Generators, Error> {
    let (_, chosen) = tensors.take_u32::<1>("core")?;
    if !chosen.is_sorted_by(|a, b| a < b) || chosen.last().is_some_and(|&last| last as usize >= items) {
        return Err(Error::Stored(format!(
            "the generators' items are not among the {items} of the catalogue"
        )));
    }
    let core = Core::new(chosen, items);
    let mut part = |prefix: &str| {
        let taken = tensors.take_all(prefix);
        if taken.is_empty() {
            return Ok(None);
        }
        let weights = ItemWeights::from_tensors(taken)?;
        if weights.items() != core.len() {
            return Err(Error::Stored(format!(
                "{prefix} is over {} items, expected {}",
                weights.items(),
                core.len()
            )));
        }
        Ok(Some(weights))
    };
    Ok(Generators {
        ease: part("ease")?,
        ease_likes: part("ease-likes")?,
        next_item: part("next-item")?,
        core,
    })
}

fn read_ranker(tensors: &mut TensorMap) -> Result<Option<Ranker>, Error> {
    let taken = tensors.take_all("ranker");
    if taken.is_empty() {
        return Ok(None);
    }
    let ranker = Ranker::from_tensors(taken)?;
    if ranker.width() != WIDTH {
        return Err(Error::Stored(format!(
            "the ranker reads {} numbers per candidate, this build writes {WIDTH}",
            ranker.width()
        )));
    }
    Ok(Some(ranker))
}

fn read_catalogue(tensors: &mut TensorMap) -> Result<Catalogue, Error> {
    let (_, ids) = tensors.take_u32::<1>("catalogue.ids")?;
    let (_, years) = tensors.take_u32::<1>("catalogue.years")?;
    let (_, genres) = tensors.take_u32::<1>("catalogue.genres")?;
    if years.len() != ids.len() || genres.len() != ids.len() {
        return Err(Error::Stored("the catalogue's tensors differ in length".into()));
    }
    let mut items = Vec::with_capacity(ids.len());
    for ((external_id, year), genres) in ids.into_iter().zip(years).zip(genres) {
        let year =
            u16::try_from(year).map_err(|_| Error::Stored(format!("year {year} of item {external_id}")))?;
        items.push(CatalogueItem {
            external_id,
            year: (u32::from(year) != NO_YEAR).then_some(year),
            genres,
        });
    }
    Ok(Catalogue::new(items))
}
