//! Stores seen through something: what was asked of them, what goes wrong, how slow they are, how they lie.
//!
//! For tests and tools. An adapter is a `Layer`: it is told of every request before and after, may fail either, and may do
//! the put in its own way. `around` of each wraps a [`Store`] and returns the wrapped store with a handle to the adapter.
//! Multipart uploads, copies and delimited listings are refused, because stores here use none.

mod faulty;
mod liar;
mod recorder;
mod throttle;
mod turns;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::writer::Store;

pub use faulty::{Faults, Faulty};
pub use liar::{Overwriter, Racy};
pub use recorder::{Counts, Recorder};
pub use throttle::{Pace, Throttle};
pub use turns::{Seat, Turns};

/// Objects in one page of a listing, as S3 has it.
const PAGE_LEN: usize = 1000;
/// Deletes at once.
const DELETES: usize = 10;

/// What was asked of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An object was written.
    Put {
        /// Where.
        path: String,
        /// How long it is.
        len: u64,
        /// Only if there is none.
        create: bool,
    },
    /// An object was read, whole or in parts.
    Get {
        /// Where.
        path: String,
        /// How many ranges were asked for in this request; 0 for the whole.
        ranges: usize,
    },
    /// An object was looked at.
    Head {
        /// Where.
        path: String,
    },
    /// An object was deleted.
    Delete {
        /// Where.
        path: String,
    },
    /// A listing was begun; each further page counts again.
    List {
        /// Of what.
        prefix: String,
        /// From where.
        after: Option<String>,
    },
}

impl Request {
    /// True if it changes the store.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }

    fn list(prefix: Option<&Path>, after: Option<&Path>) -> Self {
        Self::List {
            prefix: prefix.map(ToString::to_string).unwrap_or_default(),
            after: after.map(ToString::to_string),
        }
    }
}

/// What an adapter does with requests.
#[async_trait]
pub(crate) trait Layer: fmt::Debug + Send + Sync + 'static {
    /// An error here means that the request was never made.
    async fn before(&self, _request: &Request) -> Result<()> {
        Ok(())
    }

    /// An error here means that the request was carried out and its answer lost. `len` is how much was read or written.
    async fn after(&self, _request: &Request, _len: u64) -> Result<()> {
        Ok(())
    }

    /// Carries out a put.
    async fn put(
        &self,
        inner: &dyn ObjectStore,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        inner.put_opts(path, payload, options).await
    }
}

fn around<L: Layer>(store: &Store, layer: L) -> (Store, Arc<L>) {
    let layer = Arc::new(layer);
    let handle = Arc::clone(&layer);
    (store.layered(|inner| Arc::new(Layered { layer, inner })), handle)
}

#[derive(Debug)]
struct Layered<L> {
    layer: Arc<L>,
    inner: Arc<dyn ObjectStore>,
}

impl<L: Layer> fmt::Display for Layered<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {}", self.layer, self.inner)
    }
}

impl<L: Layer> Layered<L> {
    fn list_pages(
        &self,
        request: Request,
        listing: impl FnOnce(&dyn ObjectStore) -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (layer, inner, first) = (Arc::clone(&self.layer), Arc::clone(&self.inner), request.clone());
        let objects = stream::once(async move {
            layer.before(&first).await?;
            Ok::<_, StoreError>(listing(&*inner))
        });
        let layer = Arc::clone(&self.layer);
        let paged = objects.try_flatten().enumerate().then(move |(n, item)| {
            let next_page = (n > 0 && n % PAGE_LEN == 0).then(|| (Arc::clone(&layer), request.clone()));
            async move {
                if let Some((layer, request)) = next_page {
                    layer.before(&request).await?;
                }
                item
            }
        });
        paged.boxed()
    }

    fn refuse<T>(&self, operation: &str) -> Result<T> {
        Err(StoreError::NotImplemented { operation: operation.to_owned(), implementer: self.to_string() })
    }
}

#[async_trait]
impl<L: Layer> ObjectStore for Layered<L> {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let len = payload.content_length() as u64;
        let create = options.mode == PutMode::Create;
        let request = Request::Put { path: path.to_string(), len, create };
        self.layer.before(&request).await?;
        let result = self.layer.put(&*self.inner, path, payload, options).await?;
        self.layer.after(&request, len).await?;
        Ok(result)
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let request = match options.head {
            true => Request::Head { path: path.to_string() },
            false => Request::Get { path: path.to_string(), ranges: usize::from(options.range.is_some()) },
        };
        let is_head = options.head;
        self.layer.before(&request).await?;
        let result = self.inner.get_opts(path, options).await?;
        let len = if is_head { 0 } else { result.range.end.saturating_sub(result.range.start) };
        self.layer.after(&request, len).await?;
        Ok(result)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let request = Request::Get { path: path.to_string(), ranges: ranges.len() };
        self.layer.before(&request).await?;
        let found = self.inner.get_ranges(path, ranges).await?;
        self.layer.after(&request, found.iter().map(|bytes| bytes.len() as u64).sum()).await?;
        Ok(found)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (layer, inner) = (Arc::clone(&self.layer), Arc::clone(&self.inner));
        let deleted = paths.map(move |path| {
            let (layer, inner) = (Arc::clone(&layer), Arc::clone(&inner));
            async move {
                let path = path?;
                let request = Request::Delete { path: path.to_string() };
                layer.before(&request).await?;
                inner.delete(&path).await?;
                layer.after(&request, 0).await?;
                Ok(path)
            }
        });
        deleted.buffered(DELETES).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let owned = prefix.cloned();
        self.list_pages(Request::list(prefix, None), move |inner| inner.list(owned.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (owned, after) = (prefix.cloned(), offset.clone());
        let request = Request::list(prefix, Some(offset));
        self.list_pages(request, move |inner| inner.list_with_offset(owned.as_ref(), &after))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.refuse("put_multipart")
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        self.refuse("list_with_delimiter")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        self.refuse("copy")
    }
}
