//! Writes the needed chunks of some packs anew, in the order in which the newest backup that has them is restored: so restores do not get
//! slower with age.
//!
//! Every chunk is decoded and compared with its id before its copy counts. Windows of chunks are read pack by pack, neighbours together.
//!
//! Stopping is always possible: a pack whose chunks were not all written anew stays.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use rayon::prelude::*;

use super::{Job, Planned, PruneReport};
use crate::codec::{Decoder, Encoder, Level};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, ObjectKind};
use crate::index::{Index, PackInfo};
use crate::pack::{Location, read_record};
use crate::progress::{Event, Phase};
use crate::repo::{EntryStream, PackSink, Pieces, REFRESH_EVERY, Session, Sunk, decode_verified, pieces_of};
use crate::store::StoredObject;

/// Bytes of records in a window.
const WINDOW_BYTES: u64 = 24 << 20;
/// Packs read at once.
const PACKS_AT_ONCE: usize = 8;
/// Records that a worker verifies in one go.
const RECORDS_AT_ONCE: usize = 16;

/// A chunk that is to be written anew.
struct Move {
    id: ChunkId,
    from: Location,
    /// It was taken into the window.
    taken: bool,
    /// Its copy is in a pack of ours.
    done: bool,
}

struct Rewriter<'a> {
    job: &'a Job<'a>,
    session: &'a Session,
    index: Arc<Index>,
    /// Sorted by id.
    moves: Vec<Move>,
    window: Vec<usize>,
    window_bytes: u64,
    sink: PackSink<'a>,
    pool: rayon::ThreadPool,
    encoder: Encoder,
    heard: Instant,
    unreadable: u64,
}

/// Why no more is written anew.
enum Stop {
    /// On request, or the time is up.
    Asked,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Writes the chosen packs' chunks anew. Packs of which that did not succeed are taken off the choice.
pub(super) async fn run(
    job: &Job<'_>,
    session: &Session,
    planned: &mut Planned,
    report: &mut PruneReport,
) -> Result<Sunk> {
    if planned.chosen.rewritten.is_empty() {
        return Ok(Sunk::default());
    }
    let moves = planned.usage.only_in(&planned.chosen.gone())?;
    let moves: Vec<Move> = moves.into_iter().map(|(id, from)| Move { id, from, taken: false, done: false }).collect();
    let bytes = moves.iter().map(|chunk| u64::from(chunk.from.stored_len)).sum();
    job.monitor.event(Event::Begin { phase: Phase::Repacking, bytes, items: moves.len() as u64 });
    let pool = rayon::ThreadPoolBuilder::new().thread_name(|at| format!("everpack-verify-{at}")).build();
    let mut rewriter = Rewriter {
        job,
        session,
        index: job.repository.index().await?,
        moves,
        window: Vec::new(),
        window_bytes: 0,
        sink: PackSink::new(job.repository, session),
        pool: pool.map_err(|error| Error::new(ErrorKind::Unavailable, format!("start worker threads: {error}")))?,
        encoder: Encoder::new(Level::new(job.repository.config().level)?)?,
        heard: Instant::now(),
        unreadable: 0,
    };
    let outcome = match rewriter.walk(&planned.usage.order).await {
        Ok(()) => rewriter.flush().await,
        stopped => stopped,
    };
    let sunk = match outcome {
        Ok(()) => rewriter.sink.finish().await.map_err(Stop::Failed),
        Err(Stop::Asked) => {
            report.complete = false;
            report.remarks.push("stopped before everything was written anew: the next prune goes on".to_owned());
            rewriter.sink.finish().await.map_err(Stop::Failed)
        }
        Err(failed) => Err(failed),
    };
    let sunk = match sunk {
        Ok(sunk) => sunk,
        // Room comes from what is wholly unused, which needs no writing but an entry.
        Err(Stop::Failed(error)) if error.is_disk_full() => {
            report.complete = false;
            report.remarks.push(format!(
                "nothing was written anew, for lack of room ({error}): packs that are wholly unused go first; run prune again afterwards"
            ));
            rewriter.sink.discard().await;
            planned.chosen.rewritten.clear();
            return Ok(Sunk::default());
        }
        Err(Stop::Failed(error)) => {
            rewriter.sink.discard().await;
            return Err(error);
        }
        Err(Stop::Asked) => unreachable!("finishing asks nobody"),
    };
    report.bytes_rewritten += sunk.bytes();
    if rewriter.unreadable > 0 {
        report.remarks.push(format!(
            "{} chunks that backups need could not be read: their packs stay as they are; `everpack scrub` tells what is damaged, \
             `everpack repair` heals it",
            rewriter.unreadable
        ));
    }
    let unfinished: HashSet<u32> =
        rewriter.moves.iter().filter(|chunk| !chunk.done).map(|chunk| chunk.from.pack).collect();
    planned.chosen.rewritten.retain(|(number, _)| !unfinished.contains(number));
    planned.chosen.dead.retain(|number| !unfinished.contains(number));
    job.monitor.event(Event::End { phase: Phase::Repacking });
    Ok(sunk)
}

impl Rewriter<'_> {
    /// Goes through the backups, the newest first, each in the order of its files.
    async fn walk(&mut self, oldest_first: &[crate::id::ObjectHash]) -> Result<(), Stop> {
        let repository = self.job.repository;
        let index = Arc::clone(&self.index);
        let mut read: HashSet<ChunkId> = HashSet::new();
        for id in oldest_first.iter().rev() {
            let manifest = repository.manifest(id).await?;
            for segment in &manifest.segments {
                self.take(&segment.chunk).await?;
            }
            let new = manifest.segments.into_iter().filter(|segment| read.insert(segment.chunk)).collect();
            let mut entries = EntryStream::of_segments(repository, &index, new);
            while let Some(segment) = entries.next().await {
                for entry in segment? {
                    if let Pieces::Lists(lists) = &entry.pieces {
                        for list in lists {
                            self.take(&list.chunk).await?;
                        }
                    }
                    let mut runs = pieces_of(repository, &index, &entry.pieces);
                    while let Some(run) = runs.try_next().await? {
                        for piece in run {
                            self.take(&piece.chunk).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a chunk into the window if it is to be written anew and was not yet.
    async fn take(&mut self, id: &ChunkId) -> Result<(), Stop> {
        let Ok(at) = self.moves.binary_search_by_key(id, |chunk| chunk.id) else { return Ok(()) };
        if std::mem::replace(&mut self.moves[at].taken, true) {
            return Ok(());
        }
        self.window.push(at);
        self.window_bytes += u64::from(self.moves[at].from.stored_len);
        if self.window_bytes >= WINDOW_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Reads, verifies and passes on what is in the window.
    async fn flush(&mut self) -> Result<(), Stop> {
        if self.job.must_stop() {
            return Err(Stop::Asked);
        }
        if self.heard.elapsed() >= REFRESH_EVERY {
            self.session.refresh().await?;
            self.heard = Instant::now();
        }
        let window = std::mem::take(&mut self.window);
        self.window_bytes = 0;
        let records = self.read(&window).await?;
        let whole = self.verify(&window, &records);
        for ((at, record), is_whole) in window.iter().zip(&records).zip(whole) {
            let chunk = &self.moves[*at];
            let (id, from) = (chunk.id, chunk.from);
            let Some(pack) = self.index.pack(from.pack) else { continue };
            let payload = record.as_ref().filter(|_| is_whole).and_then(|record| read_record(id, &from, record).ok());
            match payload {
                Some((header, payload)) => {
                    self.sink.push(pack.name.kind, id, header.plain_len, header.coding, payload).await?;
                }
                None if !self.save(pack.name.kind, &id).await? => {
                    self.unreadable += 1;
                    continue;
                }
                None => {}
            }
            self.moves[*at].done = true;
            let bytes = u64::from(from.stored_len);
            self.job.monitor.advance(bytes, bytes, 1);
        }
        Ok(())
    }

    /// The records of a window; nothing where a pack is damaged or gone.
    async fn read(&self, window: &[usize]) -> Result<Vec<Option<Bytes>>, Stop> {
        let mut by_pack: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (place, at) in window.iter().enumerate() {
            by_pack.entry(self.moves[*at].from.pack).or_default().push(place);
        }
        let reads = by_pack.into_iter().filter_map(|(number, mut places)| {
            places.sort_by_key(|place| self.moves[window[*place]].from.offset);
            Some((self.index.pack(number)?, places))
        });
        let mut reads = stream::iter(reads)
            .map(|(pack, places)| async move { (self.read_pack(&pack, window, &places).await, places) })
            .buffer_unordered(PACKS_AT_ONCE);
        let mut records: Vec<Option<Bytes>> = vec![None; window.len()];
        while let Some((found, places)) = reads.next().await {
            match found {
                Ok(found) => places.into_iter().zip(found).for_each(|(place, record)| records[place] = Some(record)),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(records)
    }

    async fn read_pack(&self, pack: &PackInfo, window: &[usize], places: &[usize]) -> Result<Vec<Bytes>> {
        let ranges: Vec<_> = places.iter().map(|place| self.moves[window[*place]].from.range()).collect();
        self.job.repository.store().get_ranges(StoredObject::Named(pack.name), &ranges).await
    }

    /// Which records decode to what their ids say.
    fn verify(&self, window: &[usize], records: &[Option<Bytes>]) -> Vec<bool> {
        let moves = &self.moves;
        let verify_run = |run: &[(&usize, &Option<Bytes>)]| -> Vec<bool> {
            let Ok(mut decoder) = Decoder::new() else { return vec![false; run.len()] };
            let mut plain = Vec::new();
            let is_whole = |(at, record): &(&usize, &Option<Bytes>)| {
                let chunk = &moves[**at];
                record.as_ref().is_some_and(|record| {
                    decode_verified(chunk.id, &chunk.from, record, &mut decoder, &mut plain).is_ok()
                })
            };
            run.iter().map(is_whole).collect()
        };
        let pairs: Vec<(&usize, &Option<Bytes>)> = window.iter().zip(records).collect();
        self.pool.install(|| pairs.par_chunks(RECORDS_AT_ONCE).flat_map_iter(verify_run).collect())
    }

    /// A chunk whose record is damaged may be whole elsewhere.
    async fn save(&mut self, kind: ObjectKind, id: &ChunkId) -> Result<bool, Stop> {
        let plain = match self.job.repository.read_chunk(&self.index, id).await {
            Ok(plain) => plain,
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let encoded = self.encoder.encode(&plain, None);
        let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        self.sink.push(kind, *id, plain_len, encoded.coding, encoded.payload).await?;
        Ok(true)
    }
}
