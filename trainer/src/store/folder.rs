//! A local folder as an object store whose writes survive a power cut.
//!
//! `object_store`'s own local store renames without waiting for the disk and has no conditional update. Both are added
//! here; everything else is its own. A conditional update rests on there being one writer at a time, which the
//! registry's lock sees to.

use std::fmt;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::durable;

/// Objects are files below a root, which need not exist before the first write.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The plain store below; there is none without the root.
    fn files(&self) -> Result<LocalFileSystem> {
        if self.0.is_dir() {
            return LocalFileSystem::new_with_prefix(&self.0);
        }
        Err(Error::NotFound {
            path: self.0.display().to_string(),
            source: io::Error::from(io::ErrorKind::NotFound).into(),
        })
    }

    fn file(&self, key: &Key) -> PathBuf {
        key.parts()
            .fold(self.0.clone(), |path, part| path.join(part.as_ref()))
    }

    async fn tag(&self, key: &Key) -> Result<Option<String>> {
        match self.files()?.head(key).await {
            Ok(meta) => Ok(meta.e_tag),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, key: &Key, payload: &PutPayload) -> io::Result<()> {
        let path = self.file(key);
        if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
            std::fs::create_dir_all(parent)?;
            parent.parent().map_or(Ok(()), durable::sync_dir)?;
        }
        let bytes: Vec<u8> = payload.iter().flat_map(|part| part.iter().copied()).collect();
        durable::replace(&path, &bytes)
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

fn failed(source: io::Error) -> Error {
    Error::Generic {
        store: "folder",
        source: source.into(),
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, key: &Key, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        std::fs::create_dir_all(&self.0).map_err(failed)?;
        let path = key.to_string();
        match options.mode {
            PutMode::Overwrite => {}
            PutMode::Create => {
                if self.tag(key).await?.is_some() {
                    let source = io::Error::from(io::ErrorKind::AlreadyExists).into();
                    return Err(Error::AlreadyExists { path, source });
                }
            }
            PutMode::Update(expected) => {
                let found = self.tag(key).await?;
                if found.is_none() || found != expected.e_tag {
                    let source = format!("its tag is {found:?}, expected was {:?}", expected.e_tag).into();
                    return Err(Error::Precondition { path, source });
                }
            }
        }
        self.write(key, &payload).map_err(failed)?;
        Ok(PutResult {
            e_tag: self.tag(key).await?,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files()?.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        self.files()?.get_opts(key, options).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        match self.files() {
            Ok(files) => files.delete_stream(keys),
            Err(error) => stream::once(async move { Err(error) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.files() {
            Ok(files) => files.list(prefix),
            Err(_) => stream::empty().boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        match self.files() {
            Ok(files) => files.list_with_delimiter(prefix).await,
            Err(_) => Ok(ListResult {
                common_prefixes: Vec::new(),
                objects: Vec::new(),
            }),
        }
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.files()?.copy_opts(from, to, options).await
    }
}
