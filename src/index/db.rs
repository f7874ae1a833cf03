//! The index: a catalogue in redb, and the chunk locations in sorted runs beside it.
//!
//! Chunk ids are random, and a B-tree of random keys pays for every batch with nearly all of its pages. So each batch becomes a [`super::run`]
//! of its own, and runs are merged so that each holds at least twice as much as all newer ones together: few runs to look into, and
//! every byte written a few times only (docs/decisions/0007-index-runs.md).
//!
//! One process at a time has the index of a repository. Another one on the same host gets a private one without a name, filled from the
//! fragments and gone with the process.
//!
//! If we crash here: runs that the catalogue does not name are removed at the next opening; what it names was synced before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::catalogue::{Catalogue, Change, Contents, PackInfo, is_ours};
use super::home::Home;
use super::marks::Marks;
use super::run::{Row, Run, RunWriter, Sweep, decode_row, encode_row, merge};
use crate::error::{Error, ErrorKind, Result};
use crate::format::fragment::Fragment;
use crate::format::log_state::LogState;
use crate::id::{ChunkId, EntryHash, ObjectKind, ObjectName, RepositoryId};
use crate::pack::Location;

/// Runs smaller than this count as this many rows when it is decided what to merge.
const RUN_WEIGHT_LEAST: u64 = 4096;
/// With more runs than this, they are merged without waiting for the end of a catch-up.
const RUNS_MOST: usize = 32;
/// Runs up to this size are verified whole when they are opened, larger ones as they are read.
const VERIFY_AT_OPEN: u64 = 64 << 20;

/// All packs, in memory: some 150 bytes each.
#[derive(Debug, Default)]
struct Packs {
    infos: Vec<PackInfo>,
    numbers: HashMap<ObjectName, u32>,
    /// Packs whose locations count.
    live: Vec<bool>,
    /// Packs that no fragment names and that are not retired either: their rows go at the next merge.
    gone: Vec<bool>,
    /// Folded fragments and their packs.
    fragments: HashMap<ObjectName, Vec<u32>>,
}

/// What the writing side remembers between a change and the moment when it outlives a crash.
#[derive(Debug, Default)]
struct Unsettled {
    run_next: u32,
    /// Runs that were not synced yet.
    unsynced: Vec<u32>,
    /// Files of merged runs, still named by the last durable catalogue.
    superseded: Vec<u32>,
    changed: bool,
    seen: Option<(u64, EntryHash)>,
}

/// The local index of one repository.
#[derive(Debug)]
pub(crate) struct Index {
    // Dropped in this order: the catalogue is closed before the lock is given back.
    catalogue: Catalogue,
    packs: RwLock<Packs>,
    /// Oldest first.
    runs: RwLock<Vec<Arc<Run>>>,
    writing: Mutex<Unsettled>,
    damaged: AtomicBool,
    /// A backup runs: see `stop_counting_damaged`.
    heals: AtomicBool,
    /// For tests: rule skip-retired is not kept.
    counts_retired: AtomicBool,
    home: Home,
}

impl Index {
    /// Opens the index kept in `directory`, or makes a private one if another process has it or the directory cannot be written.
    pub(crate) fn open(directory: Option<&Path>, repository: RepositoryId) -> Result<Self> {
        if let Some(home) = directory.and_then(Home::keep) {
            match Self::open_in(home, repository) {
                Ok(index) => return Ok(index),
                // Of another repository, of another layout, or damaged: a cache is not worth repairing.
                Err(_) => {
                    if let Some(home) = directory.and_then(Home::keep) {
                        home.remove_except(|_| false);
                        if let Ok(index) = Self::open_in(home, repository) {
                            return Ok(index);
                        }
                    }
                }
            }
        }
        match Self::open_in(Home::private(directory), repository) {
            // The disk of the cache is full, and so may be that of temporary files: a command that only looks need not fail for that.
            Err(error) if error.is_disk_full() => Self::open_in(Home::memory(), repository),
            opened => opened,
        }
    }

    /// What to do about a full disk that is not the repository's.
    fn explain<T>(&self, done: Result<T>) -> Result<T> {
        match done {
            Err(error) if error.is_disk_full() => Err(error.context(format!(
                "keep the local index{}: --cache puts it on another disk, --cache none into memory",
                self.home.told()
            ))),
            done => done,
        }
    }

    fn open_in(home: Home, repository: RepositoryId) -> Result<Self> {
        let (catalogue, contents) = Catalogue::open(&home, repository)?;
        let Contents { packs, fragments, runs: infos, seen } = contents;
        let mut runs = Vec::with_capacity(infos.len());
        for info in infos {
            let file = home.open_file(&run_name(info.number))?;
            let whole = info.rows.saturating_mul(super::run::ROW_LEN as u64) <= VERIFY_AT_OPEN;
            runs.push(Arc::new(Run::open(file, info, whole)?));
        }
        let names: HashSet<String> = runs.iter().map(|run| run_name(run.info.number)).collect();
        home.remove_except(|name| is_ours(name) || names.contains(name));
        let run_next = runs.last().map_or(0, |run| run.info.number + 1);
        let mut all = Packs::default();
        for pack in packs {
            all.add(pack);
        }
        all.fragments = fragments;
        Ok(Self {
            catalogue,
            packs: RwLock::new(all),
            runs: RwLock::new(runs),
            writing: Mutex::new(Unsettled { run_next, seen, ..Unsettled::default() }),
            damaged: AtomicBool::new(false),
            heals: AtomicBool::new(false),
            counts_retired: AtomicBool::new(false),
            home,
        })
    }

    /// True if nothing of it outlives this process.
    #[cfg(test)]
    pub(crate) fn is_private(&self) -> bool {
        self.home.is_private()
    }

    /// The newest log entry that this host has seen of the repository, by which a log that went backwards is noticed.
    pub(crate) fn seen(&self) -> Result<Option<(u64, EntryHash)>> {
        Ok(self.writing().seen)
    }

    /// True if this fragment was folded.
    pub(crate) fn has_fragment(&self, name: &ObjectName) -> bool {
        self.packs().fragments.contains_key(name)
    }

    /// Folds fragments, given in log order. A crash before [`Index::settle`] may undo it.
    pub(crate) fn insert(&self, fragments: &[(ObjectName, Fragment)]) -> Result<()> {
        if fragments.is_empty() {
            return Ok(());
        }
        let mut unsettled = self.writing();
        let mut change = Change::default();
        let mut rows: Vec<Row> = Vec::with_capacity(fragments.iter().map(|(_, fragment)| fragment.entries.len()).sum());
        for (name, fragment) in fragments {
            let numbers = self.number_packs(fragment, &mut change);
            rows.extend(fragment.entries.iter().map(|entry| encode_row(entry, numbers[usize::from(entry.pack)])));
            change.fragments.push((*name, numbers));
        }
        // Each fragment is sorted, which this sort makes use of.
        rows.sort();
        let run = if rows.is_empty() { None } else { Some(self.explain(self.write_run(&mut unsettled, &rows))?) };
        change.runs.extend(run.as_ref().map(|run| run.info));
        self.explain(self.catalogue.apply(&change))?;
        unsettled.changed = true;
        // Known before they can be found: what is found must be known.
        self.packs_mut().fragments.extend(change.fragments);
        let run_count = {
            let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
            runs.extend(run.map(Arc::new));
            runs.len()
        };
        if run_count > RUNS_MOST { self.settle_locked(&mut unsettled, None) } else { Ok(()) }
    }

    /// Gives new packs a number.
    fn number_packs(&self, fragment: &Fragment, change: &mut Change) -> Vec<u32> {
        let mut packs = self.packs_mut();
        let number = |pack: &crate::format::fragment::FragmentPack| match packs.numbers.get(&pack.name) {
            Some(number) => *number,
            None => {
                let info = PackInfo { name: pack.name, size: pack.size };
                let number = packs.add(info);
                packs.live[number as usize] = true;
                change.packs.push((number, info));
                number
            }
        };
        fragment.packs.iter().map(number).collect()
    }

    fn write_run(&self, unsettled: &mut Unsettled, rows: &[Row]) -> Result<Run> {
        let mut writer = self.new_run(unsettled)?;
        for row in rows {
            writer.push(row)?;
        }
        writer.finish()
    }

    fn new_run(&self, unsettled: &mut Unsettled) -> Result<RunWriter> {
        let number = unsettled.run_next;
        unsettled.run_next += 1;
        unsettled.unsynced.push(number);
        Ok(RunWriter::new(self.home.create_file(&run_name(number))?, number))
    }

    /// Merges runs where that is due, and makes everything so far outlive a crash. `seen` is the newest log entry known.
    pub(crate) fn settle(&self, seen: Option<(u64, EntryHash)>) -> Result<()> {
        let mut unsettled = self.writing();
        let news = seen.is_some() && seen != unsettled.seen;
        if !unsettled.changed && !news {
            return Ok(());
        }
        self.settle_locked(&mut unsettled, seen)
    }

    fn settle_locked(&self, unsettled: &mut Unsettled, seen: Option<(u64, EntryHash)>) -> Result<()> {
        let old = self.runs();
        let keep = old.len() - due(&old);
        let mut change = Change { seen, durable: !self.home.is_private(), ..Change::default() };
        let mut new = old[..keep].to_vec();
        if keep < old.len() {
            let gone = self.packs().gone.clone();
            let is_gone = |pack: u32| gone.get(pack as usize).copied().unwrap_or(false);
            let merged = merge(&old[keep..], self.new_run(unsettled)?, is_gone);
            let merged = merged.map_err(|error| self.doubt(error))?;
            change.runs_gone.extend(old[keep..].iter().map(|run| run.info.number));
            unsettled.superseded.extend(&change.runs_gone);
            if merged.info.rows == 0 {
                unsettled.superseded.push(merged.info.number);
            } else {
                change.runs.push(merged.info);
                new.push(Arc::new(merged));
            }
        }
        if change.durable {
            for run in new.iter().filter(|run| unsettled.unsynced.contains(&run.info.number)) {
                run.sync()?;
            }
        }
        self.explain(self.catalogue.apply(&change))?;
        *self.runs.write().unwrap_or_else(PoisonError::into_inner) = new;
        unsettled.unsynced.clear();
        unsettled.changed = false;
        unsettled.seen = seen.or(unsettled.seen);
        for number in unsettled.superseded.drain(..) {
            if let Some(path) = self.home.path(&run_name(number)) {
                let _gone = std::fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Forgets fragments that do not count any more; their packs count only if another fragment names them.
    pub(crate) fn remove_fragments(&self, gone: &[ObjectName]) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut unsettled = self.writing();
        self.catalogue.apply(&Change { fragments_gone: gone.to_vec(), ..Change::default() })?;
        unsettled.changed = true;
        let mut packs = self.packs_mut();
        gone.iter().for_each(|name| drop(packs.fragments.remove(name)));
        Ok(())
    }

    /// For tests: packs count although they are retired.
    pub(crate) fn count_retired(&self) {
        self.counts_retired.store(true, Ordering::Release);
    }

    /// Decides which packs count in a state of the log.
    pub(crate) fn set_live_in(&self, state: &LogState) {
        let counts_retired = self.counts_retired.load(Ordering::Acquire);
        self.set_live(|pack| {
            (!counts_retired && state.retired.contains_key(pack)) || state.quarantined.contains_key(pack)
        });
    }

    /// Decides which packs count: those of folded fragments, except the ones in `dead`.
    pub(crate) fn set_live(&self, is_dead: impl Fn(&ObjectName) -> bool) {
        let mut packs = self.packs_mut();
        let mut named = vec![false; packs.infos.len()];
        for number in packs.fragments.values().flatten() {
            named[*number as usize] = true;
        }
        let dead: Vec<bool> = packs.infos.iter().map(|info| is_dead(&info.name)).collect();
        packs.live = named.iter().zip(&dead).map(|(named, dead)| *named && !*dead).collect();
        packs.gone = named.iter().zip(&dead).map(|(named, dead)| !*named && !*dead).collect();
    }

    /// While a backup runs: a pack in which damage is met does not count any more, so that what it held is stored again.
    pub(crate) fn stop_counting_damaged(&self, yes: bool) {
        self.heals.store(yes, Ordering::Release);
    }

    /// A chunk could not be read from this pack.
    pub(crate) fn met_damage(&self, pack: u32) {
        if self.heals.load(Ordering::Acquire)
            && let Some(live) = self.packs_mut().live.get_mut(pack as usize)
        {
            *live = false;
        }
    }

    /// The folded fragments.
    pub(crate) fn fragments(&self) -> Vec<ObjectName> {
        self.packs().fragments.keys().copied().collect()
    }

    /// A pack by its number.
    pub(crate) fn pack(&self, number: u32) -> Option<PackInfo> {
        self.packs().infos.get(number as usize).copied()
    }

    /// The packs whose locations count.
    pub(crate) fn live_packs(&self) -> Vec<PackInfo> {
        let packs = self.packs();
        packs.infos.iter().zip(&packs.live).filter(|(_, live)| **live).map(|(info, _)| *info).collect()
    }

    /// The same, each with its number and size.
    pub(crate) fn live_pack_numbers(&self) -> HashMap<ObjectName, (u32, u64)> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        let live = (0u32..).zip(&packs.infos).zip(&packs.live).filter(|(_, live)| **live);
        live.map(|((number, info), _)| (info.name, (number, info.size))).collect()
    }

    /// Every pack that a folded fragment names, live or not, by session: for telling orphans from lost entries.
    pub(crate) fn known_packs(&self) -> HashSet<ObjectName> {
        let packs = self.packs();
        packs.fragments.values().flatten().map(|number| packs.infos[*number as usize].name).collect()
    }

    /// The location that counts for each chunk, in the order asked; asking for many at once is faster.
    pub(crate) fn lookup(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        let runs = self.runs();
        let packs = self.packs();
        let mut found: Vec<Option<Location>> = vec![None; ids.len()];
        let mut wanted: Vec<usize> = (0..ids.len()).collect();
        wanted.sort_by_key(|at| &ids[*at]);
        for run in &runs {
            let mut sweep = Sweep::new(run);
            for at in &wanted {
                let first = &mut found[*at];
                let visit = |row: &Row| {
                    if first.is_none() {
                        *first = Some(decode_row(row)).filter(|location| packs.counts(location));
                    }
                };
                sweep.find(&ids[*at], visit).map_err(|error| self.doubt(error))?;
            }
            wanted.retain(|at| found[*at].is_none());
        }
        Ok(found)
    }

    /// Every location of a chunk in a live pack, the one that counts first.
    pub(crate) fn locations(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let mut all = self.rows_of(id)?;
        let packs = self.packs();
        all.retain(|location| packs.counts(location));
        Ok(all)
    }

    /// A location in a pack that does not count but is still there: for copying a chunk out of a retired pack.
    pub(crate) fn last_resort(&self, id: &ChunkId, is_there: impl Fn(&ObjectName) -> bool) -> Result<Option<Location>> {
        let all = self.rows_of(id)?;
        let packs = self.packs();
        let is_usable =
            |location: &Location| packs.infos.get(location.pack as usize).is_some_and(|info| is_there(&info.name));
        Ok(all.into_iter().find(is_usable))
    }

    /// Every location of a chunk that is known, whether its pack counts or not: whoever reads there proves what comes.
    pub(crate) fn all_locations(&self, id: &ChunkId) -> Result<Vec<Location>> {
        self.rows_of(id)
    }

    fn rows_of(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let mut all: Vec<Location> = Vec::new();
        for run in &self.runs() {
            let visit = |row: &Row| {
                let location = decode_row(row);
                if !all.contains(&location) {
                    all.push(location);
                }
            };
            Sweep::new(run).find(id, visit).map_err(|error| self.doubt(error))?;
        }
        Ok(all)
    }

    /// Marks for every location there is now.
    pub(crate) fn marks(&self) -> Marks {
        Marks::new(self.runs())
    }

    /// Every folded fragment with the numbers of its packs.
    pub(crate) fn fragment_packs(&self) -> HashMap<ObjectName, Vec<u32>> {
        self.packs().fragments.clone()
    }

    /// Every pack that the index knows, by number, and whether it counts.
    pub(crate) fn all_packs(&self) -> Vec<(PackInfo, bool)> {
        let packs = self.packs();
        packs.infos.iter().copied().zip(packs.live.iter().copied()).collect()
    }

    /// Locations kept, whether their packs count or not.
    pub(crate) fn location_count(&self) -> u64 {
        self.runs().iter().map(|run| run.info.rows).sum()
    }

    /// True if damage was met: whoever opens the index next gets a new one.
    #[cfg(test)]
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// A run is not what was written: the kept index is thrown away, so that the next one to open it builds it anew.
    fn doubt(&self, error: Error) -> Error {
        self.damaged.store(true, Ordering::Release);
        self.home.remove_except(|_| false);
        let message =
            "the local index is damaged and was thrown away; run again, and it is built anew from the repository";
        Error::with_source(ErrorKind::Unavailable, message, error)
    }

    fn packs(&self) -> RwLockReadGuard<'_, Packs> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn packs_mut(&self) -> std::sync::RwLockWriteGuard<'_, Packs> {
        self.packs.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> Vec<Arc<Run>> {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn writing(&self) -> MutexGuard<'_, Unsettled> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Packs {
    fn add(&mut self, info: PackInfo) -> u32 {
        let number = u32::try_from(self.infos.len()).expect("fewer packs than 2^32");
        self.numbers.insert(info.name, number);
        self.infos.push(info);
        self.live.push(false);
        number
    }

    fn counts(&self, location: &Location) -> bool {
        self.live.get(location.pack as usize).copied().unwrap_or(false)
    }
}

/// Sizes by kind, for reports: kind → (packs, bytes).
pub(crate) fn sizes(packs: &[PackInfo]) -> BTreeMap<ObjectKind, (u64, u64)> {
    let mut sizes = BTreeMap::new();
    for pack in packs {
        let (count, bytes) = sizes.entry(pack.name.kind).or_insert((0, 0));
        *count += 1;
        *bytes += pack.size;
    }
    sizes
}

fn run_name(number: u32) -> String {
    format!("run-{number:08}")
}

/// How many of the newest runs are to be merged, so that then each run holds at least twice as much as all newer ones.
fn due(runs: &[Arc<Run>]) -> usize {
    let mut newer = 0;
    let mut due = 0;
    for (count, run) in runs.iter().rev().enumerate() {
        let weight = run.info.rows.max(RUN_WEIGHT_LEAST);
        if weight < 2 * newer {
            due = count + 1;
        }
        newer += weight;
    }
    due
}
