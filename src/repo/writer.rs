//! New chunks into packs, packs into the store, fragments into the log.
//!
//! Worker threads ask [`Writer::claim`] which of their chunks are new, code those, and hand them to the packing thread, which owns the packs
//! in the making. Sealed packs are uploaded several at a time; their fragments are published at every checkpoint, so that a killed run
//! loses minutes. The synchronous side of a backup meets the asynchronous store here.
//!
//! Invariant: a chunk that `claim` calls known is either in a pack that was live in the folded state, or was claimed by somebody in this
//! session who delivers it before the writer is finished. What is relied on is remembered, and proved again at the commit.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Repository;
use super::session::{REFRESH_EVERY, Session};
use crate::buffers::Buffers;
use crate::codec::object_hash;
use crate::error::{Error, ErrorKind, Result};
use crate::format::fragment::Fragment;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{ChunkId, ObjectKind, ObjectName};
use crate::index::Index;
use crate::pack::{PackBuilder, SealedPack};
use crate::store::{Folder, StoredObject};

/// Fragments are published when this many bytes of packs are stored but unpublished,
const CHECKPOINT_BYTES: u64 = 2 << 30;
/// or this many chunks,
const CHECKPOINT_CHUNKS: usize = 150_000;
/// or after this long.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);
/// Coded chunks waiting to be packed: so many messages, each at most a group of chunks.
const QUEUE: usize = 16;
const SHARDS: usize = 64;

/// A chunk on its way into a pack.
#[derive(Debug)]
pub(crate) struct CodedChunk {
    pub(crate) id: ChunkId,
    pub(crate) plain_len: u32,
    pub(crate) coding: u8,
    pub(crate) payload: Vec<u8>,
}

/// What a writer stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriterTotals {
    pub(crate) chunks: u64,
    /// Plain bytes of new chunks, data and meta.
    pub(crate) new_bytes: u64,
    /// Bytes of stored packs.
    pub(crate) stored_bytes: u64,
    pub(crate) packs: u64,
}

impl std::ops::AddAssign for WriterTotals {
    fn add_assign(&mut self, other: Self) {
        self.chunks += other.chunks;
        self.new_bytes += other.new_bytes;
        self.stored_bytes += other.stored_bytes;
        self.packs += other.packs;
    }
}

enum Message {
    Chunks(ObjectKind, Vec<CodedChunk>),
    Finish,
}

/// The receiving side of one session.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: SyncSender<Message>,
    thread: std::thread::JoinHandle<Result<Finished>>,
}

/// What the packing thread leaves behind: packs that no published fragment names yet.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) fragment: Fragment,
    pub(crate) totals: WriterTotals,
}

#[derive(Debug)]
struct Shared {
    index: Arc<Index>,
    /// Chunks of this session that the index does not hold yet, by a few bits of their id.
    fresh: Vec<Mutex<HashSet<ChunkId>>>,
    /// Numbers (in the index) of packs that lookups answered from.
    relied: Mutex<HashSet<u32>>,
    /// Why the packing thread ended early.
    failure: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Starts the packing thread. `uploads` packs are on their way at once; each is up to a pack's target in memory.
    pub(crate) fn start(repository: &Repository, session: Arc<Session>, index: Arc<Index>, uploads: usize) -> Self {
        let shared = Arc::new(Shared {
            index,
            fresh: (0..SHARDS).map(|_| Mutex::default()).collect(),
            relied: Mutex::default(),
            failure: Mutex::default(),
        });
        let (queue, messages) = sync_channel(QUEUE);
        let packer = Packer::new(repository.clone(), session, Arc::clone(&shared), uploads);
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new()
            .name("everpack-packer".to_owned())
            .spawn(move || packer.run(&runtime, &messages))
            .expect("the system can start a thread");
        Self { shared, queue, thread }
    }

    /// For each chunk: true if it is new and the caller must deliver it. Duplicates in one call are new once.
    pub(crate) fn claim(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let mut order: Vec<usize> = (0..ids.len()).filter(|at| !self.shared.is_fresh(&ids[*at])).collect();
        order.sort_unstable_by_key(|at| ids[*at]);
        let sorted: Vec<ChunkId> = order.iter().map(|at| ids[*at]).collect();
        let found = self.shared.index.lookup(&sorted)?;
        let mut new = vec![false; ids.len()];
        let mut relied = Vec::new();
        for (at, location) in order.into_iter().zip(found) {
            match location {
                Some(location) => relied.push(location.pack),
                None => new[at] = self.shared.add_fresh(ids[at]),
            }
        }
        if !relied.is_empty() {
            lock(&self.shared.relied).extend(relied);
        }
        Ok(new)
    }

    /// Hands over chunks that `claim` called new. Blocks while the packing thread is behind.
    pub(crate) fn deliver(&self, kind: ObjectKind, chunks: Vec<CodedChunk>) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.queue.send(Message::Chunks(kind, chunks)).map_err(|_| self.failure())
    }

    /// The packing thread has ended; the reason comes from `finish`.
    fn failure(&self) -> Error {
        let why = lock(&self.shared.failure).clone();
        Error::new(ErrorKind::Unavailable, why.unwrap_or_else(|| "storing new chunks stopped".to_owned()))
    }

    /// Gives up: what is stored already is published for the next run to find. Gives the packing thread's own error, if that came first.
    pub(crate) fn abandon(self) -> Option<Error> {
        let failed_before = lock(&self.shared.failure).is_some();
        drop(self.queue);
        let outcome = self
            .thread
            .join()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "the packing thread panicked")));
        outcome.err().filter(|_| failed_before)
    }

    /// Seals and stores what is left; gives what no published fragment names yet and the packs that were relied on.
    pub(crate) fn finish(self) -> Result<(Finished, HashSet<u32>)> {
        // If the thread is gone already, joining it tells why.
        let _sent = self.queue.send(Message::Finish);
        drop(self.queue);
        let finished =
            self.thread.join().map_err(|_| Error::new(ErrorKind::Unavailable, "the packing thread panicked"))??;
        let relied = std::mem::take(&mut *lock(&self.shared.relied));
        Ok((finished, relied))
    }
}

impl Shared {
    fn shard(&self, id: &ChunkId) -> &Mutex<HashSet<ChunkId>> {
        &self.fresh[id.prefix() as usize % SHARDS]
    }

    fn is_fresh(&self, id: &ChunkId) -> bool {
        lock(self.shard(id)).contains(id)
    }

    fn add_fresh(&self, id: ChunkId) -> bool {
        lock(self.shard(&id)).insert(id)
    }
}

/// The packing thread.
struct Packer {
    repository: Repository,
    session: Arc<Session>,
    shared: Arc<Shared>,
    data: PackBuilder,
    meta: PackBuilder,
    uploads: JoinSet<Result<SealedPack>>,
    slots: Arc<Semaphore>,
    /// Stored packs that no published fragment names.
    fragment: Fragment,
    unpublished_bytes: u64,
    totals: WriterTotals,
    last_checkpoint: Instant,
    last_heard: Instant,
}

impl Packer {
    fn new(repository: Repository, session: Arc<Session>, shared: Arc<Shared>, uploads: usize) -> Self {
        let config = repository.config();
        let target = config.pack_target as usize;
        let buffers = Buffers::new((uploads.max(1) as u64 + 1) * u64::from(config.pack_target));
        let data = PackBuilder::with_buffers(ObjectKind::DataPack, config.family, target, buffers.clone());
        let meta = PackBuilder::with_buffers(ObjectKind::MetaPack, config.family, target, buffers);
        Self {
            repository,
            session,
            shared,
            data,
            meta,
            uploads: JoinSet::new(),
            slots: Arc::new(Semaphore::new(uploads.max(1))),
            fragment: Fragment::default(),
            unpublished_bytes: 0,
            totals: WriterTotals::default(),
            last_checkpoint: Instant::now(),
            last_heard: Instant::now(),
        }
    }

    fn run(mut self, runtime: &tokio::runtime::Handle, messages: &Receiver<Message>) -> Result<Finished> {
        let outcome = self.pack_all(runtime, messages);
        if let Err(error) = &outcome {
            *lock(&self.shared.failure) = Some(error.to_string());
        }
        outcome?;
        Ok(Finished { fragment: self.fragment, totals: self.totals })
    }

    fn pack_all(&mut self, runtime: &tokio::runtime::Handle, messages: &Receiver<Message>) -> Result<()> {
        // Awake from time to time even when nothing comes: a session that reads a slow source must not look dead.
        loop {
            match messages.recv_timeout(Duration::from_secs(5)) {
                Ok(Message::Chunks(kind, chunks)) => {
                    for chunk in chunks {
                        self.push(runtime, kind, &chunk)?;
                    }
                }
                Ok(Message::Finish) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                // Whoever fed us gave up. What is stored already is published, so that the next run need not send it again.
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    self.reap(runtime, true)?;
                    if !self.fragment.packs.is_empty() {
                        runtime.block_on(self.checkpoint())?;
                    }
                    return Err(Error::new(ErrorKind::Unavailable, "the backup stopped before it was complete"));
                }
            }
            // A test that asks for checkpoints has as many on any machine: nothing is on its way when it is asked whether one is due.
            self.reap(runtime, self.repository.checkpoint_bytes().is_some())?;
            self.checkpoint_if_due(runtime)?;
        }
        for kind in [ObjectKind::DataPack, ObjectKind::MetaPack] {
            self.seal(runtime, kind)?;
        }
        self.reap(runtime, true)
    }

    fn builder(&mut self, kind: ObjectKind) -> &mut PackBuilder {
        if kind == ObjectKind::MetaPack { &mut self.meta } else { &mut self.data }
    }

    fn push(&mut self, runtime: &tokio::runtime::Handle, kind: ObjectKind, chunk: &CodedChunk) -> Result<()> {
        if self.builder(kind).is_full_for(chunk.payload.len()) {
            self.seal(runtime, kind)?;
        }
        self.totals.chunks += 1;
        self.totals.new_bytes += u64::from(chunk.plain_len);
        self.builder(kind).push(chunk.id, chunk.plain_len, chunk.coding, &chunk.payload);
        Ok(())
    }

    /// Closes the pack in the making and sends it off; waits while too many are on their way.
    fn seal(&mut self, runtime: &tokio::runtime::Handle, kind: ObjectKind) -> Result<()> {
        let Some(unnamed) = self.builder(kind).seal() else { return Ok(()) };
        let slots = Arc::clone(&self.slots);
        let slot = runtime.block_on(slots.acquire_owned()).expect("the semaphore is never closed");
        let session = self.session.suffix();
        let store = self.repository.store().clone();
        let upload = async move {
            let sealed = tokio::task::spawn_blocking(move || unnamed.name(session));
            let sealed = sealed.await.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
            store.put_new(StoredObject::Named(sealed.name), vec![sealed.stored.clone()]).await?;
            drop(slot);
            Ok(sealed)
        };
        self.uploads.spawn_on(upload, runtime);
        self.reap(runtime, false)
    }

    /// Takes note of packs that are durable now: of those that are, or of all.
    fn reap(&mut self, runtime: &tokio::runtime::Handle, all: bool) -> Result<()> {
        loop {
            let joined = if all { runtime.block_on(self.uploads.join_next()) } else { self.uploads.try_join_next() };
            let Some(joined) = joined else { return Ok(()) };
            let sealed =
                joined.map_err(|error| Error::new(ErrorKind::Unavailable, format!("store a pack: {error}")))??;
            self.note(&sealed)?;
        }
    }

    fn note(&mut self, sealed: &SealedPack) -> Result<()> {
        let size = sealed.stored.len() as u64;
        self.fragment.push_pack(sealed.name, size, &sealed.table)?;
        self.unpublished_bytes += size;
        self.totals.stored_bytes += size;
        self.totals.packs += 1;
        Ok(())
    }

    fn checkpoint_if_due(&mut self, runtime: &tokio::runtime::Handle) -> Result<()> {
        let due = self.unpublished_bytes >= self.repository.checkpoint_bytes().unwrap_or(CHECKPOINT_BYTES)
            || self.fragment.entries.len() >= CHECKPOINT_CHUNKS
            || (self.last_checkpoint.elapsed() >= CHECKPOINT_EVERY && !self.fragment.packs.is_empty());
        if due {
            runtime.block_on(self.checkpoint())?;
        } else if self.last_heard.elapsed() >= REFRESH_EVERY {
            runtime.block_on(self.session.refresh())?;
            self.last_heard = Instant::now();
        }
        Ok(())
    }

    /// Publishes the packs stored so far, and moves their chunks from memory to the index.
    async fn checkpoint(&mut self) -> Result<()> {
        let fragment = std::mem::take(&mut self.fragment);
        self.unpublished_bytes = 0;
        let ids: Vec<ChunkId> = fragment.entries.iter().map(|entry| entry.id).collect();
        self.repository.publish(&self.session, &self.shared.index, fragment).await?;
        for id in &ids {
            lock(self.shared.shard(id)).remove(id);
        }
        self.last_checkpoint = Instant::now();
        self.last_heard = Instant::now();
        Ok(())
    }
}

impl Repository {
    /// Stores an index fragment under the session's name.
    pub(crate) async fn store_fragment(&self, session: &Session, fragment: &mut Fragment) -> Result<ObjectName> {
        let stored = Bytes::from(fragment.encode());
        let name = ObjectName { kind: ObjectKind::Fragment, hash: object_hash(&stored), session: session.suffix() };
        self.store().put_new(StoredObject::Named(name), vec![stored]).await?;
        Ok(name)
    }

    /// Stores an index fragment, names it in the log and puts it into the index: from now on its chunks are found by everybody.
    pub(crate) async fn publish(&self, session: &Session, index: &Arc<Index>, mut fragment: Fragment) -> Result<()> {
        let name = self.store_fragment(session, &mut fragment).await?;
        session.say(async |_: &LogState| Ok(vec![Record::FragmentsPublished { fragments: vec![name] }])).await?;
        let index = Arc::clone(index);
        let inserted = tokio::task::spawn_blocking(move || index.insert(&[(name, fragment)]));
        inserted.await.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?
    }

    /// Finds live packs whose stored object is not there, of another size, or damaged when a scrub read it last, and stops the index from
    /// counting them: a backup must not rely on them, and heals what they held.
    pub(crate) async fn leave_out_bad_packs(&self, index: &Index) -> Result<HashSet<ObjectName>> {
        use futures::TryStreamExt;
        let mut wanted: HashMap<ObjectName, u64> =
            index.live_packs().into_iter().map(|pack| (pack.name, pack.size)).collect();
        for kind in [ObjectKind::DataPack, ObjectKind::MetaPack] {
            let mut listing = self.store().list(Folder::of(kind));
            while let Some(info) = listing.try_next().await? {
                if let StoredObject::Named(name) = info.object()
                    && wanted.get(&name).is_some_and(|size| *size == info.len)
                {
                    wanted.remove(&name);
                }
            }
        }
        let mut absent: HashSet<ObjectName> = wanted.into_keys().collect();
        // A ledger that cannot be read is no reason not to back up.
        if let Ok(ledger) = self.ledger().await {
            let live = index.live_packs().into_iter().map(|pack| pack.name);
            absent.extend(live.filter(|name| ledger.is_damaged(name)));
        }
        if !absent.is_empty() {
            let state = self.state();
            index.set_live(|name| state.is_dead(name) || absent.contains(name));
        }
        Ok(absent)
    }
}
