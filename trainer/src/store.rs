//! Where the registry's files lie: a local folder, or a prefix of an S3-compatible bucket.
//!
//! A *location* is a path; one that begins with `s3://` names a bucket and a prefix. Credentials, region and endpoint
//! then come from the usual variables (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT`,
//! `AWS_ALLOW_HTTP`). Everything is an object behind [`object_store`]; what must not be torn is one object, replaced by a
//! conditional write.

mod folder;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};

use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};

use folder::Folder;

const S3: &str = "s3://";

/// Whether a location lies in a bucket.
pub(crate) fn is_remote(location: &Path) -> bool {
    location.to_str().is_some_and(|text| text.starts_with(S3))
}

/// The version of an object that was read or written, for a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag(UpdateVersion);

/// Why a conditional write did not happen.
#[derive(Debug)]
pub(crate) enum SwapError {
    /// The object is not the one that was read: somebody else has written it.
    Lost,
    /// The store failed.
    Io(io::Error),
}

/// Objects below a location. Calls block; they may be made from any thread, also from one of an asynchronous runtime.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    location: PathBuf,
    objects: Arc<dyn ObjectStore>,
    prefix: Key,
}

impl Store {
    /// The store at a location. A local folder need not be there yet.
    ///
    /// # Errors
    /// The bucket's settings are incomplete.
    pub(crate) fn at(location: &Path) -> io::Result<Self> {
        let Some(rest) = location.to_str().and_then(|text| text.strip_prefix(S3)) else {
            return Ok(Self::over(
                Arc::new(Folder::new(location)),
                Key::default(),
                location,
            ));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let objects = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .build()
            .map_err(io::Error::other)?;
        let prefix = Key::parse(prefix.trim_matches('/')).map_err(io::Error::other)?;
        Ok(Self::over(Arc::new(objects), prefix, location))
    }

    /// A store over these objects, which calls itself `location`.
    pub(crate) fn over(objects: Arc<dyn ObjectStore>, prefix: Key, location: &Path) -> Self {
        Self {
            location: location.to_path_buf(),
            objects,
            prefix,
        }
    }

    /// The name of an object, for people.
    pub(crate) fn describe(&self, name: &str) -> PathBuf {
        self.location.join(name)
    }

    fn key(&self, name: &str) -> Key {
        name.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.prefix.clone(), |key, part| key.join(part))
    }

    /// An object; `None` if there is none.
    pub(crate) fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.get_tagged(name)?.map(|(bytes, _)| bytes))
    }

    /// An object, and which version of it this is.
    pub(crate) fn get_tagged(&self, name: &str) -> io::Result<Option<(Vec<u8>, Tag)>> {
        let (objects, key) = (Arc::clone(&self.objects), self.key(name));
        block_on(async move {
            let found = match objects.get(&key).await {
                Err(StoreError::NotFound { .. }) => return Ok(None),
                found => found?,
            };
            let tag = Tag(UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            });
            Ok(Some((found.bytes().await?.to_vec(), tag)))
        })
    }

    /// Writes an object, over what was there. It is complete or absent, and durable.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (objects, key, bytes) = (Arc::clone(&self.objects), self.key(name), bytes.to_vec());
        block_on(async move { objects.put(&key, bytes.into()).await.map(drop) })
    }

    /// Writes an object if it is still the one with this tag, or, without one, if there is none.
    pub(crate) fn swap(&self, name: &str, bytes: &[u8], expected: Option<&Tag>) -> Result<Tag, SwapError> {
        let (objects, key, bytes) = (Arc::clone(&self.objects), self.key(name), bytes.to_vec());
        let mode = match expected {
            Some(tag) => PutMode::Update(tag.0.clone()),
            None => PutMode::Create,
        };
        let lost = Arc::new(OnceLock::new());
        let noted = Arc::clone(&lost);
        let written = block_on(async move {
            let outcome = objects.put_opts(&key, bytes.into(), PutOptions::from(mode)).await;
            if let Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) = &outcome {
                noted.get_or_init(|| ());
            }
            outcome
        });
        match written {
            Ok(written) => Ok(Tag(written.into())),
            Err(_) if lost.get().is_some() => Err(SwapError::Lost),
            Err(error) => Err(SwapError::Io(error)),
        }
    }

    /// The names of the folders directly below a folder.
    pub(crate) fn folders(&self, name: &str) -> io::Result<Vec<String>> {
        let (objects, key) = (Arc::clone(&self.objects), self.key(name));
        let listed = block_on(async move { objects.list_with_delimiter(Some(&key)).await })?;
        let mut names: Vec<String> = listed
            .common_prefixes
            .iter()
            .filter_map(|folder| folder.filename().map(str::to_owned))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The names of the objects directly in a folder.
    pub(crate) fn objects(&self, name: &str) -> io::Result<Vec<String>> {
        let (objects, key) = (Arc::clone(&self.objects), self.key(name));
        let listed = block_on(async move { objects.list_with_delimiter(Some(&key)).await })?;
        let mut names: Vec<String> = listed
            .objects
            .iter()
            .filter_map(|object| object.location.filename().map(str::to_owned))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes every object directly in a folder, and the folder where there are such things.
    pub(crate) fn remove_folder(&self, name: &str) -> io::Result<()> {
        for object in self.objects(name)? {
            let (objects, key) = (Arc::clone(&self.objects), self.key(&format!("{name}/{object}")));
            block_on(async move {
                match objects.delete(&key).await {
                    Err(StoreError::NotFound { .. }) => Ok(()),
                    outcome => outcome,
                }
            })?;
        }
        if is_remote(&self.location) {
            return Ok(());
        }
        match std::fs::remove_dir(self.describe(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Waits for a store's answer on a runtime of the stores' own, which no caller's runtime can be in the way of.
fn block_on<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> io::Result<T> {
    static RUNTIME: OnceLock<io::Result<tokio::runtime::Runtime>> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("marquee-store")
                .enable_all()
                .build()
        })
        .as_ref()
        .map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        // The receiver waits below.
        drop(sender.send(work.await));
    });
    receiver
        .recv()
        .map_err(|_| io::Error::other("the store's answer was lost"))?
        .map_err(|error| {
            let kind = match &error {
                StoreError::NotFound { .. } => io::ErrorKind::NotFound,
                StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                    io::ErrorKind::PermissionDenied
                }
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })
}

#[cfg(test)]
mod tests;
