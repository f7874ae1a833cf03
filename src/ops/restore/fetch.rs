//! Reads what a window wants: each pack once, in offset order, near ranges together; decodes, verifies and writes on a pool of workers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::RestoreReport;
use super::publish;
use super::window::{OpenedFile, Want, Window, part};
use crate::buffers::Buffers;
use crate::codec::Decoder;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::index::Index;
use crate::pack::Location;
use crate::progress::Monitor;
use crate::repo::{Repository, decode_verified};
use crate::source::display_path;
use crate::store::StoredObject;

/// Ranges nearer than this are read as one.
const GAP_MOST: u64 = 128 << 10;
/// A read is no longer than this.
const READ_MOST: u64 = 4 << 20;
/// Reads on their way at once: enough to fill a link of 50 ms latency.
const READS_MOST: usize = 32;

/// Runs windows.
pub(super) struct Fetcher {
    repository: Repository,
    index: Arc<Index>,
    monitor: Arc<dyn Monitor>,
    pool: Arc<rayon::ThreadPool>,
    /// Permits are KiB of packs read and not yet decoded.
    budget: Arc<Semaphore>,
    budget_kib: u32,
    buffers: Buffers,
}

/// A chunk in a read, and the places that want it.
struct ReadChunk {
    id: ChunkId,
    location: Location,
    wants: Vec<Want>,
}

/// One range of one pack.
struct Read {
    object: StoredObject,
    start: u64,
    end: u64,
    chunks: Vec<ReadChunk>,
}

/// What the workers of one window share.
struct Shared {
    files: Vec<Arc<OpenedFile>>,
    monitor: Arc<dyn Monitor>,
    written: AtomicU64,
    /// Chunks whose first location failed, with why.
    failed: Mutex<Vec<(ReadChunk, Error)>>,
    /// An error that ends the restore: the target cannot be written.
    fatal: Mutex<Option<Error>>,
}

thread_local! {
    static TOOLS: RefCell<Option<(Decoder, Vec<u8>)>> = const { RefCell::new(None) };
}

impl Fetcher {
    pub(super) fn new(
        repository: &Repository,
        index: &Arc<Index>,
        memory: u64,
        monitor: Arc<dyn Monitor>,
    ) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|at| format!("everpack-decode-{at}"))
            .build()
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("start worker threads: {error}")))?;
        let budget_kib = u32::try_from(memory / 3 / 1024).unwrap_or(u32::MAX / 4).clamp(16 << 10, 1 << 30);
        Ok(Self {
            repository: repository.clone(),
            index: Arc::clone(index),
            monitor,
            pool: Arc::new(pool),
            budget: Arc::new(Semaphore::new(budget_kib as usize)),
            budget_kib,
            buffers: Buffers::new(u64::from(budget_kib) * 1024),
        })
    }

    /// Reads and writes everything that a window wants. Gives the files that are complete; nobody else holds them any more. One that goes on
    /// in the next window comes with that, whatever is wrong with it.
    pub(super) async fn run(&self, window: Window, report: &mut RestoreReport) -> Result<Vec<Arc<OpenedFile>>> {
        let Window { files, wants, .. } = window;
        let shared = Arc::new(Shared {
            files,
            monitor: Arc::clone(&self.monitor),
            written: AtomicU64::new(0),
            failed: Mutex::default(),
            fatal: Mutex::default(),
        });
        let reads = self.plan(wants, &shared)?;
        let outcome = self.read_all(reads, &shared, report).await;
        let failed = std::mem::take(&mut *shared.failed.lock().unwrap_or_else(PoisonError::into_inner));
        let outcome = match outcome {
            Ok(()) => self.retry(failed, &shared).await,
            Err(error) => Err(error),
        };
        report.bytes_written += shared.written.load(Ordering::Relaxed);
        let shared =
            Arc::into_inner(shared).ok_or_else(|| Error::new(ErrorKind::Unavailable, "a worker still runs"))?;
        if let Err(error) = outcome {
            publish::discard(shared.files);
            return Err(error);
        }
        Ok(shared.files.into_iter().filter(|file| file.is_complete()).collect())
    }

    /// Looks the chunks up and sorts what must be read by pack and offset.
    fn plan(&self, wants: Vec<Want>, shared: &Shared) -> Result<Vec<Read>> {
        let mut by_chunk: HashMap<ChunkId, Vec<Want>> = HashMap::new();
        for want in wants {
            by_chunk.entry(want.chunk).or_default().push(want);
        }
        let mut ids: Vec<ChunkId> = by_chunk.keys().copied().collect();
        ids.sort_unstable();
        let found = self.index.lookup(&ids)?;
        let mut chunks = Vec::with_capacity(ids.len());
        for (id, location) in ids.into_iter().zip(found) {
            let wants = by_chunk.remove(&id).unwrap_or_default();
            match location {
                Some(location) => chunks.push(ReadChunk { id, location, wants }),
                None => {
                    let location = Location { pack: u32::MAX, offset: 0, stored_len: 0, plain_len: 0, coding: 0 };
                    let error = Error::corrupt(format!("chunk {id}: no live pack holds it"));
                    let mut failed = shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.push((ReadChunk { id, location, wants }, error));
                }
            }
        }
        chunks.sort_unstable_by_key(|chunk| (chunk.location.pack, chunk.location.offset));
        let mut reads: Vec<Read> = Vec::new();
        let mut last_pack = None;
        for chunk in chunks {
            let range = chunk.location.range();
            if last_pack == Some(chunk.location.pack)
                && let Some(read) = reads.last_mut()
                && range.start.saturating_sub(read.end) <= GAP_MOST
                && range.end - read.start <= READ_MOST
            {
                read.end = read.end.max(range.end);
                read.chunks.push(chunk);
                continue;
            }
            let Some(pack) = self.index.pack(chunk.location.pack) else { continue };
            last_pack = Some(chunk.location.pack);
            reads.push(Read {
                object: StoredObject::Named(pack.name),
                start: range.start,
                end: range.end,
                chunks: vec![chunk],
            });
        }
        Ok(reads)
    }

    async fn read_all(&self, reads: Vec<Read>, shared: &Arc<Shared>, report: &mut RestoreReport) -> Result<()> {
        let mut running: JoinSet<Result<()>> = JoinSet::new();
        let mut outcome = self.start_reads(reads, shared, report, &mut running).await;
        // Whatever came of it, nobody may still be writing when the files are published or thrown away.
        while let Some(done) = running.join_next().await {
            outcome = outcome.and(joined(done));
        }
        let fatal = shared.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
        fatal.map_or(outcome, Err)
    }

    async fn start_reads(
        &self,
        reads: Vec<Read>,
        shared: &Arc<Shared>,
        report: &mut RestoreReport,
        running: &mut JoinSet<Result<()>>,
    ) -> Result<()> {
        let slots = Arc::new(Semaphore::new(READS_MOST));
        for read in reads {
            if self.monitor.cancelled() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "stopped on request; complete files stay, --delta goes on from here",
                ));
            }
            if shared.fatal.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return Ok(());
            }
            let len = read.end - read.start;
            report.bytes_read += len;
            let kib = u32::try_from(len / 1024 + 1).unwrap_or(u32::MAX).min(self.budget_kib);
            let paid = Arc::clone(&self.budget).acquire_many_owned(kib).await.expect("the semaphore is never closed");
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
            let store = self.repository.store().clone();
            let shared = Arc::clone(shared);
            let pool = Arc::clone(&self.pool);
            let buffers = self.buffers.clone();
            running.spawn(async move {
                let buffer = buffers.take(len);
                let fetched = store.get_range_into(&read.object, read.start..read.end, buffer).await;
                let fetched = fetched.map(|stored| buffers.lend(stored));
                drop(slot);
                let (done, decoded) = oneshot::channel();
                pool.spawn_fifo(move || {
                    write_read(read, fetched, &shared);
                    drop(shared);
                    drop(paid);
                    // Whoever gave up on us is not waiting.
                    let _sent = done.send(());
                });
                decoded.await.map_err(|_| Error::new(ErrorKind::Unavailable, "a worker ended early"))
            });
            while let Some(done) = running.try_join_next() {
                joined(done)?;
            }
        }
        Ok(())
    }

    /// Tries every other location of chunks that failed; what is nowhere whole fails the files that want it.
    async fn retry(&self, failed: Vec<(ReadChunk, Error)>, shared: &Arc<Shared>) -> Result<()> {
        for (chunk, why) in failed {
            match self.repository.read_chunk(&self.index, &chunk.id).await {
                Ok(plain) => write_wants(&chunk.wants, &plain, shared),
                Err(error) if error.is_damage() => {
                    let pack = self.index.pack(chunk.location.pack);
                    let place = pack.map_or_else(String::new, |pack| format!("{}: ", pack.name));
                    for want in &chunk.wants {
                        shared.files[want.file as usize].fail(format!("{place}{why}"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        match shared.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn joined(done: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    done.unwrap_or_else(|error| Err(Error::new(ErrorKind::Unavailable, error.to_string())))
}

/// Decodes and verifies the chunks of one range, and writes them where they are wanted.
fn write_read(read: Read, fetched: Result<Bytes>, shared: &Shared) {
    let Read { object: _, start, end: _, chunks } = read;
    let bytes = match fetched {
        Ok(bytes) => bytes,
        Err(error) => {
            let kind = error.kind();
            let text = error.to_string();
            if !error.is_damage() && kind != ErrorKind::Invalid {
                set_fatal(shared, error);
                return;
            }
            let mut failed = shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.extend(chunks.into_iter().map(|chunk| (chunk, Error::new(kind, text.clone()))));
            return;
        }
    };
    TOOLS.with_borrow_mut(|tools| {
        if tools.is_none() {
            match Decoder::new() {
                Ok(decoder) => *tools = Some((decoder, Vec::new())),
                Err(error) => return set_fatal(shared, error),
            }
        }
        let (decoder, plain) = tools.as_mut().expect("made above");
        for chunk in chunks {
            let range = chunk.location.range();
            let record = usize::try_from(range.start - start).ok().and_then(|at| bytes.get(at..));
            let decoded = match record {
                Some(record) => decode_verified(chunk.id, &chunk.location, record, decoder, plain),
                None => Err(Error::corrupt(format!("chunk {}: the pack ends before it", chunk.id))),
            };
            match decoded {
                Ok(()) => write_wants(&chunk.wants, plain, shared),
                Err(error) => shared.failed.lock().unwrap_or_else(PoisonError::into_inner).push((chunk, error)),
            }
        }
    });
}

fn write_wants(wants: &[Want], plain: &[u8], shared: &Shared) {
    for want in wants {
        let file = &shared.files[want.file as usize];
        let bytes = match part(want, plain) {
            Ok(bytes) => bytes,
            Err(error) => {
                file.fail(error.to_string());
                continue;
            }
        };
        // A hole stays a hole: the file was made with its length, and what was never written reads as zeros.
        let is_hole = file.entry.sparse && !file.target.resumed() && bytes.iter().all(|byte| *byte == 0);
        if !is_hole && let Err(error) = file.target.write_at(want.at, bytes).context(|| display_path(&file.entry.path))
        {
            set_fatal(shared, error);
            return;
        }
        shared.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        shared.monitor.advance(bytes.len() as u64, bytes.len() as u64, 0);
    }
}

fn set_fatal(shared: &Shared, error: Error) {
    shared.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}
