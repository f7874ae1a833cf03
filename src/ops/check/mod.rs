//! Check: is everything there that the backups need? Scrub: is every stored byte of it what was written?
//!
//! - [`log`]: config, the log from its first entry, state objects.
//! - [`fragments`]: every live index fragment, and the local index against them.
//! - [`objects`]: live packs against what the store lists; what nobody names.
//! - [`walk`]: manifests → segments → piece lists → every named chunk has a place.
//! - [`scrub`]: every byte of the packs.
//! - [`ledger`]: what a scrub remembers.
//! - [`faults`]: what is lost with a damaged pack, and what has a whole copy elsewhere.
//! - [`trees`]: does a server start from the trees in it?
//! - [`touches`]: which files of which backups a damage touches.
//!
//! Damage is a finding, not an error. Memory depends on the number of packs and segments, not of chunks or files: chunk ids are looked up in
//! sorted batches and forgotten.
//!
//! Safe to run concurrently with: everything. Nothing is reported missing before a refresh shows that the head of the log has not moved, or a
//! session of ours has kept everything where it is. Objects of a session that the log does not know are held against the log as it is after
//! they were listed: whoever writes has registered before.

mod faults;
mod findings;
mod fragments;
mod ledger;
mod log;
mod objects;
mod scrub;
#[cfg(test)]
mod tests;
mod touches;
mod trees;
mod walk;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use findings::{Finding, Severity, Touched};

use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::Purpose;
use crate::format::log_state::LogState;
use crate::format::scrub::ScrubResult;
use crate::id::{ChunkId, ObjectHash, ObjectName};
use crate::index::{CatchUp, Index, catch_up};
use crate::ops::blocking;
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{BackupInfo, Repository, ScrubAge, Session, SessionRequest};
use crate::units::{GIB, MIB};
use faults::Faults;
use findings::Findings;

/// Which share of the packs a scrub reads, chosen at random.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// This share of the bytes, above 0 and at most 1.
    Share(f64),
    /// At least so many bytes.
    Bytes(u64),
}

/// How a check is done.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Only what these backups need; empty for all.
    pub backups: Vec<ObjectHash>,
    /// Scrub: also read every pack.
    pub read_data: bool,
    /// Scrub part i of n (from 1): the parts together are all packs, each in one of them.
    pub part: Option<(u32, u32)>,
    /// Scrub only some packs.
    pub sample: Option<Sample>,
    /// Scrub only packs whose last good read is longer ago than this, or never was.
    pub older_than: Option<Duration>,
    /// Scrub shard i of n (from 1): disjoint sets for hosts that scrub side by side, together all packs.
    pub shard: Option<(u32, u32)>,
    /// Begin no further pack after so long.
    pub time_limit: Option<Duration>,
    /// Write down what was read when, under a session, so that scrubs add up.
    pub ledger: bool,
    /// Write it down whenever so many bytes were read.
    #[doc(hidden)]
    pub ledger_part: u64,
    /// Bytes of memory to stay below.
    pub memory: u64,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            backups: Vec::new(),
            read_data: false,
            part: None,
            sample: None,
            older_than: None,
            shard: None,
            time_limit: None,
            ledger: true,
            ledger_part: 8 * GIB,
            memory: 256 * MIB,
        }
    }
}

impl CheckOptions {
    fn validate(&self) -> Result<()> {
        for (what, choice) in [("part", self.part), ("shard", self.shard)] {
            if let Some((part, parts)) = choice
                && !(1..=parts).contains(&part)
            {
                let message = format!("check {what} {part}/{parts}: {what}s are numbered from 1 to their number");
                return Err(Error::invalid(message));
            }
        }
        if let Some(Sample::Share(share)) = self.sample
            && !(share > 0.0 && share <= 1.0)
        {
            return Err(Error::invalid("check a sample: the share must be above 0 % and at most 100 %"));
        }
        let chosen = self.part.is_some() || self.sample.is_some() || self.shard.is_some() || self.older_than.is_some();
        if !self.read_data && chosen {
            let message = "check: a part, a sample, a shard or an age chooses among the packs that are read: it goes with --read-data";
            return Err(Error::invalid(message));
        }
        Ok(())
    }
}

/// What a check found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct CheckReport {
    /// Backups checked.
    pub backups: u64,
    /// Files, directories and links in them.
    pub entries: u64,
    /// Distinct segments of their lists.
    pub segments: u64,
    /// Chunks looked up; one that many files name may count more than once.
    pub chunks: u64,
    /// Live packs whose stored objects were compared.
    pub packs: u64,
    /// Packs read whole.
    pub packs_read: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// How long ago the live packs were read, this run included; `None` without a scrub.
    pub scrub: Option<ScrubAge>,
    /// Log entries read.
    pub log_entries: u64,
    /// What is wrong, worst first; at most a thousand.
    pub findings: Vec<Finding>,
    /// How many there were.
    pub finding_count: u64,
    /// Everything that was asked for was looked at; false if the time was up, or on request.
    pub complete: bool,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
    /// What `repair` sets about.
    #[serde(skip)]
    pub(crate) suspects: Suspects,
}

/// What a repair has to look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspects {
    /// Live packs that are missing or damaged, or were so when they were last read, with what is wrong.
    pub(crate) packs: Vec<(ObjectName, String)>,
    /// Chunks that backups name and no live pack holds; the first million.
    pub(crate) chunks: Vec<ChunkId>,
}

impl CheckReport {
    fn new() -> Self {
        Self {
            backups: 0,
            entries: 0,
            segments: 0,
            chunks: 0,
            packs: 0,
            packs_read: 0,
            bytes_read: 0,
            scrub: None,
            log_entries: 0,
            findings: Vec::new(),
            finding_count: 0,
            complete: true,
            remarks: Vec::new(),
            duration: Duration::ZERO,
            suspects: Suspects::default(),
        }
    }

    /// The worst of the findings; `None` if there is none.
    pub fn worst(&self) -> Option<Severity> {
        // Where there are more than are kept, the worst are.
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// The structure is read again when the log moved on while something looked missing; at most so often.
const ATTEMPTS: usize = 4;

/// Checks the structure of a repository, and with `read_data` every byte of its packs.
///
/// Fails if the repository cannot be reached, or if a backup asked for is not listed; whatever is damaged or missing is in the report.
pub async fn check(repository: &Repository, options: &CheckOptions, monitor: Arc<dyn Monitor>) -> Result<CheckReport> {
    let begun = Instant::now();
    options.validate()?;
    let mut report = CheckReport::new();
    monitor.event(Event::Begin { phase: Phase::Opening, bytes: 0, items: 0 });
    refresh(repository).await?;
    let writes = options.read_data && options.ledger;
    let mut keeper = ledger::Keeper::open(repository, writes, options.ledger_part, &mut report).await?;
    match look(repository, options, &monitor, begun, &mut keeper, &mut report).await {
        Ok(index) => keeper.finish(&index, &mut report).await,
        Err(error) => {
            keeper.abandon().await;
            return Err(error);
        }
    }
    report.duration = begun.elapsed();
    Ok(report)
}

/// Everything between the opening of the session and its end.
async fn look(
    repository: &Repository,
    options: &CheckOptions,
    monitor: &Arc<dyn Monitor>,
    begun: Instant,
    keeper: &mut ledger::Keeper,
    report: &mut CheckReport,
) -> Result<Arc<Index>> {
    let mut findings = Findings::default();
    for (name, error) in &keeper.ledger.dropped {
        findings.add(Finding::new(Severity::Note, name.to_string(), error.to_string(), findings::heal::LEDGER));
    }
    let (index, caught_up) = repository.index_of_any_log().await?;
    log::check(repository, caught_up.seen, report, &mut findings).await?;
    let mut structure = check_structure(repository, &index, &caught_up, options, monitor, report).await?;
    if options.read_data {
        let wanted = scrub::Wanted::new(options, begun);
        scrub::run(repository, &wanted, &mut structure, keeper, monitor, report).await?;
        drop_retired(repository, &mut structure).await?;
        report.scrub = Some(keeper.ledger.age(&structure.index.live_packs(), keeper.now()));
    }
    structure.remember(&keeper.ledger);
    report.suspects = structure.suspects()?;
    structure.faults.assess(repository, &structure.index, &structure.state, options.read_data).await?;
    let mut touches = touches::find(repository, &structure).await?;
    trees::find_holes(repository, &structure, options, &mut findings, report, monitor).await;
    findings.append(structure.findings);
    structure.faults.report(&mut touches, &mut findings);
    structure.walked.report(&mut touches, &mut findings);
    findings.finish(report);
    Ok(structure.index)
}

/// What a reading of the structure at one state of the log gave.
struct Structure {
    state: Arc<LogState>,
    index: Arc<Index>,
    backups: Vec<BackupInfo>,
    findings: Findings,
    faults: Faults,
    walked: walk::Walked,
    prints: fragments::Prints,
}

impl Structure {
    /// Adds the packs that a scrub found damaged, unless they were looked at again.
    fn remember(&mut self, ledger: &crate::repo::Ledger) {
        for (name, (number, size)) in self.index.live_pack_numbers() {
            if let Some(fact) = ledger.fact(&name).filter(|fact| fact.result == ScrubResult::Damaged)
                && !self.faults.has(number)
            {
                self.faults.add_remembered(number, name, fact.time, size);
            }
        }
    }

    /// What a repair has to look at.
    fn suspects(&self) -> Result<Suspects> {
        let mut packs = self.faults.packs();
        for (segment, why) in self.walked.unreadable() {
            let locations = self.index.locations(segment)?;
            let names = locations.iter().filter_map(|location| self.index.pack(location.pack));
            packs.extend(names.map(|pack| (pack.name, why.clone())));
        }
        packs.sort_unstable();
        packs.dedup_by_key(|(name, _)| *name);
        let mut chunks: Vec<_> = self.walked.missing.iter().copied().collect();
        chunks.sort_unstable();
        Ok(Suspects { packs, chunks })
    }

    /// True if something is not where the log says it is, which may be because the log said something else meanwhile.
    fn looks_incomplete(&self) -> bool {
        self.findings.has_missing() || !self.faults.is_empty() || self.walked.has_missing()
    }
}

/// Reads the structure, again if the log moved on while something looked missing: then registered, so that whatever others retire stays where
/// it is until we have looked. A repository that cannot be written is looked at a few times more instead.
async fn check_structure(
    repository: &Repository,
    index: &Arc<Index>,
    opened: &CatchUp,
    options: &CheckOptions,
    monitor: &Arc<dyn Monitor>,
    report: &mut CheckReport,
) -> Result<Structure> {
    let structure = read_structure(repository, index, opened, options, monitor, report).await?;
    if !structure.looks_incomplete() || !has_moved_on(repository, &structure).await? {
        return Ok(structure);
    }
    let session = match repository.store_facts().single_writer {
        true => None,
        false => Session::open(repository, SessionRequest::for_work(Purpose::Scrub)).await.ok(),
    };
    let again = async {
        match session {
            Some(_) => read_structure(repository, index, opened, options, monitor, report).await,
            None => read_until_calm(repository, index, opened, options, monitor, report).await,
        }
    };
    let outcome = Session::while_alive(session.as_ref(), again).await;
    if let Some(session) = session {
        // A session that cannot be closed is fenced by the next writer of this host.
        let _closed = session.close().await;
    }
    outcome
}

/// True if the log, read anew, does not end where it ended when the structure was read.
async fn has_moved_on(repository: &Repository, structure: &Structure) -> Result<bool> {
    refresh(repository).await?;
    Ok(repository.state().head != structure.state.head)
}

async fn read_until_calm(
    repository: &Repository,
    index: &Arc<Index>,
    opened: &CatchUp,
    options: &CheckOptions,
    monitor: &Arc<dyn Monitor>,
    report: &mut CheckReport,
) -> Result<Structure> {
    for attempt in 2.. {
        let structure = read_structure(repository, index, opened, options, monitor, report).await?;
        if !structure.looks_incomplete() {
            return Ok(structure);
        }
        if !has_moved_on(repository, &structure).await? {
            return Ok(structure);
        }
        if attempt == ATTEMPTS {
            report.remarks.push(
                "the log moved on all the time: what is reported missing may only have been replaced; check again"
                    .to_owned(),
            );
            return Ok(structure);
        }
    }
    unreachable!("the loop ends at the last attempt")
}

async fn read_structure(
    repository: &Repository,
    index: &Arc<Index>,
    opened: &CatchUp,
    options: &CheckOptions,
    monitor: &Arc<dyn Monitor>,
    report: &mut CheckReport,
) -> Result<Structure> {
    let mut findings = Findings::default();
    let state = repository.state();
    let caught_up = catch_up(index, repository.store(), &state, &[]).await?;
    let backups = choose(repository, &options.backups)?;
    let items = backups.iter().map(|backup| backup.summary.totals).map(|t| t.files + t.directories + t.symlinks).sum();
    monitor.event(Event::Begin { phase: Phase::Checking, bytes: 0, items });
    let prints = fragments::check(repository, index, &state, [opened, &caught_up], &mut findings).await?;
    let faults = objects::compare(repository, index, &state, report, &mut findings).await?;
    let walked = walk::walk(repository, index, &backups, &faults, monitor, report, &mut findings).await?;
    monitor.event(Event::End { phase: Phase::Checking });
    Ok(Structure { state, index: Arc::clone(index), backups, findings, faults, walked, prints })
}

fn choose(repository: &Repository, wanted: &[ObjectHash]) -> Result<Vec<BackupInfo>> {
    let mut backups = repository.backups();
    if wanted.is_empty() {
        return Ok(backups);
    }
    if let Some(unknown) = wanted.iter().find(|id| !backups.iter().any(|backup| backup.id == **id)) {
        let message = format!("check backup {unknown}: there is none of that id; `everpack list` shows what there is");
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    backups.retain(|backup| wanted.contains(&backup.id));
    Ok(backups)
}

/// Reads what was appended meanwhile. A damaged log is a finding of its own; the rest is checked against what is known.
async fn refresh(repository: &Repository) -> Result<()> {
    match repository.refresh().await {
        Err(error) if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => Err(error),
        _ => Ok(()),
    }
}

/// Forgets what was found in packs that do not count any more.
async fn drop_retired(repository: &Repository, structure: &mut Structure) -> Result<()> {
    if structure.faults.is_empty() {
        return Ok(());
    }
    refresh(repository).await?;
    structure.state = repository.state();
    catch_up(&structure.index, repository.store(), &structure.state, &[]).await?;
    let live = structure.index.live_pack_numbers();
    structure.faults.retain(|name| live.contains_key(name));
    Ok(())
}
