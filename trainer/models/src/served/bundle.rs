//! A served model as bytes: safetensors, with a manifest text that carries the format's version and the settings.

use serde::{Deserialize, Serialize};

use super::catalogue::{Catalogue, CatalogueItem};
use super::{ServedModel, ServedParams};
use crate::Error;
use crate::tensors::{Tensor, TensorMap};

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
        Ok(Self {
            params: manifest.params,
            seed: manifest.seed,
            catalogue,
            trained_on: manifest.trained_on,
            trained_until_ms: manifest.trained_until_ms,
        })
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
