//! One object written part by part, for what is too long to be held in memory.

use bytes::Bytes;
use object_store::{ObjectStoreExt, WriteMultipart};

use super::fail::explain;
use super::layout::ObjectPath;
use super::writer::Store;
use crate::error::{Error, Result};

/// Bytes of a part; with it an object may have 80 GiB, and MatrixOne's have less than 4.
const PART_LEN: usize = 8 << 20;
/// Parts on their way at once.
const PARTS_MAX: usize = 3;

/// An object on its way. It is seen only once it is finished; dropped, it never is.
pub struct Upload {
    path: ObjectPath,
    display: String,
    parts: WriteMultipart,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Upload").field(&self.path).finish()
    }
}

impl Store {
    /// Begins an object under a name that nobody else uses.
    pub async fn upload(&self, object: impl Into<ObjectPath>) -> Result<Upload> {
        let (path, display) = (object.into(), self.display().to_owned());
        match self.inner.objects.put_multipart(path.as_path()).await {
            Ok(parts) => Ok(Upload { parts: WriteMultipart::new_with_chunk_size(parts, PART_LEN), path, display }),
            Err(error) => Err(explain("write", path.as_str(), &display, error)),
        }
    }
}

impl Upload {
    /// Adds bytes at its end; waits while enough are on their way.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.parts.wait_for_capacity(PARTS_MAX).await.map_err(|error| self.explain(error))?;
        self.parts.put(bytes);
        Ok(())
    }

    /// Ends it: from now on it is there, whole.
    pub async fn finish(self) -> Result<()> {
        let Self { path, display, parts } = self;
        parts.finish().await.map(drop).map_err(|error| explain("write", path.as_str(), &display, error))
    }

    /// Gives it up: nothing of it is left, or the store's own rules for unfinished uploads remove it.
    pub async fn abort(self) {
        let _gone = self.parts.abort().await;
    }

    fn explain(&self, error: object_store::Error) -> Error {
        explain("write", self.path.as_str(), &self.display, error)
    }
}
