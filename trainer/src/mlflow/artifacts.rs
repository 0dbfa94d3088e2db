//! A run's files.

use super::api::{Api, Run};
use super::transport::{Call, Method, MlflowError, Transport};
use crate::store::Store;

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

    /// Uploads the files of a store's folder, not those of folders in it.
    pub(super) fn upload_folder(
        &self,
        run: &Run,
        name: &str,
        store: &Store,
        folder: &str,
    ) -> Result<bool, MlflowError> {
        let unreadable = |source| {
            MlflowError::Registry(crate::RegistryError::Io {
                path: store.describe(folder),
                source,
            })
        };
        for file in store.objects(folder).map_err(unreadable)? {
            let bytes = store.get(&format!("{folder}/{file}")).map_err(unreadable)?;
            let Some(bytes) = bytes else { continue };
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
