//! A run's files.

use std::path::Path;

use super::api::{Api, Run};
use super::transport::{Call, Method, MlflowError, Transport};

/// The scheme of artifacts that the tracking server itself takes and keeps.
const PROXIED: &str = "mlflow-artifacts:";

impl<T: Transport> Api<T> {
    /// Uploads bytes as a run's file, over what was there. `false` where the server keeps artifacts somewhere that
    /// only its own clients reach (it was started without `--artifacts-destination`).
    pub(super) fn upload(&self, run: &Run, name: &str, bytes: &[u8]) -> Result<bool, MlflowError> {
        let Some(folder) = proxied_folder(&run.artifact_uri) else {
            return Ok(false);
        };
        self.0.call(&Call {
            method: Method::Put,
            path: format!("api/2.0/mlflow-artifacts/artifacts/{folder}/{name}"),
            body: bytes,
        })?;
        Ok(true)
    }

    /// Uploads the files of a folder, not those of folders in it.
    pub(super) fn upload_folder(&self, run: &Run, name: &str, folder: &Path) -> Result<bool, MlflowError> {
        let unreadable = |source| {
            MlflowError::Registry(crate::RegistryError::Io {
                path: folder.to_path_buf(),
                source,
            })
        };
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let Some(file) = path
                .file_name()
                .and_then(|file| file.to_str())
                .filter(|_| path.is_file())
            else {
                continue;
            };
            let bytes = std::fs::read(&path).map_err(unreadable)?;
            if !self.upload(run, &format!("{name}/{file}"), &bytes)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// `1/abc/artifacts` of `mlflow-artifacts:/1/abc/artifacts` or `mlflow-artifacts://host:port/1/abc/artifacts`.
fn proxied_folder(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix(PROXIED)?;
    let path = match rest.strip_prefix("//") {
        Some(with_host) => with_host.split_once('/')?.1,
        None => rest.trim_start_matches('/'),
    };
    Some(path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proxied_artifacts_have_a_folder_that_can_be_written() {
        assert_eq!(
            proxied_folder("mlflow-artifacts:/1/abc/artifacts"),
            Some("1/abc/artifacts")
        );
        assert_eq!(
            proxied_folder("mlflow-artifacts://127.0.0.1:5000/1/abc/artifacts"),
            Some("1/abc/artifacts")
        );
        assert_eq!(proxied_folder("s3://bucket/1/abc/artifacts"), None);
    }
}
