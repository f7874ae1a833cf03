//! Reading from a store: a type that cannot write or delete, whatever the code that holds it gets wrong.
//!
//! Sizes come from the network and from disks that lie, so every read has a limit and checks the length it got.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    Error as StoreError, GetOptions, GetRange, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt,
};

use super::fail::explain;
use super::layout::{ObjectPath, StoredObject};
use super::local::LocalDisk;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::units;

/// No object and no range is read whole if it is longer than this.
pub const OBJECT_LEN_MAX: u64 = units::GIB;

/// Ranges of a remote object this close together are fetched by one request: it costs less than another round trip.
const GAP_MAX: u64 = units::MIB;
/// But no request is made longer than this by joining.
const JOINED_LEN_MAX: u64 = 32 * units::MIB;
/// Requests at once for the ranges of one object.
const RANGE_REQUESTS: usize = 8;

/// Objects as they are listed.
pub type ObjectStream = BoxStream<'static, Result<ObjectInfo>>;

/// What a store says about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Where it is.
    pub path: ObjectPath,
    /// Length in bytes.
    pub len: u64,
    /// When it was written, by the store's clock.
    pub last_modified: Timestamp,
    /// What the store calls this content, if it does.
    pub etag: Option<String>,
}

impl ObjectInfo {
    /// What it is.
    pub fn object(&self) -> StoredObject {
        StoredObject::parse(&self.path)
    }

    fn new(meta: ObjectMeta) -> Self {
        let last_modified = Timestamp::from_nanos(meta.last_modified.timestamp_nanos_opt().unwrap_or(0));
        Self { path: ObjectPath::from_path(meta.location), len: meta.size, last_modified, etag: meta.e_tag }
    }
}

/// A store that can be read and listed. Cheap to clone.
#[derive(Clone)]
pub struct StoreReader {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) display: String,
    pub(super) local: Option<Arc<LocalDisk>>,
}

impl fmt::Debug for StoreReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreReader").field(&self.inner.display).finish()
    }
}

impl StoreReader {
    /// The place as people write it, without credentials.
    pub fn display(&self) -> &str {
        &self.inner.display
    }

    /// The directory of a local store.
    pub fn local_path(&self) -> Option<&Path> {
        self.inner.local.as_deref().map(LocalDisk::root)
    }

    /// The whole object, up to [`OBJECT_LEN_MAX`].
    pub async fn get(&self, object: impl Into<ObjectPath>) -> Result<Bytes> {
        self.get_limited(object, OBJECT_LEN_MAX).await
    }

    /// The whole object; `Corrupt` without reading it if it is longer than `len_max`.
    pub async fn get_limited(&self, object: impl Into<ObjectPath>, len_max: u64) -> Result<Bytes> {
        let path = object.into();
        let result =
            self.inner.objects.get(path.as_path()).await.map_err(|error| self.explain("read", &path, error))?;
        let len = result.meta.size;
        if len > len_max {
            let message = format!(
                "read {path} in {}: {} is longer than the {} expected at most",
                self.display(),
                units::bytes(len),
                units::bytes(len_max)
            );
            return Err(Error::corrupt(message));
        }
        let bytes = result.bytes().await.map_err(|error| self.explain("read", &path, error))?;
        self.check_len(&path, len, &bytes)?;
        Ok(bytes)
    }

    /// The whole of an object that has `len` bytes, into a buffer that is used again: large blocks of memory that come and go are not given
    /// back to the system in time. `Corrupt` if it has another length.
    pub async fn get_into(&self, object: impl Into<ObjectPath>, len: u64, buffer: Vec<u8>) -> Result<Vec<u8>> {
        let path = object.into();
        self.check_range(&path, &(0..len))?;
        let result =
            self.inner.objects.get(path.as_path()).await.map_err(|error| self.explain("read", &path, error))?;
        if result.meta.size != len {
            let (found, display) = (result.meta.size, self.display());
            return Err(Error::corrupt(format!("read {path} in {display}: it has {found} bytes, {len} expected")));
        }
        self.receive(&path, result.payload, 0..len, buffer).await
    }

    /// Exactly these bytes, into a buffer that is used again; `Corrupt` if the object ends before.
    pub async fn get_range_into(
        &self,
        object: impl Into<ObjectPath>,
        range: Range<u64>,
        buffer: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let path = object.into();
        self.check_range(&path, &range)?;
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        match self.inner.objects.get_opts(path.as_path(), options).await {
            Ok(result) => self.receive(&path, result.payload, range, buffer).await,
            Err(error) => Err(self.explain_range(&path, &[range], error).await),
        }
    }

    /// Replaces what a buffer holds by a reply of so many bytes. A file of a local disk comes whole, whatever was asked of it.
    async fn receive(
        &self,
        path: &ObjectPath,
        payload: GetResultPayload,
        range: Range<u64>,
        mut buffer: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let len = range.end - range.start;
        buffer.clear();
        buffer.reserve_exact(usize::try_from(len).map_err(|_| self.short(path))?);
        match payload {
            GetResultPayload::File(mut file, _) => {
                let act = format!("read {path} in {}", self.display());
                let read = tokio::task::spawn_blocking(move || {
                    file.seek(SeekFrom::Start(range.start))?;
                    file.take(len).read_to_end(&mut buffer)?;
                    Ok(buffer)
                });
                let read = read.await.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
                buffer = read.map_err(|error| Error::io(act, error))?;
            }
            GetResultPayload::Stream(mut parts) => {
                while let Some(part) = parts.try_next().await.map_err(|error| self.explain("read", path, error))? {
                    buffer.extend_from_slice(&part);
                }
            }
        }
        if buffer.len() as u64 != len {
            return Err(self.short(path));
        }
        Ok(buffer)
    }

    /// The whole object, or nothing if it is not there.
    pub async fn get_if_there(&self, object: impl Into<ObjectPath>, len_max: u64) -> Result<Option<Bytes>> {
        match self.get_limited(object, len_max).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Exactly these bytes; `Corrupt` if the object ends before.
    pub async fn get_range(&self, object: impl Into<ObjectPath>, range: Range<u64>) -> Result<Bytes> {
        let path = object.into();
        self.check_range(&path, &range)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if self.inner.local.is_some() {
            let mut ranges = self.get_local_ranges(&path, std::slice::from_ref(&range)).await?;
            return ranges.pop().ok_or_else(|| self.short(&path));
        }
        self.fetch(&path, range).await
    }

    /// Exactly these bytes, and what the reply says of the object as a whole: of an object that others may write anew.
    pub async fn get_range_with_info(
        &self,
        object: impl Into<ObjectPath>,
        range: Range<u64>,
    ) -> Result<(ObjectInfo, Bytes)> {
        let path = object.into();
        self.check_range(&path, &range)?;
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let result = match self.inner.objects.get_opts(path.as_path(), options).await {
            Ok(result) => result,
            Err(error) => return Err(self.explain_range(&path, &[range], error).await),
        };
        let info = ObjectInfo::new(result.meta.clone());
        let bytes = result.bytes().await.map_err(|error| self.explain("read", &path, error))?;
        Ok((info, bytes))
    }

    /// Exactly these bytes of one object, in the order asked for; `Corrupt` if it ends before. Ranges may overlap.
    ///
    /// Close neighbours travel in one request and share memory: what is returned keeps the gaps between them alive.
    pub async fn get_ranges(&self, object: impl Into<ObjectPath>, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = object.into();
        for range in ranges {
            self.check_range(&path, range)?;
        }
        let wanted: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        let found = match (wanted.is_empty(), &self.inner.local) {
            (true, _) => Vec::new(),
            (false, Some(_)) => self.get_local_ranges(&path, &wanted).await?,
            (false, None) => self.get_joined_ranges(&path, &wanted).await?,
        };
        let mut found = found.into_iter();
        let take = |range: &Range<u64>| match range.is_empty() {
            true => Ok(Bytes::new()),
            false => found.next().ok_or_else(|| self.short(&path)),
        };
        ranges.iter().map(take).collect()
    }

    /// What the store says about an object, or nothing if it is not there.
    pub async fn head(&self, object: impl Into<ObjectPath>) -> Result<Option<ObjectInfo>> {
        let path = object.into();
        match self.inner.objects.head(path.as_path()).await {
            Ok(meta) => Ok(Some(ObjectInfo::new(meta))),
            Err(error) => match self.explain("look at", &path, error) {
                error if error.kind() == ErrorKind::NotFound => Ok(None),
                error => Err(error),
            },
        }
    }

    /// True if the object is there.
    pub async fn exists(&self, object: impl Into<ObjectPath>) -> Result<bool> {
        Ok(self.head(object).await?.is_some())
    }

    /// Every object below `prefix`, which ends at a `/`: `log` does not list `log-state`. In no promised order, as a stream:
    /// a million objects need no memory. Leftovers of a local disk are not listed.
    pub fn list(&self, prefix: impl Into<ObjectPath>) -> ObjectStream {
        let prefix = prefix.into();
        let objects = self.inner.objects.list(some_prefix(&prefix));
        self.listed(prefix, objects)
    }

    /// The same, but only paths after `after` in byte order.
    pub fn list_from(&self, prefix: impl Into<ObjectPath>, after: impl Into<ObjectPath>) -> ObjectStream {
        let (prefix, after) = (prefix.into(), after.into());
        let objects = self.inner.objects.list_with_offset(some_prefix(&prefix), after.as_path());
        // A server that does not know the offset lists everything; that costs time but must not change the answer.
        let objects = objects.try_filter(move |meta| {
            let is_after = meta.location > *after.as_path();
            async move { is_after }
        });
        self.listed(prefix, objects.boxed())
    }

    /// A listing in memory, sorted by path; for folders known to be small.
    pub async fn list_sorted(&self, prefix: impl Into<ObjectPath>) -> Result<Vec<ObjectInfo>> {
        let mut objects: Vec<ObjectInfo> = self.list(prefix).try_collect().await?;
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    fn listed(&self, prefix: ObjectPath, objects: BoxStream<'static, Result<ObjectMeta, StoreError>>) -> ObjectStream {
        let reader = self.clone();
        objects
            .map(move |meta| match meta {
                Ok(meta) => Ok(ObjectInfo::new(meta)),
                Err(error) => Err(reader.explain("list", &prefix, error)),
            })
            .boxed()
    }

    async fn get_local_ranges(&self, path: &ObjectPath, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // One open and one hop to the blocking pool for all of them; short files are an error there.
        match self.inner.objects.get_ranges(path.as_path(), ranges).await {
            Ok(found) => {
                for (range, bytes) in ranges.iter().zip(&found) {
                    self.check_len(path, range.end - range.start, bytes)?;
                }
                Ok(found)
            }
            Err(error) => Err(self.explain_range(path, ranges, error).await),
        }
    }

    /// Joins neighbours itself, because `object_store::coalesce_ranges` panics when an object is shorter than promised.
    async fn get_joined_ranges(&self, path: &ObjectPath, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let joined = join(ranges);
        let fetches = joined.iter().cloned().map(|range| self.fetch(path, range));
        let fetched: Vec<Bytes> =
            futures::stream::iter(fetches.collect::<Vec<_>>()).buffered(RANGE_REQUESTS).try_collect().await?;
        let cut = |range: &Range<u64>| {
            let at = joined.partition_point(|joined| joined.start <= range.start).checked_sub(1)?;
            let start = usize::try_from(range.start - joined.get(at)?.start).ok()?;
            let end = start.checked_add(usize::try_from(range.end - range.start).ok()?)?;
            let bytes = fetched.get(at)?;
            (end <= bytes.len()).then(|| bytes.slice(start..end))
        };
        ranges.iter().map(|range| cut(range).ok_or_else(|| self.short(path))).collect()
    }

    async fn fetch(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes> {
        match self.inner.objects.get_range(path.as_path(), range.clone()).await {
            Ok(bytes) => {
                self.check_len(path, range.end - range.start, &bytes)?;
                Ok(bytes)
            }
            Err(error) => Err(self.explain_range(path, &[range], error).await),
        }
    }

    fn check_range(&self, path: &ObjectPath, range: &Range<u64>) -> Result<()> {
        match range.end.checked_sub(range.start) {
            Some(len) if len <= OBJECT_LEN_MAX => Ok(()),
            _ => {
                let message =
                    format!("read {path} in {}: bytes {}..{} are no range", self.display(), range.start, range.end);
                Err(Error::corrupt(message))
            }
        }
    }

    fn check_len(&self, path: &ObjectPath, wanted: u64, bytes: &Bytes) -> Result<()> {
        if bytes.len() as u64 == wanted {
            return Ok(());
        }
        let message = format!("read {path} in {}: wanted {wanted} bytes, got {}", self.display(), bytes.len());
        Err(Error::corrupt(message))
    }

    fn short(&self, path: &ObjectPath) -> Error {
        Error::corrupt(format!("read {path} in {}: it ends before it should", self.display()))
    }

    /// A range behind the end is damage, not trouble with the store; stores say it in many ways, so we ask for the size.
    async fn explain_range(&self, path: &ObjectPath, ranges: &[Range<u64>], error: StoreError) -> Error {
        if matches!(error, StoreError::Generic { .. })
            && let Ok(meta) = self.inner.objects.head(path.as_path()).await
            && let Some(range) = ranges.iter().find(|range| range.end > meta.size)
        {
            let (start, end, len) = (range.start, range.end, meta.size);
            let message =
                format!("read {path} in {}: wanted bytes {start}..{end}, but it has {len} bytes", self.display());
            return Error::with_source(ErrorKind::Corrupt, message, error);
        }
        self.explain("read", path, error)
    }

    pub(super) fn explain(&self, act: &str, path: &ObjectPath, error: StoreError) -> Error {
        explain(act, path.as_str(), self.display(), error)
    }
}

fn some_prefix(prefix: &ObjectPath) -> Option<&object_store::path::Path> {
    (!prefix.is_root()).then(|| prefix.as_path())
}

/// Sorted ranges that cover `ranges`, near ones joined.
fn join(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            // An overlap is always joined, so that a range lies in the last joined one that starts before it.
            Some(last)
                if range.start < last.end
                    || (range.start - last.end <= GAP_MAX && range.end - last.start <= JOINED_LEN_MAX) =>
            {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init, reason = "lists of ranges")]
    fn near_ranges_travel_together() {
        assert_eq!(join(&[10..20, 0..5]), [0..20]);
        assert_eq!(join(&[0..5, 3..4, 4..9]), [0..9]);
        assert_eq!(join(&[0..5, 6 + GAP_MAX..7 + GAP_MAX]), [0..5, 6 + GAP_MAX..7 + GAP_MAX]);
        let long = JOINED_LEN_MAX - 1;
        assert_eq!(join(&[0..long, long..long + 5]), [0..long, long..long + 5]);
        assert_eq!(join(&[0..long, long - 1..long + 5]), [0..long + 5]);
        assert!(join(&[]).is_empty());
    }
}
