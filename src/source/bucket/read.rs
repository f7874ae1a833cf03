//! Reads one object in large ranges, the next ones asked for before they are wanted.
//!
//! Opening costs no request: every reply tells which object it is of, and that is compared with the listing, so bytes of
//! two versions are never mixed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{BucketAccess, BucketObject, BucketOptions, object_identity};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{OpenFile, SourceEntry, SourceFile, SourceIdentity, display_path};

pub(super) struct BucketReader {
    access: Arc<dyn BucketAccess>,
    handle: Handle,
    options: BucketOptions,
}

impl BucketReader {
    pub(super) fn new(access: Arc<dyn BucketAccess>, handle: Handle, options: BucketOptions) -> Self {
        Self { access, handle, options }
    }
}

impl OpenFile for BucketReader {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        let Ok(key) = std::str::from_utf8(&entry.path) else {
            return Err(Error::invalid(format!("open {}: no key of a bucket", display_path(&entry.path))));
        };
        let expected = Expected { key: key.to_owned(), size: entry.size, mtime: entry.mtime, identity: entry.identity };
        Ok(Box::new(BucketFile {
            access: Arc::clone(&self.access),
            handle: self.handle.clone(),
            options: self.options,
            expected: Arc::new(expected),
            window: std::sync::Mutex::default(),
        }))
    }

    fn look(&self, entry: &SourceEntry) -> Result<SourceEntry> {
        let Ok(key) = std::str::from_utf8(&entry.path) else { return Ok(entry.clone()) };
        // Any reply tells what the object is now; a range of it is the least that can be asked for.
        let (object, _) = self.handle.block_on(self.access.get_range(key, 0..entry.size.min(1)))?;
        Ok(SourceEntry { path: entry.path.clone(), ..super::into_entry(&object) })
    }
}

/// The object as it was listed.
struct Expected {
    key: String,
    size: u64,
    mtime: Timestamp,
    identity: SourceIdentity,
}

impl Expected {
    fn name(&self) -> String {
        display_path(self.key.as_bytes())
    }

    /// True if a reply is of this object.
    ///
    /// A listing has the time of the object in other precision than a reply, so the name of the content decides if there
    /// is one, and the time, in seconds, only if there is none.
    fn is(&self, reply: &BucketObject) -> bool {
        let identity = |etag| object_identity(&self.key, etag, self.size, self.mtime);
        let seconds = |time: Timestamp| time.as_nanos().div_euclid(1_000_000_000);
        reply.size == self.size
            && (identity(reply.etag.as_deref()) == self.identity && reply.etag.is_some()
                || identity(None) == self.identity && seconds(reply.last_modified) == seconds(self.mtime))
    }

    /// One request, its reply checked.
    async fn fetch(&self, access: &dyn BucketAccess, range: Range<u64>) -> Result<Bytes> {
        let (object, bytes) = access.get_range(&self.key, range.clone()).await?;
        if !self.is(&object) {
            let message = format!("read {}: the object has changed since it was listed", self.name());
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let wanted = range.end - range.start;
        if bytes.len() as u64 != wanted {
            let message =
                format!("read {} at {}: the store sent {} of {wanted} bytes", self.name(), range.start, bytes.len());
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(bytes)
    }
}

struct BucketFile {
    access: Arc<dyn BucketAccess>,
    handle: Handle,
    options: BucketOptions,
    expected: Arc<Expected>,
    window: std::sync::Mutex<Window>,
}

/// What is here and what is on its way.
#[derive(Default)]
struct Window {
    /// Number of the block that is here.
    block: Option<(u64, Bytes)>,
    /// The blocks that follow it.
    ahead: VecDeque<(u64, Request)>,
}

/// A request under way; given up when nobody wants its reply.
struct Request(JoinHandle<Result<Bytes>>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl BucketFile {
    /// The range of a block, or none beyond the end.
    fn range(&self, block: u64) -> Option<Range<u64>> {
        let start = block.checked_mul(self.options.range_len).filter(|start| *start < self.expected.size)?;
        Some(start..start.saturating_add(self.options.range_len).min(self.expected.size))
    }

    fn request(&self, range: Range<u64>) -> Request {
        let (access, expected) = (Arc::clone(&self.access), Arc::clone(&self.expected));
        Request(self.handle.spawn(async move { expected.fetch(access.as_ref(), range).await }))
    }

    /// The bytes of a block, with the following ones asked for if the reader goes forward.
    fn block(&self, block: u64, range: Range<u64>) -> Result<Bytes> {
        let mut window = self.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((here, bytes)) = &window.block
            && *here == block
        {
            return Ok(bytes.clone());
        }
        let forward = match &window.block {
            None => block == 0,
            Some((here, _)) => here.checked_add(1) == Some(block),
        };
        window.block = None;
        while window.ahead.pop_front_if(|(number, _)| *number != block).is_some() {}
        let request = match window.ahead.pop_front() {
            Some((_, request)) => request,
            None => self.request(range),
        };
        if forward {
            let next = window.ahead.back().map_or(block, |(number, _)| *number);
            let missing = self.options.read_ahead.saturating_sub(window.ahead.len());
            for (number, _) in (next.saturating_add(1)..).zip(0..missing) {
                let Some(range) = self.range(number) else { break };
                window.ahead.push_back((number, self.request(range)));
            }
        }
        let bytes = self.wait(request)?;
        window.block = Some((block, bytes.clone()));
        Ok(bytes)
    }

    fn wait(&self, mut request: Request) -> Result<Bytes> {
        self.handle.block_on(&mut request.0).unwrap_or_else(|error| {
            let message = format!("read {}: the request ended without a reply", self.expected.name());
            Err(Error::with_source(ErrorKind::Unavailable, message, error))
        })
    }
}

impl SourceFile for BucketFile {
    fn len(&self) -> u64 {
        self.expected.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            let Some(at) = offset.checked_add(filled as u64) else { break };
            let block = at / self.options.range_len;
            let Some(range) = self.range(block).filter(|range| range.contains(&at)) else { break };
            let skip = usize::try_from(at - range.start).expect("a block fits in memory");
            let bytes = self.block(block, range)?;
            let count = (bytes.len() - skip).min(buf.len() - filled);
            buf[filled..filled + count].copy_from_slice(&bytes[skip..skip + count]);
            filled += count;
        }
        Ok(filled)
    }

    fn verify_unchanged(&self) -> Result<bool> {
        // Every reply was compared with the listing, so what was read is of one version; a later one does not matter.
        Ok(true)
    }
}
