//! Reading and writing a bundle's directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use marquee_models::served::ServedModel;
use marquee_schemas::Movie;
use serde::Deserialize;

use super::{Bundle, BundleError, CATALOGUE, FORMAT_VERSION, FileDigest, MANIFEST, MODEL, Manifest};
use crate::durable::sha256_hex;
use crate::registry::folder_of;
use crate::store::Store;

/// Writes a bundle into the registry's store and gives its digest. `manifest.files` is filled in here. The manifest comes
/// last: without it there is no bundle. What already lies in this version's folder is a left-over of a run that was
/// never recorded, and goes.
pub(crate) fn publish(
    store: &Store,
    manifest: &mut Manifest,
    model: &[u8],
    movies: &[Movie],
) -> Result<String, BundleError> {
    let folder = folder_of(&manifest.version);
    let io = |path: PathBuf| move |source| BundleError::Io { path, source };
    store
        .remove_folder(&folder)
        .map_err(io(store.describe(&folder)))?;
    let put = |name: &str, bytes: &[u8]| {
        let name = format!("{folder}/{name}");
        store.put(&name, bytes).map_err(io(store.describe(&name)))
    };
    let mut lines = Vec::new();
    for movie in movies {
        lines.extend_from_slice(&marquee_schemas::encode(movie));
        lines.push(b'\n');
    }
    manifest.files = BTreeMap::new();
    for (name, bytes) in [(MODEL, model), (CATALOGUE, lines.as_slice())] {
        put(name, bytes)?;
        manifest.files.insert(
            name.to_owned(),
            FileDigest {
                bytes: bytes.len() as u64,
                sha256: sha256_hex(bytes),
            },
        );
    }
    let text = serde_json::to_vec_pretty(manifest).map_err(|error| BundleError::Damaged {
        path: store.describe(&folder),
        detail: error.to_string(),
    })?;
    put(MANIFEST, &text)?;
    Ok(sha256_hex(&text))
}

/// A bundle in a folder of a store; the empty name is the store itself.
struct Shelf<'a> {
    store: &'a Store,
    folder: &'a str,
    path: PathBuf,
}

impl Shelf<'_> {
    fn read(&self, name: &str) -> Result<Vec<u8>, BundleError> {
        let full = if self.folder.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.folder)
        };
        let io = |source| BundleError::Io {
            path: self.store.describe(&full),
            source,
        };
        if let Some(bytes) = self.store.get(&full).map_err(io)? {
            return Ok(bytes);
        }
        let path = self.path.clone();
        if self.store.objects(self.folder).map_err(io)?.is_empty() {
            return Err(BundleError::Missing { path });
        }
        Err(BundleError::Damaged {
            path,
            detail: format!("{name} is missing"),
        })
    }
}

/// The bundle at a location of its own.
pub(super) fn load_at(path: &Path, expected: Option<&str>) -> Result<Bundle, BundleError> {
    let store = Store::at(path).map_err(|source| BundleError::Io {
        path: path.to_path_buf(),
        source,
    })?;
    load(&store, "", expected)
}

/// The bundle in a folder of a store.
pub(super) fn load(store: &Store, folder: &str, expected: Option<&str>) -> Result<Bundle, BundleError> {
    /// Read alone first, so that a newer format is recognised whatever else it changed.
    #[derive(Deserialize)]
    struct Envelope {
        format_version: u32,
    }

    let shelf = Shelf {
        store,
        folder,
        path: store.describe(folder),
    };
    let damaged = |detail: String| BundleError::Damaged {
        path: shelf.path.clone(),
        detail,
    };
    let text = shelf.read(MANIFEST)?;
    let sha256 = sha256_hex(&text);
    if let Some(expected) = expected.filter(|&expected| expected != sha256) {
        return Err(damaged(format!(
            "its digest is {sha256}, expected was {expected}"
        )));
    }
    let refused = |error: serde_json::Error| damaged(format!("{MANIFEST}: {error}"));
    let envelope: Envelope = serde_json::from_slice(&text).map_err(refused)?;
    if envelope.format_version > FORMAT_VERSION {
        return Err(BundleError::NewerFormat {
            path: shelf.path.clone(),
            found: envelope.format_version,
        });
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(refused)?;

    let verified = |name: &str| -> Result<Vec<u8>, BundleError> {
        let digest = manifest
            .files
            .get(name)
            .ok_or_else(|| damaged(format!("the manifest does not list {name}")))?;
        let bytes = shelf.read(name)?;
        if bytes.len() as u64 != digest.bytes || sha256_hex(&bytes) != digest.sha256 {
            return Err(damaged(format!(
                "{name} of {} bytes does not match its digest ({} bytes)",
                bytes.len(),
                digest.bytes
            )));
        }
        Ok(bytes)
    };
    let model = ServedModel::from_bytes(&verified(MODEL)?).map_err(|error| match error {
        marquee_models::Error::NewerFormat { found, .. } => BundleError::NewerFormat {
            path: shelf.path.clone(),
            found,
        },
        other => damaged(format!("{MODEL}: {other}")),
    })?;
    let movies = verified(CATALOGUE)?
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            marquee_schemas::decode::<Movie>(line).map_err(|error| damaged(format!("{CATALOGUE}: {error}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let ids = model.catalogue().items().iter().map(|item| item.external_id);
    if !ids.eq(movies.iter().map(|movie| movie.movie_id.0)) {
        return Err(damaged(
            "the model's items are not those of its catalogue".to_owned(),
        ));
    }
    Ok(Bundle {
        manifest,
        model,
        movies,
        sha256,
    })
}
