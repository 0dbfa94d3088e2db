//! Reading and writing a bundle's directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use marquee_models::served::ServedModel;
use marquee_schemas::Movie;
use serde::Deserialize;

use super::{Bundle, BundleError, CATALOGUE, FORMAT_VERSION, FileDigest, MANIFEST, MODEL, Manifest};
use crate::durable::{sha256_hex, sync_dir, write_synced};

/// Name of the directory in which a version grows; the dot keeps it apart from finished ones.
pub(crate) fn temporary_name(version: &str) -> String {
    format!(".{version}.tmp")
}

/// Writes a bundle to `models/<version>` and gives its digest. `manifest.files` is filled in here. A directory of
/// this version that is already there is a left-over of a run that was never recorded, and is replaced.
pub(crate) fn publish(
    models: &Path,
    manifest: &mut Manifest,
    model: &[u8],
    movies: &[Movie],
) -> Result<String, BundleError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| BundleError::Io { path, source }
    };
    let finished = models.join(&manifest.version.0);
    let growing = models.join(temporary_name(&manifest.version.0));
    remove_if_there(&growing)?;
    remove_if_there(&finished)?;
    fs::create_dir_all(&growing).map_err(io(&growing))?;

    let mut lines = Vec::new();
    for movie in movies {
        lines.extend_from_slice(&marquee_schemas::encode(movie));
        lines.push(b'\n');
    }
    manifest.files = BTreeMap::new();
    for (name, bytes) in [(MODEL, model), (CATALOGUE, lines.as_slice())] {
        let path = growing.join(name);
        write_synced(&path, bytes).map_err(io(&path))?;
        manifest.files.insert(
            name.to_owned(),
            FileDigest {
                bytes: bytes.len() as u64,
                sha256: sha256_hex(bytes),
            },
        );
    }
    let text = serde_json::to_vec_pretty(manifest).map_err(|error| BundleError::Damaged {
        path: growing.clone(),
        detail: error.to_string(),
    })?;
    let path = growing.join(MANIFEST);
    write_synced(&path, &text).map_err(io(&path))?;
    sync_dir(&growing).map_err(io(&growing))?;
    fs::rename(&growing, &finished).map_err(io(&finished))?;
    sync_dir(models).map_err(io(models))?;
    Ok(sha256_hex(&text))
}

fn remove_if_there(path: &Path) -> Result<(), BundleError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(BundleError::Io {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

fn read(bundle: &Path, name: &str) -> Result<Vec<u8>, BundleError> {
    let path = bundle.join(name);
    fs::read(&path).map_err(|source| {
        if source.kind() != ErrorKind::NotFound {
            BundleError::Io { path, source }
        } else if bundle.is_dir() {
            BundleError::Damaged {
                path: bundle.to_path_buf(),
                detail: format!("{name} is missing"),
            }
        } else {
            BundleError::Missing {
                path: bundle.to_path_buf(),
            }
        }
    })
}

pub(super) fn load(path: &Path, expected: Option<&str>) -> Result<Bundle, BundleError> {
    /// Read alone first, so that a newer format is recognised whatever else it changed.
    #[derive(Deserialize)]
    struct Envelope {
        format_version: u32,
    }

    let damaged = |detail: String| BundleError::Damaged {
        path: path.to_path_buf(),
        detail,
    };
    let text = read(path, MANIFEST)?;
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
            path: path.to_path_buf(),
            found: envelope.format_version,
        });
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(refused)?;

    let verified = |name: &str| -> Result<Vec<u8>, BundleError> {
        let digest = manifest
            .files
            .get(name)
            .ok_or_else(|| damaged(format!("the manifest does not list {name}")))?;
        let bytes = read(path, name)?;
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
            path: path.to_path_buf(),
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
