//! Groups of chunks: named, looked up, coded, decoded back, handed to the packing thread.
//!
//! The work runs on a pool of our own, so that a program that uses this library keeps rayon's global one. Whoever spawns a group pays for its
//! bytes first ([`Budget`]); that bounds memory whatever the sizes of files.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::buffers::Buffers;
use crate::codec::{Decoder, Encoder, Hint, Level, chunk_id};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, ObjectKind};
use crate::progress::Monitor;
use crate::repo::{CodedChunk, Piece, Repository, Writer};

/// Threads of the worker pool.
pub(super) fn worker_count() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Bytes of buffers kept for the next groups.
const SPARE_BYTES: u64 = 24 << 20;

/// A run of chunks in one buffer.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) bytes: Vec<u8>,
    pub(super) chunks: Vec<GroupChunk>,
}

/// One chunk of a group.
#[derive(Debug)]
pub(super) struct GroupChunk {
    pub(super) range: Range<usize>,
    /// What is known of LZ4 in it.
    pub(super) hint: Option<Hint>,
}

/// The pieces of a group, once its chunks are on their way into packs.
pub(super) type Coded = Receiver<Result<Vec<Piece>>>;

/// Names, looks up and codes chunks.
pub(super) struct Coder {
    pool: rayon::ThreadPool,
    writer: Arc<Writer>,
    level: i32,
    budget: Arc<Budget>,
    monitor: Arc<dyn Monitor>,
    /// Buffers of groups that are done: fresh memory costs the kernel as much as reading into it.
    spare: Buffers,
    new_bytes: AtomicU64,
    read_bytes: AtomicU64,
}

thread_local! {
    /// zstd contexts and buffers of a worker: costly to make, kept for the thread's life.
    static TOOLS: RefCell<Option<Tools>> = const { RefCell::new(None) };
}

struct Tools {
    level: i32,
    encoder: Encoder,
    decoder: Decoder,
    back: Vec<u8>,
}

impl Tools {
    fn new(level: i32) -> Result<Self> {
        Ok(Self { level, encoder: Encoder::new(Level::new(level)?)?, decoder: Decoder::new()?, back: Vec::new() })
    }
}

impl Coder {
    pub(super) fn new(
        repository: &Repository,
        writer: Arc<Writer>,
        memory: u64,
        monitor: Arc<dyn Monitor>,
    ) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(worker_count())
            .thread_name(|at| format!("everpack-code-{at}"))
            .build()
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("start worker threads: {error}")))?;
        let budget = Arc::new(Budget::new(usize::try_from(memory / 6).unwrap_or(usize::MAX).max(8 << 20)));
        let level = repository.config().level;
        Ok(Self {
            pool,
            writer,
            level,
            budget,
            monitor,
            spare: Buffers::new(SPARE_BYTES),
            new_bytes: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
        })
    }

    /// Logical bytes of new chunks so far, data only.
    pub(super) fn new_bytes(&self) -> u64 {
        self.new_bytes.load(Ordering::Relaxed)
    }

    /// Bytes read from the source so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_read_bytes(&self, count: u64) {
        self.read_bytes.fetch_add(count, Ordering::Relaxed);
    }

    /// Empty buffers for groups.
    pub(super) fn buffers(&self) -> &Buffers {
        &self.spare
    }

    /// Waits until no group is on its way any more.
    pub(super) fn wait_until_idle(&self) {
        self.budget.wait_until_free();
    }

    /// Sends a group to the pool; waits while too many bytes are on their way.
    pub(super) fn spawn(self: &Arc<Self>, group: Group) -> Coded {
        let (reply, coded) = sync_channel(1);
        let paid = self.budget.pay(group.bytes.len());
        let coder = Arc::clone(self);
        self.pool.spawn_fifo(move || {
            let outcome = coder.code(&group);
            coder.spare.give_back(group.bytes);
            // Before the reply, and before the budget is free again: whoever has seen either may count on being the last to hold the coder.
            drop(coder);
            drop(paid);
            // If nobody waits for the outcome, the run is over.
            let _sent = reply.send(outcome);
        });
        coded
    }

    fn code(&self, group: &Group) -> Result<Vec<Piece>> {
        let plain = |chunk: &GroupChunk| &group.bytes[chunk.range.clone()];
        let ids: Vec<ChunkId> = group.chunks.iter().map(|chunk| chunk_id(plain(chunk))).collect();
        let new = self.writer.claim(&ids)?;
        let mut coded = Vec::new();
        for ((chunk, id), new) in group.chunks.iter().zip(&ids).zip(new) {
            if new {
                self.new_bytes.fetch_add(chunk.range.len() as u64, Ordering::Relaxed);
                self.monitor.advance(0, chunk.range.len() as u64, 0);
                coded.push(self.code_one(*id, plain(chunk), chunk.hint.as_ref())?);
            }
        }
        self.writer.deliver(ObjectKind::DataPack, coded)?;
        let piece =
            |(chunk, id): (&GroupChunk, &ChunkId)| Piece { chunk: *id, offset: 0, len: len_u32(chunk.range.len()) };
        Ok(group.chunks.iter().zip(&ids).map(piece).collect())
    }

    /// Codes a chunk and decodes it back: what cannot be read again is never stored.
    fn code_one(&self, id: ChunkId, plain: &[u8], hint: Option<&Hint>) -> Result<CodedChunk> {
        TOOLS.with_borrow_mut(|tools| {
            if tools.as_ref().is_none_or(|tools| tools.level != self.level) {
                *tools = Some(Tools::new(self.level)?);
            }
            let Tools { encoder, decoder, back, .. } = tools.as_mut().expect("made above");
            let encoded = encoder.encode(plain, hint);
            decoder.decode_into(encoded.coding, encoded.payload, len_u32(plain.len()), back)?;
            if back.as_slice() != plain {
                let message = format!(
                    "chunk {id}: does not decode to what was coded; nothing was stored. Check this machine's memory"
                );
                return Err(Error::corrupt(message));
            }
            Ok(CodedChunk {
                id,
                plain_len: len_u32(plain.len()),
                coding: encoded.coding,
                payload: encoded.payload.to_vec(),
            })
        })
    }

    /// Stores a manifest segment or a piece list, unless it is known; gives its chunk.
    pub(super) fn store_meta(&self, plain: &[u8]) -> Result<ChunkId> {
        let id = chunk_id(plain);
        if self.writer.claim(&[id])?[0] {
            let coded = self.code_one(id, plain, None)?;
            self.writer.deliver(ObjectKind::MetaPack, vec![coded])?;
        }
        Ok(id)
    }
}

/// Chunks are at most a few megabytes; segments at most a few more.
pub(super) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("chunks are far below 4 GiB")
}

/// Bytes that may be on their way at once.
#[derive(Debug)]
struct Budget {
    most: usize,
    spent: Mutex<usize>,
    freed: Condvar,
}

/// Given back when dropped.
#[derive(Debug)]
struct Paid {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    fn new(most: usize) -> Self {
        Self { most, spent: Mutex::default(), freed: Condvar::new() }
    }

    /// Waits until there is room. Something larger than everything waits only until nothing else is on its way.
    fn pay(self: &Arc<Self>, bytes: usize) -> Paid {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        while *spent > 0 && *spent + bytes > self.most {
            spent = self.freed.wait(spent).unwrap_or_else(PoisonError::into_inner);
        }
        *spent += bytes;
        Paid { budget: Arc::clone(self), bytes }
    }
}

impl Budget {
    fn wait_until_free(&self) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        while *spent > 0 {
            spent = self.freed.wait(spent).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        *self.budget.spent.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_all();
    }
}
