//! The objects below a prefix of a bucket as a source.
//!
//! The store itself is behind [`BucketAccess`], so that everything here runs against a fake. A bucket has no directories:
//! every entry is a file, and restore creates the directories above it. Keys that are no safe relative paths, and objects
//! below a key that is an object itself, are failures counted in [`Skipped`]. The listing runs ahead of its reader, and a
//! file is read in large ranges, some of them ahead; every reply has to be of the object that was listed.

mod read;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{
    EntryKind, OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceIdentity, display_path, host_name,
};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::units::MIB;

use read::BucketReader;

/// Objects that the listing may be ahead of its reader.
const LIST_AHEAD: usize = 8192;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketObject {
    /// Key relative to the prefix.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub last_modified: Timestamp,
    /// What the store calls this content.
    pub etag: Option<String>,
}

impl BucketObject {
    fn identity(&self) -> SourceIdentity {
        object_identity(&self.key, self.etag.as_deref(), self.size, self.last_modified)
    }
}

fn object_identity(key: &str, etag: Option<&str>, size: u64, last_modified: Timestamp) -> SourceIdentity {
    crate::codec::identity(&[
        b"bucket",
        key.as_bytes(),
        etag.unwrap_or("").as_bytes(),
        &size.to_le_bytes(),
        &last_modified.as_nanos().to_le_bytes(),
    ])
}

/// The requests that a bucket source makes. Everything below one prefix, with keys relative to it.
///
/// Implemented over the store; retries and limits are its business.
#[async_trait]
pub trait BucketAccess: Send + Sync + 'static {
    /// URL of the prefix, without credentials.
    fn location(&self) -> String;

    /// True if `list` yields keys in the order of their bytes, as S3 does. If not, the whole listing is sorted in memory.
    fn lists_in_order(&self) -> bool;

    /// All objects below the prefix, at any depth.
    fn list(&self) -> BoxStream<'static, Result<BucketObject>>;

    /// Bytes of an object, and what the reply says about the object as a whole; `NotFound` if it is gone.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<(BucketObject, Bytes)>;
}

/// How to read from a bucket.
#[derive(Clone, Copy, Debug)]
pub struct BucketOptions {
    /// Bytes asked for at once, at least 8 MiB.
    pub range_len: u64,
    /// Ranges asked for ahead of the reader; an open file holds up to one more than this in memory.
    pub read_ahead: usize,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self { range_len: Self::RANGE_LEN_MIN, read_ahead: 2 }
    }
}

impl BucketOptions {
    /// Smaller ranges spend their time waiting.
    pub const RANGE_LEN_MIN: u64 = 8 * MIB;
}

/// Everything below a prefix of a bucket.
///
/// Its calls block on the runtime whose handle it is given: they belong on threads of their own, never on that runtime's.
pub struct BucketSource {
    description: SourceDescription,
    listing: Objects,
    skipped: Skipped,
    /// Keys before the current one that are a prefix of it, shortest first.
    above: Vec<String>,
    last: Option<String>,
    reader: Arc<BucketReader>,
}

/// Objects in order.
enum Objects {
    /// As they come from the store.
    Streamed { objects: mpsc::Receiver<Result<BucketObject>>, task: JoinHandle<()> },
    /// A store that lists in any order: all of them, sorted.
    Sorted(VecDeque<BucketObject>),
}

impl Drop for Objects {
    fn drop(&mut self) {
        if let Self::Streamed { task, .. } = self {
            task.abort();
        }
    }
}

impl BucketSource {
    /// Starts listing. The caller makes `access` from the store (`store/` is the one home of object stores).
    ///
    /// Blocks until the listing is complete if the store does not list in order.
    pub fn new(access: Arc<dyn BucketAccess>, handle: Handle, options: BucketOptions) -> Result<Self> {
        let options = BucketOptions { range_len: options.range_len.max(BucketOptions::RANGE_LEN_MIN), ..options };
        Self::with_ranges(access, handle, options)
    }

    fn with_ranges(access: Arc<dyn BucketAccess>, handle: Handle, options: BucketOptions) -> Result<Self> {
        let description = SourceDescription {
            kind: "bucket",
            location: access.location(),
            host: host_name(),
            facts: Vec::new(),
            warnings: Vec::new(),
        };
        let mut stream = access.list();
        let (sender, mut objects) = mpsc::channel(LIST_AHEAD);
        let task = handle.spawn(async move {
            while let Some(object) = stream.next().await {
                if sender.send(object).await.is_err() {
                    break;
                }
            }
        });
        let listing = if access.lists_in_order() {
            Objects::Streamed { objects, task }
        } else {
            let mut all = Vec::new();
            while let Some(object) = objects.blocking_recv() {
                all.push(object.map_err(|error| error.context(format!("list {}", description.location)))?);
            }
            all.sort_unstable_by(|a: &BucketObject, b| a.key.as_bytes().cmp(b.key.as_bytes()));
            Objects::Sorted(all.into())
        };
        let reader = Arc::new(BucketReader::new(access, handle, options));
        Ok(Self { description, listing, skipped: Skipped::default(), above: Vec::new(), last: None, reader })
    }

    fn next_object(&mut self) -> Result<Option<BucketObject>> {
        let object = match &mut self.listing {
            Objects::Sorted(objects) => objects.pop_front(),
            Objects::Streamed { objects, .. } => match objects.blocking_recv() {
                None => None,
                Some(Ok(object)) => Some(object),
                Some(Err(error)) => return Err(error.context(format!("list {}", self.description.location))),
            },
        };
        let Some(object) = object else { return Ok(None) };
        if self.last.as_ref().is_some_and(|last| last.as_bytes() >= object.key.as_bytes()) {
            let (key, last) = (display_path(object.key.as_bytes()), self.last.as_deref().unwrap_or(""));
            let message = format!(
                "list {}: the store lists {key} after {}, which is not the order of S3",
                self.description.location,
                display_path(last.as_bytes())
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        self.last = Some(object.key.clone());
        Ok(Some(object))
    }

    /// False, and counted, if the key cannot be a path of a backup.
    fn is_path(&mut self, object: &BucketObject) -> bool {
        let key = object.key.as_str();
        if key.ends_with('/') && object.size == 0 {
            self.skipped.directory_markers.add(|| display_path(key.as_bytes()));
            return false;
        }
        if !is_safe(key) {
            self.skipped.unsafe_names.add(|| display_path(key.as_bytes()));
            return false;
        }
        while self.above.pop_if(|above| !key.starts_with(above.as_str())).is_some() {}
        if let Some(above) = self.above.iter().find(|above| key.as_bytes().get(above.len()) == Some(&b'/')) {
            let above = display_path(above.as_bytes());
            let name = || format!("{}: {above} is an object itself", display_path(key.as_bytes()));
            self.skipped.unsafe_names.add(name);
            return false;
        }
        self.above.push(key.to_owned());
        true
    }
}

/// A relative path without empty components, `.`, `..` or NUL.
fn is_safe(key: &str) -> bool {
    !key.contains('\0') && key.split('/').all(|component| !matches!(component, "" | "." | ".."))
}

fn into_entry(object: &BucketObject) -> SourceEntry {
    SourceEntry {
        path: object.key.clone().into_bytes(),
        kind: EntryKind::File,
        size: object.size,
        // What MatrixOne gives its files: a bucket keeps no modes, and backups are nobody else's to read.
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: object.last_modified,
        changed: object.last_modified,
        link_target: Vec::new(),
        identity: object.identity(),
        sparse: false,
        link_count: 1,
    }
}

impl Source for BucketSource {
    fn describe(&self) -> SourceDescription {
        self.description.clone()
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        let mut entries = Vec::new();
        while entries.len() < max.max(1) {
            let Some(object) = self.next_object()? else { break };
            if self.is_path(&object) {
                entries.push(into_entry(&object));
            }
        }
        Ok(entries)
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::clone(&self.reader) as Arc<dyn OpenFile>
    }

    fn skipped(&self) -> Skipped {
        self.skipped.clone()
    }
}
