//! Synthetic indexes, manifests and packs of any size, for tests of memory and for benchmarks.
//!
//! Everything is made from numbers: chunk `n` has always the same id, file `n` the same name, so that millions of them need no memory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::{chunk_id, object_hash};
use crate::error::{Error, Result};
use crate::format::fragment::{Fragment, FragmentEntry, FragmentPack};
use crate::format::log_state::LogState;
use crate::format::segment::SegmentReader;
use crate::id::{ChunkId, EntryHash, FamilyId, FileHash, ObjectHash, ObjectKind, ObjectName, RepositoryId, SessionId};
use crate::index::{Index, catch_up};
use crate::manifest::{FinishedSegment, SegmentCutter, order};
use crate::pack::PackBuilder;
use crate::repo::{Entry, EntryKind, FileFormat, Piece, Pieces, Transform};
use crate::source::{Source, SourceEntry};
use crate::store::{Store, StoreOptions, StoredObject};
use crate::testing::scale_source::{SyntheticKind, SyntheticSource};

/// Chunks in a synthetic pack: 32 MiB of some 32 KiB each.
const CHUNKS_PER_PACK: u64 = 1000;
const STORED_LEN: u32 = 32_000;

/// A well-mixed number (splitmix64).
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The id of chunk `n`.
pub(crate) fn chunk(n: u64) -> ChunkId {
    let mut id = [0; 32];
    for (at, part) in id.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&mixed(n * 4 + at as u64).to_le_bytes());
    }
    ChunkId::from_bytes(id)
}

/// The fragment of chunks `from..to`.
pub(crate) fn fragment(from: u64, to: u64) -> Fragment {
    let mut fragment = Fragment::default();
    for n in from..to {
        if (n - from).is_multiple_of(CHUNKS_PER_PACK) {
            let hash = ObjectHash::from_bytes(*chunk(n | 1 << 50).as_bytes());
            let name = ObjectName { kind: ObjectKind::DataPack, hash, session: SESSION };
            fragment.packs.push(FragmentPack { name, size: 64 << 20 });
        }
        fragment.entries.push(FragmentEntry {
            id: chunk(n),
            pack: u16::try_from(fragment.packs.len() - 1).expect("few packs"),
            offset: 64 + u32::try_from((n - from) % CHUNKS_PER_PACK).expect("small") * (STORED_LEN + 64),
            stored_len: STORED_LEN,
            plain_len: STORED_LEN + 1000,
            coding: 1,
        });
    }
    fragment
}

pub(crate) const SESSION: SessionId = SessionId::from_bytes(*b"synthsyn");
pub(crate) const REPOSITORY: RepositoryId = RepositoryId::from_bytes([7; 16]);

/// A store of synthetic fragments, and a local index of them.
#[derive(Debug)]
pub struct ScaleIndex {
    store: Store,
    directory: PathBuf,
    state: LogState,
    chunks: u64,
}

impl ScaleIndex {
    /// Nothing yet; fragments go to `repo`, the index to `cache` in the directory.
    pub async fn create(directory: &Path) -> Result<Self> {
        let repo = directory.join("repo");
        let store = Store::create_root(&repo.to_string_lossy(), &StoreOptions::default())?;
        Ok(Self { store, directory: directory.join("cache"), state: LogState::default(), chunks: 0 })
    }

    /// Adds fragments of new chunks to the store.
    pub async fn publish(&mut self, chunks: u64, per_fragment: u64) -> Result<()> {
        let end = self.chunks + chunks;
        while self.chunks < end {
            let to = (self.chunks + per_fragment).min(end);
            let stored = Bytes::from(fragment(self.chunks, to).encode());
            let name = ObjectName { kind: ObjectKind::Fragment, hash: object_hash(&stored), session: SESSION };
            self.store.put_new(StoredObject::Named(name), vec![stored]).await?;
            self.state.head += 1;
            self.state.head_hash = Some(EntryHash::from_bytes(*name.hash.as_bytes()));
            self.state.fragments.push((self.state.head, name));
            self.chunks = to;
        }
        Ok(())
    }

    /// Opens the index and brings it up to date; gives the entries taken in and the time that took.
    pub async fn catch_up(&self) -> Result<(u64, Duration)> {
        let begun = Instant::now();
        let index = Index::open(Some(&self.directory), REPOSITORY)?;
        let report = catch_up(&index, &self.store, &self.state, &[]).await?;
        drop(index);
        Ok((report.entries, begun.elapsed()))
    }

    /// Looks up `batches` sorted batches of `size` chunks, every second chunk unknown; gives how many were found.
    pub fn look_up(&self, batches: u64, size: u64) -> Result<(u64, Duration)> {
        let index = Index::open(Some(&self.directory), REPOSITORY)?;
        index.set_live(|_| false);
        let mut found = 0;
        let mut took = Duration::ZERO;
        for batch in 0..batches {
            let number =
                |at: u64| mixed(batch * size + at) % self.chunks + if at.is_multiple_of(2) { 0 } else { 1 << 40 };
            let mut ids: Vec<ChunkId> = (0..size).map(|at| chunk(number(at))).collect();
            ids.sort_unstable();
            let begun = Instant::now();
            found += index.lookup(&ids)?.iter().flatten().count() as u64;
            took += begun.elapsed();
        }
        Ok((found, took))
    }

    /// Removes the index.
    pub fn forget_index(&self) {
        let _gone = std::fs::remove_dir_all(&self.directory);
    }

    /// Bytes that the index takes on disk.
    pub fn disk_bytes(&self) -> u64 {
        let Ok(files) = std::fs::read_dir(&self.directory) else { return 0 };
        files.flatten().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
    }
}

/// The segments of a manifest of synthetic objects.
#[derive(Debug)]
pub struct ScaleManifest {
    segments: Vec<FinishedSegment>,
    count: u64,
}

impl ScaleManifest {
    /// Of `count` files.
    pub fn create(count: u64) -> Result<Self> {
        let mut source = SyntheticSource::new(SyntheticKind::Objects, count);
        let mut cutter = SegmentCutter::default();
        let mut segments = Vec::new();
        loop {
            let batch = source.next_batch(1024)?;
            if batch.is_empty() {
                break;
            }
            for (at, from) in batch.into_iter().enumerate() {
                segments.extend(cutter.push(&entry_of(from, at as u64))?);
            }
        }
        segments.extend(cutter.finish());
        Ok(Self { segments, count })
    }

    /// Reads all entries beside a source that has not changed, and cuts them again; gives how many segments came out the same.
    pub fn merge(&self) -> Result<usize> {
        let mut source = SyntheticSource::new(SyntheticKind::Objects, self.count);
        let mut batch = Vec::new().into_iter();
        let mut cutter = SegmentCutter::default();
        let mut same = 0;
        let mut old = self.segments.iter();
        let mut compare = |segment: FinishedSegment| {
            same += usize::from(old.next().is_some_and(|old| chunk_id(&old.plain) == chunk_id(&segment.plain)));
        };
        for segment in &self.segments {
            for entry in SegmentReader::new(&segment.plain)? {
                let entry = entry?;
                if batch.len() == 0 {
                    batch = source.next_batch(1024)?.into_iter();
                }
                let beside = batch.next().ok_or_else(|| Error::invalid("the source ended early"))?;
                let is_directory = |kind: EntryKind| kind == EntryKind::Directory;
                let order =
                    order::compare(&entry.path, is_directory(entry.kind), &beside.path, is_directory(beside.kind));
                if order.is_ne() {
                    return Err(Error::invalid("the entries are not those of the source"));
                }
                if let Some(segment) = cutter.push(&entry)? {
                    compare(segment);
                }
            }
        }
        if let Some(segment) = cutter.finish() {
            compare(segment);
        }
        Ok(same)
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }
}

fn entry_of(from: SourceEntry, seed: u64) -> Entry {
    let is_file = from.kind == EntryKind::File;
    let len = u32::try_from(from.size).unwrap_or(u32::MAX);
    let hash = if is_file { *chunk(seed | 1 << 45).as_bytes() } else { [0; 32] };
    let pieces = if is_file { vec![Piece { chunk: chunk(seed), offset: 0, len }] } else { Vec::new() };
    Entry {
        path: from.path,
        kind: from.kind,
        transform: Transform::None,
        format: FileFormat::Opaque,
        stable: is_file,
        sparse: false,
        mode: from.mode,
        uid: from.uid,
        gid: from.gid,
        mtime: from.mtime,
        size: from.size,
        hash: FileHash::from_bytes(hash),
        identity: from.identity,
        link_target: Vec::new(),
        pieces: Pieces::Direct(pieces),
        extension: Vec::new(),
    }
}

/// Builds and names a pack of chunks of this payload; gives its length.
pub fn build_pack(chunks: u64, payload: &[u8]) -> usize {
    let mut builder = PackBuilder::new(ObjectKind::DataPack, FamilyId::from_bytes([9; 16]), 32 << 20);
    for n in 0..chunks {
        builder.push(chunk(n), u32::try_from(payload.len()).expect("a small payload"), 0, payload);
    }
    builder.seal().map_or(0, |pack| pack.name(SESSION).stored.len())
}

/// Anonymous memory of this process: its present size, bytes.
pub fn anonymous_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
