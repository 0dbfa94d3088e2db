//! A served model as bytes: safetensors, with a manifest text that carries the format's version and the settings.

use serde::{Deserialize, Serialize};

use super::catalogue::{Catalogue, CatalogueItem};
use super::features::row::WIDTH;
use super::generators::Generators;
use super::generators::next_item::NextItem;
use super::{ServedModel, ServedParams};
use crate::ease::Ease;
use crate::ranker::{Ranker, Verdict};
use crate::tensors::{Tensor, TensorMap};
use crate::{Error, Scorer};

/// Name of the format in the manifest.
const FORMAT: &str = "marquee-served";
/// Newest version this build writes and reads.
pub const VERSION: u32 = 1;
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
        if let Some(ease) = &self.generators.ease {
            tensors.insert_all("ease", ease.to_tensors());
        }
        if let Some(ease) = &self.generators.ease_likes {
            tensors.insert_all("ease-likes", ease.to_tensors());
        }
        if let Some(model) = &self.generators.next_item {
            tensors.insert_all("next-item", model.to_tensors()?);
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
        let manifest: Manifest = serde_json::from_str(&manifest).map_err(refused)?;
        manifest
            .params
            .check()
            .map_err(|error| Error::Stored(format!("manifest: {error}")))?;
        let catalogue = read_catalogue(&mut tensors)?;
        let generators = read_generators(&mut tensors)?;
        check_shapes(&generators, catalogue.len())?;
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

fn read_generators(tensors: &mut TensorMap) -> Result<Generators, Error> {
    let mut part = |prefix: &str| Some(tensors.take_all(prefix)).filter(|taken| !taken.is_empty());
    Ok(Generators {
        ease: part("ease").map(Ease::from_tensors).transpose()?,
        ease_likes: part("ease-likes").map(Ease::from_tensors).transpose()?,
        next_item: part("next-item").map(NextItem::from_tensors).transpose()?,
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

/// Every part must be over the same items.
fn check_shapes(generators: &Generators, items: usize) -> Result<(), Error> {
    let sizes = [
        generators.ease.as_ref().map(Scorer::items),
        generators.ease_likes.as_ref().map(Scorer::items),
        generators.next_item.as_ref().map(NextItem::items),
    ];
    match sizes.into_iter().flatten().find(|&size| size != items) {
        Some(size) => Err(Error::Stored(format!(
            "a generator of {size} items in a catalogue of {items}"
        ))),
        None => Ok(()),
    }
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
