//! Writing to a store: immutable objects, create-only objects, and deletes.
//!
//! *Invariant*: what a call returned `Ok` for is durable, deletes on a local disk included. After an error a write may or may
//! not have happened; both kinds of write can simply be asked for again.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, Result as StoreResult,
};

use super::fail::{explain, is_refusal};
use super::layout::ObjectPath;
use super::local::{self, Leftover, LocalDisk};
use super::reader::{Inner, StoreReader};
use crate::error::{Error, ErrorKind, Result};
use crate::units;

/// How often a create is tried again when the store says "exists" and nothing is there (some answer so to racers).
const CONFLICTS_MAX: u32 = 8;
/// How often a create is tried again when no answer came and nothing is there. Each try has been retried further down.
const SILENCES_MAX: u32 = 3;
/// Objects that are created and not just put are small; what is read back may have been written by anybody.
const CREATED_LEN_MAX: u64 = 64 * units::MIB;

/// What came of a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is there, with our bytes.
    Created,
    /// Somebody else was first, with these bytes.
    AlreadyThere(Bytes),
}

/// A store that can be written. Reads as [`StoreReader`] does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    reader: StoreReader,
}

impl Deref for Store {
    type Target = StoreReader;

    fn deref(&self) -> &StoreReader {
        &self.reader
    }
}

impl Store {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, display: String, local: Option<LocalDisk>) -> Self {
        Self { reader: StoreReader { inner: Arc::new(Inner { objects, display, local: local.map(Arc::new) }) } }
    }

    /// A store over any implementation, for tests and tools. What it is called is up to the caller.
    #[doc(hidden)]
    pub fn from_object_store(objects: Arc<dyn ObjectStore>, display: impl Into<String>) -> Self {
        Self::new(objects, display.into(), None)
    }

    /// The same place, seen through an adapter.
    #[doc(hidden)]
    #[must_use]
    pub fn layered(&self, layer: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        let Inner { objects, display, local } = &*self.inner;
        let inner = Inner { objects: layer(Arc::clone(objects)), display: display.clone(), local: local.clone() };
        Self { reader: StoreReader { inner: Arc::new(inner) } }
    }

    /// The same store, for code that must not write.
    pub fn readonly(&self) -> StoreReader {
        self.reader.clone()
    }

    /// Writes an immutable object under a name that nobody else uses. Whole or not at all; safe to repeat.
    pub async fn put_new(&self, object: impl Into<ObjectPath>, parts: Vec<Bytes>) -> Result<()> {
        let path = object.into();
        self.make_ready_for(&path).await?;
        let payload: PutPayload = parts.into_iter().filter(|part| !part.is_empty()).collect();
        match self.inner.objects.put(path.as_path(), payload).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain_write("write", &path, error)),
        }
    }

    /// Writes an object only if there is none of this name; of all who try, one is told `Created`.
    ///
    /// `bytes` must hold something random: "exists" is answered by reading back, and equal bytes are taken for our own write
    /// whose reply was lost. An error means that nobody knows: ask again.
    pub async fn create(&self, object: impl Into<ObjectPath>, bytes: Bytes) -> Result<Put> {
        let path = object.into();
        let (mut conflicts, mut silences) = (0, 0);
        loop {
            let error = match self.create_once(&path, bytes.clone()).await? {
                Ok(()) => return Ok(Put::Created),
                Err(error) => error,
            };
            let exists = is_conflict(&error);
            // A local disk that failed has done so for good, and what it shows now need not survive a power cut.
            if is_refusal(&error) || (!exists && self.inner.local.is_some()) {
                return Err(self.explain_write("create", &path, error));
            }
            match self.get_if_there(&path, CREATED_LEN_MAX).await {
                Ok(Some(found)) if found == bytes => {
                    self.sync_object(&path).await?;
                    return Ok(Put::Created);
                }
                Ok(Some(found)) => return Ok(Put::AlreadyThere(found)),
                Ok(None) => {}
                Err(error) if exists => return Err(error),
                Err(_) => return Err(self.uncertain(&path, error)),
            }
            *(if exists { &mut conflicts } else { &mut silences }) += 1;
            if conflicts >= CONFLICTS_MAX || silences >= SILENCES_MAX {
                return Err(self.uncertain(&path, error));
            }
            tokio::time::sleep(pause(conflicts + silences)).await;
        }
    }

    /// One create-only request, its raw answer inside.
    pub(super) async fn create_once(&self, path: &ObjectPath, bytes: Bytes) -> Result<StoreResult<()>> {
        self.make_ready_for(path).await?;
        let options = PutOptions::from(PutMode::Create);
        Ok(self.inner.objects.put_opts(path.as_path(), bytes.into(), options).await.map(|_| ()))
    }

    /// Deletes an object. One that is not there is fine.
    pub async fn delete(&self, object: impl Into<ObjectPath>) -> Result<()> {
        let path = object.into();
        match self.inner.objects.delete(path.as_path()).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(self.explain("delete", &path, error)),
        }
        self.on_disk("delete", &path.clone(), move |disk| disk.sync_deleted([&path])).await
    }

    /// Deletes many objects, several at once. Goes on after a failure, and returns the first.
    pub async fn delete_many(&self, objects: Vec<ObjectPath>) -> Result<()> {
        let paths: Vec<_> = objects.iter().map(|path| Ok(path.as_path().clone())).collect();
        let mut deleted = self.inner.objects.delete_stream(futures::stream::iter(paths).boxed());
        let mut failure = None;
        let root = ObjectPath::from(super::Folder::Root);
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => {
                    failure.get_or_insert_with(|| explain("delete objects", "", self.display(), error));
                }
            }
        }
        self.on_disk("delete objects", &root, move |disk| disk.sync_deleted(&objects)).await?;
        failure.map_or(Ok(()), Err)
    }

    /// What interrupted writes left on a local disk, where listings hide it; always empty elsewhere.
    pub async fn leftovers(&self) -> Result<Vec<Leftover>> {
        let Some(disk) = self.inner.local.clone() else { return Ok(Vec::new()) };
        let found = tokio::task::spawn_blocking(move || disk.leftovers()).await;
        self.blocking("look for leftovers", "", found)
    }

    /// Deletes a leftover. If its writer is still at it, that write fails.
    pub async fn delete_leftover(&self, leftover: Leftover) -> Result<()> {
        let object = leftover.object.to_string();
        let deleted = tokio::task::spawn_blocking(move || local::delete_leftover(&leftover)).await;
        self.blocking("delete a leftover of", &object, deleted)
    }

    async fn make_ready_for(&self, path: &ObjectPath) -> Result<()> {
        if self.inner.local.as_ref().is_none_or(|disk| disk.is_ready_for(path)) {
            return Ok(());
        }
        let target = path.clone();
        self.on_disk("make the directory of", path, move |disk| disk.make_ready_for(&target)).await
    }

    async fn sync_object(&self, path: &ObjectPath) -> Result<()> {
        let target = path.clone();
        self.on_disk("sync", path, move |disk| disk.sync_object(&target)).await
    }

    /// Runs `work` on the blocking pool if this is a local store.
    async fn on_disk<F>(&self, act: &str, path: &ObjectPath, work: F) -> Result<()>
    where
        F: FnOnce(&LocalDisk) -> std::io::Result<()> + Send + 'static,
    {
        let Some(disk) = self.inner.local.clone() else { return Ok(()) };
        let done = tokio::task::spawn_blocking(move || work(&disk)).await;
        self.blocking(act, path.as_str(), done)
    }

    fn blocking<T>(
        &self,
        act: &str,
        object: &str,
        done: Result<std::io::Result<T>, tokio::task::JoinError>,
    ) -> Result<T> {
        let error: Box<dyn std::error::Error + Send + Sync> = match done {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
        };
        Err(missing_is_trouble(explain(
            act,
            object,
            self.display(),
            StoreError::Generic { store: "local", source: error },
        )))
    }

    fn explain_write(&self, act: &str, path: &ObjectPath, error: StoreError) -> Error {
        missing_is_trouble(self.explain(act, path, error))
    }

    fn uncertain(&self, path: &ObjectPath, error: StoreError) -> Error {
        let message = format!("create {path} in {}: cannot tell whether it was written", self.display());
        Error::with_source(ErrorKind::Unavailable, message, error)
    }
}

/// Nothing can be missing that one is about to write: something else is, and the caller must not take it for an answer.
fn missing_is_trouble(error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let message = format!("{} (is the disk mounted, does the bucket exist?)", error.message());
    Error::with_source(ErrorKind::Unavailable, message, error)
}

/// True if the store says that the object exists; it need not be so.
pub(super) fn is_conflict(error: &StoreError) -> bool {
    matches!(error, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } | StoreError::NotModified { .. })
}

/// Grows from 10 to 640 ms, with as much again at random, so that racers part.
pub(super) fn pause(attempt: u32) -> Duration {
    let base = 10u64 << attempt.min(6);
    let mut random = [0; 2];
    let jitter = match getrandom::fill(&mut random) {
        Ok(()) => u64::from(u16::from_le_bytes(random)) * base / u64::from(u16::MAX),
        Err(_) => 0,
    };
    Duration::from_millis(base + jitter)
}
