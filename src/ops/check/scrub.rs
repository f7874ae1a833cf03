//! Every byte of the packs: name, header, trailer, table, record headers, and every chunk decoded and hashed.
//!
//! Packs are read ahead of a pool of workers, several at a time, as far as the memory allows. A pack of usual size is read at once, hashed and
//! decoded side by side; a very large one in runs of records. What is damaged in a pack is found out in [`super::faults`].

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rayon::prelude::*;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::faults::{Extent, Faults};
use super::fragments::{Print, Prints};
use super::ledger::Keeper;
use super::{CheckOptions, CheckReport, Sample, Structure};
use crate::clock::Timestamp;
use crate::codec::{Decoder, ObjectHasher, chunk_id, object_hash};
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Result};
use crate::format::pack::{PackHeader, PackTrailer, RecordHeader, TableEntry};
use crate::format::scrub::ScrubResult;
use crate::id::{ChunkId, FamilyId, ObjectHash, ObjectName};
use crate::index::PackInfo;
use crate::pack::{PackScan, parse_table, table_range};
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{Ledger, Repository};
use crate::store::{Store, StoredObject};
use crate::units::{MIB, plural};

/// Packs up to this size are read at once.
const WHOLE_MOST: u64 = 64 * MIB;
/// Of larger ones, runs of records of about this size.
const RUN_BYTES: u64 = 8 * MIB;
/// Packs on their way at once.
const PACKS_AT_ONCE: usize = 8;
/// Packs that the store may fail to give before the store itself is taken to be gone.
const UNREADABLE_MOST: usize = 16;
/// Records that a worker decodes in one go.
const RECORDS_AT_ONCE: usize = 32;

thread_local! {
    static TOOLS: RefCell<(Option<Decoder>, Vec<u8>)> = const { RefCell::new((None, Vec::new())) };
}

/// Which packs are to be read.
pub(super) struct Wanted {
    part: Option<(u32, u32)>,
    shard: Option<(u32, u32)>,
    older_than: Option<Duration>,
    sample: Option<Sample>,
    deadline: Option<Instant>,
    limited: bool,
    memory: u64,
}

impl Wanted {
    pub(super) fn new(options: &CheckOptions, begun: Instant) -> Self {
        Self {
            part: options.part,
            shard: options.shard,
            older_than: options.older_than,
            sample: options.sample,
            deadline: options.time_limit.and_then(|limit| begun.checked_add(limit)),
            limited: options.time_limit.is_some(),
            memory: options.memory,
        }
    }

    /// The packs to read, in the order in which to read them.
    ///
    /// What was found damaged comes first, whatever else is asked for; with a budget of time or an age, then what was read longest ago.
    fn choose(
        &self,
        mut packs: Vec<(u32, PackInfo)>,
        ledger: &Ledger,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Vec<(u32, PackInfo)>> {
        if let Some((shard, shards)) = self.shard {
            packs.retain(|(_, pack)| shard_of(&pack.name.hash, shards) == shard);
        }
        packs.sort_unstable_by_key(|(_, pack)| pack.name);
        let (mut chosen, mut packs): (Vec<_>, Vec<_>) =
            packs.into_iter().partition(|(_, pack)| ledger.is_damaged(&pack.name));
        if let Some((part, parts)) = self.part {
            packs.retain(|(_, pack)| part_of(&pack.name.hash, parts) == part);
        }
        if let Some(age) = self.older_than {
            packs.retain(|(_, pack)| ledger.read_at(&pack.name).is_none_or(|read| now.since(read) > age));
        }
        if let Some(sample) = self.sample {
            packs = draw(packs, sample, entropy)?;
        } else if self.limited || self.older_than.is_some() {
            packs.sort_by_key(|(_, pack)| ledger.read_at(&pack.name));
        }
        chosen.append(&mut packs);
        Ok(chosen)
    }
}

/// Some packs at random, in another order each time.
fn draw(mut packs: Vec<(u32, PackInfo)>, sample: Sample, entropy: &dyn Entropy) -> Result<Vec<(u32, PackInfo)>> {
    let seed: [u8; 32] = entropy.array()?;
    packs.sort_by_cached_key(|(_, pack)| object_hash(&[&seed[..], pack.name.hash.as_bytes()].concat()));
    let all: u64 = packs.iter().map(|(_, pack)| pack.size).sum();
    let bytes = match sample {
        Sample::Bytes(bytes) => bytes,
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of the bytes need not be exact, and is between 0 and 1"
        )]
        Sample::Share(share) => (all as f64 * share) as u64,
    };
    let mut taken: u64 = 0;
    packs.retain(|(_, pack)| {
        let wanted = taken < bytes;
        taken += if wanted { pack.size } else { 0 };
        wanted
    });
    Ok(packs)
}

/// In which part of so many a pack is, from 1.
fn part_of(hash: &ObjectHash, parts: u32) -> u32 {
    let (head, _) = hash.as_bytes().split_first_chunk::<4>().expect("a hash has 32 bytes");
    u32::from_le_bytes(*head) % parts + 1
}

/// In which shard of so many a pack is, from 1. Other bytes than a part's, so that the two can be combined.
fn shard_of(hash: &ObjectHash, shards: u32) -> u32 {
    let bytes = hash.as_bytes();
    u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) % shards + 1
}

/// What is wrong with a pack.
struct Damage {
    what: String,
    extent: Extent,
}

/// What reading one pack gave.
enum Outcome {
    Whole(Print),
    Damaged(Damage),
    Missing,
    /// The store failed to give it, which may be the store's fault.
    Unreadable(Error),
}

/// Reads the wanted packs; what is wrong with them joins the faults.
pub(super) async fn run(
    repository: &Repository,
    wanted: &Wanted,
    structure: &mut Structure,
    keeper: &mut Keeper,
    monitor: &Arc<dyn Monitor>,
    report: &mut CheckReport,
) -> Result<()> {
    for (number, result) in structure.faults.results() {
        if let Some(pack) = structure.index.pack(number) {
            keeper.note(&pack, result);
        }
    }
    let all = structure.index.live_pack_numbers().into_iter();
    let all = all.map(|(name, (number, size))| (number, PackInfo { name, size }));
    // Of a pack that is missing or of another size it is known already.
    let mut whole: Vec<_> = all.filter(|(number, _)| !structure.faults.has(*number)).collect();
    if let Some(needed) = &structure.walked.needed {
        whole.retain(|(number, _)| needed.contains(number));
    }
    let entropy = &*repository.environment().entropy;
    let packs = wanted.choose(whole, &keeper.ledger, keeper.now(), entropy)?;
    let bytes = packs.iter().map(|(_, pack)| pack.size).sum();
    monitor.event(Event::Begin { phase: Phase::Scrubbing, bytes, items: packs.len() as u64 });
    let scrubber = Scrubber::new(repository, wanted.memory)?;
    let mut running = JoinSet::new();
    let mut judge =
        Judge { prints: &structure.prints, faults: &mut structure.faults, keeper, monitor, report, unreadable: 0 };
    let total = packs.len();
    for (begun, (number, pack)) in packs.into_iter().enumerate() {
        let out_of_time = wanted.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if out_of_time || monitor.cancelled() {
            judge.report.complete = false;
            let why = if out_of_time { "the time was up" } else { "stopped on request" };
            judge.report.remarks.push(format!("{why}: {begun} of {total} packs were read"));
            break;
        }
        scrubber.spawn(&mut running, number, pack).await;
        while let Some(done) = running.try_join_next() {
            judge.take(done)?;
        }
        judge.keeper.tend(judge.report).await;
    }
    while let Some(done) = running.join_next().await {
        judge.take(done)?;
        judge.keeper.tend(judge.report).await;
    }
    monitor.event(Event::End { phase: Phase::Scrubbing });
    Ok(())
}

/// Turns outcomes into faults.
struct Judge<'a> {
    prints: &'a Prints,
    faults: &'a mut Faults,
    keeper: &'a mut Keeper,
    monitor: &'a Arc<dyn Monitor>,
    report: &'a mut CheckReport,
    unreadable: usize,
}

impl Judge<'_> {
    fn take(&mut self, done: std::result::Result<(u32, PackInfo, Outcome), tokio::task::JoinError>) -> Result<()> {
        let (number, pack, outcome) = done.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
        self.monitor.advance(pack.size, 0, 1);
        if matches!(outcome, Outcome::Whole(_) | Outcome::Damaged(_)) {
            self.report.packs_read += 1;
            self.report.bytes_read += pack.size;
        }
        let result = match &outcome {
            Outcome::Whole(_) => Some(ScrubResult::Whole),
            Outcome::Damaged(_) => Some(ScrubResult::Damaged),
            Outcome::Missing => Some(ScrubResult::Missing),
            // Perhaps the store's fault: it counts as not read.
            Outcome::Unreadable(_) => None,
        };
        if let Some(result) = result {
            self.keeper.note(&pack, result);
        }
        match outcome {
            Outcome::Whole(print) => {
                // Without a print its fragment is damaged, which is that fragment's finding.
                if self.prints.get(&pack.name).is_some_and(|expected| *expected != print) {
                    let what = "the index fragments name other records than the pack's own table".to_owned();
                    self.faults.add_contradicted(number, &pack, what);
                }
            }
            Outcome::Damaged(Damage { what, extent }) => {
                self.faults.add_damaged(number, &pack, what, extent, pack.size);
            }
            Outcome::Missing => self.faults.add_missing(number, pack.name, pack.size),
            Outcome::Unreadable(error) => {
                self.unreadable += 1;
                if self.unreadable > UNREADABLE_MOST {
                    return Err(
                        error.context(format!("scrub: {UNREADABLE_MOST} packs before could not be read either"))
                    );
                }
                let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                self.faults.add_unreadable(number, &pack, &format!("{error}{cause}"));
            }
        }
        Ok(())
    }
}

/// Reads and verifies packs.
struct Scrubber {
    store: Store,
    family: FamilyId,
    pool: Arc<rayon::ThreadPool>,
    /// Permits are KiB of packs read and not yet verified.
    budget: Arc<Semaphore>,
    budget_kib: u32,
    slots: Arc<Semaphore>,
}

impl Scrubber {
    fn new(repository: &Repository, memory: u64) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|at| format!("everpack-scrub-{at}"))
            .build()
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("start worker threads: {error}")))?;
        let budget_kib = u32::try_from(memory / 2 / 1024).unwrap_or(u32::MAX / 4).clamp(16 << 10, 1 << 30);
        Ok(Self {
            store: repository.store().clone(),
            family: repository.config().family,
            pool: Arc::new(pool),
            budget: Arc::new(Semaphore::new(budget_kib as usize)),
            budget_kib,
            slots: Arc::new(Semaphore::new(PACKS_AT_ONCE)),
        })
    }

    /// Begins a pack once there is room for it.
    async fn spawn(&self, running: &mut JoinSet<(u32, PackInfo, Outcome)>, number: u32, pack: PackInfo) {
        // Twice: while it arrives it may be there in parts and as a whole.
        let in_memory = if pack.size <= WHOLE_MOST { 2 * pack.size } else { 4 * RUN_BYTES };
        let kib = u32::try_from(in_memory / 1024 + 1).unwrap_or(u32::MAX).min(self.budget_kib);
        let paid = Arc::clone(&self.budget).acquire_many_owned(kib).await.expect("the semaphore is never closed");
        let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
        let reader = Reader { store: self.store.clone(), family: self.family, pool: Arc::clone(&self.pool), pack };
        running.spawn(async move {
            let outcome = if pack.size <= WHOLE_MOST { reader.read_whole().await } else { reader.read_runs().await };
            let outcome = outcome.unwrap_or_else(|error| match error.kind() {
                ErrorKind::NotFound => Outcome::Missing,
                _ if error.is_damage() => Outcome::Damaged(Damage { what: error.to_string(), extent: Extent::Unknown }),
                _ => Outcome::Unreadable(error),
            });
            drop((paid, slot));
            (number, pack, outcome)
        });
    }
}

/// Reads one pack.
struct Reader {
    store: Store,
    family: FamilyId,
    pool: Arc<rayon::ThreadPool>,
    pack: PackInfo,
}

impl Reader {
    /// Runs work on the pool.
    async fn on_pool<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, outcome) = oneshot::channel();
        self.pool.spawn_fifo(move || {
            // Whoever gave up on us is not waiting.
            let _sent = done.send(work());
        });
        outcome.await.map_err(|_| Error::new(ErrorKind::Unavailable, "a worker ended early"))
    }

    async fn read_whole(&self) -> Result<Outcome> {
        let stored = self.store.get(&StoredObject::Named(self.pack.name)).await?;
        let (name, family, size) = (self.pack.name, self.family, self.pack.size);
        self.on_pool(move || verify_whole(&name, family, size, &stored)).await
    }

    /// A pack too large to be read at once: its table first, then its records run by run; the hash goes along.
    async fn read_runs(&self) -> Result<Outcome> {
        let PackInfo { name, size } = self.pack;
        let object = StoredObject::Named(name);
        let trailer = self.store.get_range(&object, size.saturating_sub(PackTrailer::LEN as u64)..size).await?;
        let tail = table_range(&trailer, size)?;
        let tail_bytes = self.store.get_range(&object, tail.clone()).await?;
        let table = parse_table(&tail_bytes, size)?;
        let head = self.store.get_range(&object, 0..PackHeader::LEN as u64).await?;
        check_header(&head, &name, self.family)?;
        let mut hasher = ObjectHasher::new();
        hasher.update(&head);
        let print = Print::of_table(table.iter());
        let mut damaged = HashSet::new();
        let mut rest = table.as_slice();
        while let Some(first) = rest.first() {
            let start = u64::from(first.offset);
            let count = rest.partition_point(|entry| entry.end() <= start + RUN_BYTES).max(1);
            let (run, later) = rest.split_at(count);
            let end = run.last().map_or(start, TableEntry::end);
            let stored = self.store.get_range(&object, start..end).await?;
            let run = run.to_vec();
            let (bad, back) = self.on_pool(move || verify_run(&run, start, &stored, hasher)).await?;
            damaged.extend(bad?);
            hasher = back;
            rest = later;
        }
        hasher.update(&tail_bytes);
        Ok(conclude(hasher.finish() == name.hash, damaged, print))
    }
}

fn check_header(stored: &[u8], name: &ObjectName, family: FamilyId) -> Result<()> {
    let header = PackHeader::decode(stored)?;
    if header.family != family {
        return Err(Error::corrupt(format!("pack: of family {}, not of this repository's", header.family)));
    }
    if header.kind != name.kind {
        return Err(Error::corrupt(format!("pack: its header says {}", header.kind.word())));
    }
    Ok(())
}

/// Verifies a pack that is in memory: the hash of the whole beside the chunks.
fn verify_whole(name: &ObjectName, family: FamilyId, size: u64, stored: &Bytes) -> Outcome {
    if stored.len() as u64 != size {
        let what = format!("has {} bytes, should have {size}", stored.len());
        return Outcome::Damaged(Damage { what, extent: Extent::All });
    }
    let (hash, scanned) = rayon::join(
        || object_hash(stored),
        || {
            check_header(stored, name, family)?;
            let scan = PackScan::new(stored, family)?;
            let records: Vec<(&RecordHeader, &[u8])> = scan.records().collect();
            let bad = bad_chunks(&records, |(header, payload)| Ok((header.id, is_whole(header, payload)?)))?;
            Ok::<_, Error>((bad, Print::of_table(scan.table().iter())))
        },
    );
    match scanned {
        Ok((bad, print)) => conclude(hash == name.hash, bad, print),
        Err(error) if error.is_damage() => {
            Outcome::Damaged(Damage { what: error.to_string(), extent: Extent::Unknown })
        }
        Err(error) => Outcome::Unreadable(error),
    }
}

/// The chunks of those records that are not whole; decoded on all workers.
fn bad_chunks<T: Sync>(
    records: &[T],
    judge: impl Fn(&T) -> Result<(ChunkId, bool)> + Sync,
) -> Result<HashSet<ChunkId>> {
    let judge_run = |run: &[T]| -> Result<Vec<ChunkId>> {
        let judged = run.iter().map(&judge).collect::<Result<Vec<_>>>()?;
        Ok(judged.into_iter().filter(|(_, is_whole)| !is_whole).map(|(id, _)| id).collect())
    };
    let bad = records.par_chunks(RECORDS_AT_ONCE).map(judge_run).collect::<Result<Vec<_>>>()?;
    Ok(bad.into_iter().flatten().collect())
}

/// Verifies a run of records; the hasher goes along.
fn verify_run(
    run: &[TableEntry],
    start: u64,
    stored: &Bytes,
    hasher: ObjectHasher,
) -> (Result<HashSet<ChunkId>>, ObjectHasher) {
    rayon::join(
        || bad_chunks(run, |entry| Ok((entry.record.id, is_whole_record(entry, start, stored)?))),
        move || {
            let mut hasher = hasher;
            hasher.update(stored);
            hasher
        },
    )
}

fn is_whole_record(entry: &TableEntry, start: u64, stored: &[u8]) -> Result<bool> {
    let at = usize::try_from(u64::from(entry.offset) - start).unwrap_or(usize::MAX);
    let Some(record) = stored.get(at..) else { return Ok(false) };
    let Some(payload) = record.get(RecordHeader::LEN..RecordHeader::LEN + entry.record.stored_len as usize) else {
        return Ok(false);
    };
    Ok(RecordHeader::decode(record).is_ok_and(|header| header == entry.record) && is_whole(&entry.record, payload)?)
}

/// True if the payload decodes to the chunk.
fn is_whole(header: &RecordHeader, payload: &[u8]) -> Result<bool> {
    TOOLS.with_borrow_mut(|(decoder, plain)| {
        let decoder = match decoder {
            Some(decoder) => decoder,
            None => decoder.insert(Decoder::new()?),
        };
        let decoded = decoder.decode_into(header.coding, payload, header.plain_len, plain);
        Ok(decoded.is_ok() && plain.len() == header.plain_len as usize && chunk_id(plain) == header.id)
    })
}

fn conclude(hash_fits: bool, bad: HashSet<ChunkId>, print: Print) -> Outcome {
    let what = match (hash_fits, bad.len()) {
        (true, 0) => return Outcome::Whole(print),
        (true, count) => {
            let chunks = plural(count as u64, "chunk");
            format!("not what the ids say once decoded, although the pack is what its writer stored: {chunks}")
        }
        (false, 0) => "its bytes are not those of its name".to_owned(),
        (false, count) => format!("its bytes are not those of its name: damage in {}", plural(count as u64, "chunk")),
    };
    Outcome::Damaged(Damage { what, extent: Extent::Chunks(bad) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::format::scrub::ScrubFact;
    use crate::id::{ObjectKind, SessionId};

    fn pack(byte: u8) -> PackInfo {
        let hash = ObjectHash::from_bytes([byte; 32]);
        let name = ObjectName { kind: ObjectKind::DataPack, hash, session: SessionId::from_bytes([7; 8]) };
        PackInfo { name, size: 1000 }
    }

    fn ledger(facts: &[(u8, i64, ScrubResult)]) -> Ledger {
        let fact = |(byte, hour, result): &(u8, i64, ScrubResult)| ScrubFact {
            pack: pack(*byte).name,
            size: 1000,
            time: hours(*hour),
            result: *result,
        };
        let mut ledger = Ledger::default();
        ledger.add(&facts.iter().map(fact).collect::<Vec<_>>());
        ledger
    }

    fn hours(hour: i64) -> Timestamp {
        Timestamp::from_nanos(hour * 3_600_000_000_000)
    }

    fn chosen(options: &CheckOptions, ledger: &Ledger) -> Vec<u8> {
        let packs = (0..20u8).map(|byte| (u32::from(byte), pack(byte))).collect();
        let wanted = Wanted::new(options, Instant::now());
        let chosen = wanted.choose(packs, ledger, hours(100), &SeededEntropy::new(3)).unwrap();
        chosen.iter().map(|(_, pack)| pack.name.hash.as_bytes()[0]).collect()
    }

    fn with_time() -> CheckOptions {
        CheckOptions { read_data: true, time_limit: Some(Duration::from_secs(60)), ..CheckOptions::default() }
    }

    #[test]
    fn what_was_found_damaged_comes_first_then_what_was_never_read_then_the_oldest() {
        use ScrubResult::{Damaged, Missing, Whole};
        let mut facts: Vec<_> = (0..16).map(|byte| (byte, 90 - i64::from(byte), Whole)).collect();
        facts.extend([(3, 95, Damaged), (9, 96, Missing), (5, 95, Damaged), (5, 97, Whole)]);
        let order = chosen(&with_time(), &ledger(&facts));
        assert_eq!(order, [3, 9, 16, 17, 18, 19, 15, 14, 13, 12, 11, 10, 8, 7, 6, 4, 2, 1, 0, 5]);
    }

    #[test]
    fn an_age_leaves_out_what_was_read_since_but_never_what_was_damaged() {
        use ScrubResult::{Damaged, Whole};
        let mut facts: Vec<_> = (0..18).map(|byte| (byte, 80 + i64::from(byte), Whole)).collect();
        facts.push((17, 99, Damaged));
        let age = Duration::from_secs(10 * 3600);
        let options = CheckOptions { older_than: Some(age), ..with_time() };
        assert_eq!(chosen(&options, &ledger(&facts)), [17, 18, 19, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let part = CheckOptions { part: Some((2, 3)), ..options };
        let part = chosen(&part, &ledger(&facts));
        assert_eq!(part[0], 17, "a damaged pack is read again in every part");
        assert!(part.len() > 1 && part.len() < 13);
    }

    #[test]
    fn shards_are_disjoint_and_together_all_packs() {
        let ledger = ledger(&[(3, 5, ScrubResult::Damaged)]);
        let mut all = Vec::new();
        for shard in 1..=4 {
            let options = CheckOptions { shard: Some((shard, 4)), ..with_time() };
            let own = chosen(&options, &ledger);
            assert!(!own.is_empty());
            all.extend(own);
        }
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<u8>>());
    }

    #[test]
    fn a_sample_is_drawn_beside_what_was_damaged() {
        let ledger = ledger(&[(3, 5, ScrubResult::Damaged)]);
        let options = CheckOptions { read_data: true, sample: Some(Sample::Bytes(2500)), ..CheckOptions::default() };
        let drawn = chosen(&options, &ledger);
        assert_eq!((drawn[0], drawn.len()), (3, 4));
    }
}
