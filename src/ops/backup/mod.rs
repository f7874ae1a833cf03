//! Backup: from a source to a committed manifest.
//!
//! - [`plan`]: merges the source's entries with the parent's: what is known is not opened.
//! - [`lineage`]: which backup is the parent.
//! - [`read`]: a file into groups of chunks: unframed, understood, cut; on reader threads.
//! - [`code`]: a group of chunks named, looked up, coded and verified; on the worker pool.
//! - [`assemble`]: entries in order into segments, segments into the manifest.
//!
//! Threads and queues: one planner → bounded queue → readers → worker pool → packing thread (`repo::writer`); one assembler takes the
//! outcomes in the planner's order. Everything between is bounded by bytes, so memory does not depend on the source's size.
//!
//! If we crash here: no backup; packs published at a checkpoint are found by the next run, others are orphans of a dead session.

mod assemble;
mod code;
mod lineage;
mod plan;
mod read;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use lineage::Choice;
use plan::Counts;
pub use plan::Problem;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::Purpose;
use crate::format::log_state::LogState;
use crate::id::ObjectHash;
use crate::index::Index;
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{
    BackupSummary, Commit, EntryKind, EntryStream, Manifest, Repository, Rule, Session, SessionRequest, Totals, Writer,
    WriterTotals,
};
use crate::source::{Skipped, Source, SourceDescription};
use crate::tae::TaeName;
use crate::units::MIB;

use super::closure::Reader;

/// How a backup is made.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The lineage's name; by default that of the newest backup that shares object names, else the source's location.
    pub lineage: Option<String>,
    /// Free words kept with the backup.
    pub tags: Vec<String>,
    /// Commit although some files could not be read; they are named in the report.
    pub allow_partial: bool,
    /// Read every file, whatever the parent says.
    pub force: bool,
    /// Decode every LZ4 block instead of only walking it.
    pub validate_decode: bool,
    /// Bytes of memory to stay below.
    pub memory: u64,
    /// Threads that read files; 0 decides by itself.
    pub readers: usize,
    /// Fence a running backup of the same lineage.
    pub takeover: bool,
    /// A silent session of another host counts as dead after this long.
    pub fence_after: Duration,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            lineage: None,
            tags: Vec::new(),
            allow_partial: false,
            force: false,
            validate_decode: false,
            memory: 256 * MIB,
            readers: 0,
            takeover: false,
            fence_after: Duration::from_secs(3600),
        }
    }
}

/// What a backup did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BackupReport {
    /// Its id.
    pub id: ObjectHash,
    /// The lineage it belongs to.
    pub lineage: String,
    /// The backup whose entries were taken over where nothing had changed.
    pub parent: Option<ObjectHash>,
    /// What it holds.
    pub totals: Totals,
    /// Files that the parent does not have.
    pub files_new: u64,
    /// Files that the parent has with other content.
    pub files_changed: u64,
    /// Files with the parent's content.
    pub files_unchanged: u64,
    /// Files of the parent that are gone.
    pub files_removed: u64,
    /// Files that were opened.
    pub files_read: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Logical bytes of chunks that no earlier backup had.
    pub bytes_new: u64,
    /// Logical bytes that were in the repository already.
    pub bytes_reused: u64,
    /// Bytes that the repository grew by, packs of data and of metadata.
    pub bytes_stored: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// Some files are missing or incomplete.
    pub partial: bool,
    /// Files that could not be read or were damaged at the source, at most a thousand of them.
    pub problems: Vec<Problem>,
    /// How many problems there were.
    pub problem_count: u64,
    /// What was left out on purpose: sockets, devices, exclusions.
    pub skipped: Skipped,
    /// Remarks: about the source, or damage in the repository that this backup healed.
    pub warnings: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// Backs a source up.
///
/// Fails with `Busy` if another backup of the lineage runs, and with the first problem's cause if a file could not be read and
/// `allow_partial` is not set; then nothing is committed, and what was stored already is found by the next run.
pub async fn backup(
    repository: &Repository,
    source: Box<dyn Source>,
    options: &BackupOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<BackupReport> {
    let begun = Instant::now();
    monitor.event(Event::Begin { phase: Phase::Opening, bytes: 0, items: 0 });
    repository.refresh().await?;
    let (source, choice) = lineage::choose(repository, source, options.lineage.as_deref()).await?;
    let making = Making::begin(repository, choice, options, &monitor).await?;
    let mut report = making.commit(source).await?;
    add_holes(repository, &mut report).await;
    report.duration = begun.elapsed();
    monitor.event(Event::End { phase: Phase::BackingUp });
    Ok(report)
}

/// Tells what a server restored from this backup would miss. The backup stands: it holds all that the source has.
async fn add_holes(repository: &Repository, report: &mut BackupReport) {
    let holes = match repository.index().await {
        Ok(index) => super::closure::holes(repository, &index, &report.id).await,
        Err(error) => Err(error),
    };
    match holes {
        Ok(holes) => {
            report.problem_count += holes.len() as u64;
            let problems =
                holes.into_iter().map(|hole| Problem { path: hole.path, message: hole.message, incomplete: false });
            report.problems.extend(problems.take(100));
        }
        Err(error) => {
            report.warnings.push(format!("whether the MatrixOne tree is complete could not be found out: {error}"))
        }
    }
}

/// A backup in the making: its session is open, so its lineage is locked and nothing that it finds can go.
///
/// It may store files ahead, in any number of rounds, before the source that is the backup is known; then it takes them over by path. Whoever
/// does not commit it must give it up, so that the lock is given back.
pub(crate) struct Making {
    repository: Repository,
    session: Arc<Session>,
    index: Arc<Index>,
    choice: lineage::Choice,
    options: BackupOptions,
    monitor: Arc<dyn Monitor>,
    started: Timestamp,
    parent: Option<(ObjectHash, Manifest)>,
    /// What was stored ahead.
    ahead: Vec<Manifest>,
    /// Paths of it that are not to be taken over.
    spoiled: HashSet<Vec<u8>>,
    /// Some live packs are damaged or missing: entries are taken over only if every chunk is found elsewhere.
    distrust: bool,
    warnings: Vec<String>,
    counts: plan::Counts,
    stored: WriterTotals,
    relied: HashSet<u32>,
}

impl Making {
    /// Opens the session and looks at what there is. Fails with `Busy` if another backup of the lineage runs.
    pub(crate) async fn begin(
        repository: &Repository,
        choice: lineage::Choice,
        options: &BackupOptions,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Self> {
        let started = repository.environment().clock.now();
        let request = SessionRequest {
            purpose: Purpose::Backup,
            lineage: Some(choice.id),
            fence_after: options.fence_after,
            takeover: options.takeover,
        };
        // For the test that shows what rule open-before-read is for: everything below goes by what was seen before.
        let before = if repository.keeps(Rule::OpenBeforeRead) { None } else { Some(repository.state()) };
        let session = Arc::new(Session::open(repository, request).await?);
        if let Some(before) = before {
            repository.set_state(LogState::clone(&before));
        }
        match Self::look(repository, &session, choice, options, monitor, started).await {
            Ok(making) => Ok(making),
            Err(error) => {
                close(session).await;
                Err(error)
            }
        }
    }

    async fn look(
        repository: &Repository,
        session: &Arc<Session>,
        choice: lineage::Choice,
        options: &BackupOptions,
        monitor: &Arc<dyn Monitor>,
        started: Timestamp,
    ) -> Result<Self> {
        let (index, caught_up) = repository.caught_up_index().await?;
        let mut warnings: Vec<String> = caught_up
            .rebuilt
            .iter()
            .map(|(name, error)| {
                format!("{name} could not be read ({error}); its chunks were found through pack tables")
            })
            .collect();
        let absent = repository.leave_out_bad_packs(&index).await?;
        let quarantined = !repository.state().quarantined.is_empty();
        if !absent.is_empty() {
            warnings.push(format!(
                "{} packs are missing from the repository, or known to be damaged: what the source still has of them is stored again; run `everpack check`",
                absent.len()
            ));
        }
        index.stop_counting_damaged(true);
        let parent = match lineage::parent_of(repository, choice.id).await {
            Ok(parent) => parent,
            Err(error) => {
                warnings.push(format!("the parent backup cannot be read ({error}): every file is read again"));
                None
            }
        };
        Ok(Self {
            distrust: quarantined || !absent.is_empty() || repository.state().may_miss_chunks(),
            repository: repository.clone(),
            session: Arc::clone(session),
            index,
            choice,
            options: options.clone(),
            monitor: Arc::clone(monitor),
            started,
            parent,
            ahead: Vec::new(),
            spoiled: HashSet::new(),
            warnings,
            counts: plan::Counts::default(),
            stored: WriterTotals::default(),
            relied: HashSet::new(),
        })
    }

    /// Does something else while the session stays open.
    pub(crate) async fn while_alive<T>(&self, work: impl Future<Output = T>) -> T {
        Session::while_alive(Some(&self.session), work).await
    }

    /// Objects in this folder whose content is known by their name and that the parent has, in order: nobody need send them again.
    ///
    /// None where the repository has lost packs: then everything is looked at anew.
    pub(crate) async fn held_by_parent(&self, folder: &[u8]) -> Vec<TaeName> {
        self.held_in(self.parent.as_ref().map(|(_, manifest)| manifest), folder).await
    }

    /// The same, of what was stored ahead.
    pub(crate) async fn held_ahead(&self, folder: &[u8]) -> Vec<TaeName> {
        self.held_in(&self.ahead, folder).await
    }

    async fn held_in(&self, manifests: impl IntoIterator<Item = &Manifest>, folder: &[u8]) -> Vec<TaeName> {
        let mut held = Vec::new();
        if self.distrust || self.options.force {
            return held;
        }
        for manifest in manifests {
            let mut entries = EntryStream::new(&self.repository, &self.index, manifest);
            while let Some(segment) = entries.next().await {
                // A damaged segment costs copying its files again, not the backup.
                let Ok(segment) = segment else { continue };
                for entry in segment.iter().filter(|entry| entry.stable && entry.kind == EntryKind::File) {
                    let name = entry.path.strip_prefix(folder).and_then(TaeName::parse);
                    held.extend(name.filter(|_| !self.spoiled.contains(&entry.path)));
                }
            }
        }
        held.sort_unstable();
        held.dedup();
        held
    }

    /// Reads files that the repository has, of what was stored ahead or of the parent.
    pub(crate) fn reader(&self) -> Reader {
        let parent = self.parent.iter().map(|(_, manifest)| manifest);
        Reader::new(&self.repository, &self.index, self.ahead.iter().chain(parent).cloned().collect())
    }

    /// What the parent says of itself.
    pub(crate) fn parent_fact(&self, key: &str) -> Option<&str> {
        let (_, parent) = self.parent.as_ref()?;
        parent.facts.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// What makes the names of this backup's temporary things its own.
    pub(crate) fn token(&self) -> crate::id::SessionId {
        self.session.id()
    }

    /// Stores files of a source before the backup itself is known; those that cannot be read are left out. Gives what was stored.
    pub(crate) async fn store_ahead(&mut self, source: Box<dyn Source>) -> Result<Totals> {
        let options = BackupOptions { allow_partial: true, ..self.options.clone() };
        let outcome = self.store(source, options).await?;
        let (finished, relied) = outcome.stored;
        self.relied.extend(relied);
        self.stored += finished.totals;
        let Counts { files_read, bytes_read, bytes_new, .. } = outcome.counts;
        self.counts.files_read += files_read;
        self.counts.bytes_read += bytes_read;
        self.counts.bytes_new += bytes_new;
        if !finished.fragment.packs.is_empty() {
            self.repository.publish(&self.session, &self.index, finished.fragment).await?;
        }
        // What is damaged at the source is better had from the server, or told by the backup itself.
        self.spoiled.extend(outcome.problems.into_iter().map(|problem| problem.path.into_bytes()));
        if outcome.totals.files > 0 {
            self.ahead.push(Manifest {
                lineage: self.choice.id,
                lineage_name: self.choice.name.clone(),
                parent: None,
                started: self.started,
                finished: self.started,
                partial: true,
                source_kind: String::new(),
                source_location: String::new(),
                host: String::new(),
                tool: String::new(),
                tags: Vec::new(),
                facts: Vec::new(),
                totals: outcome.totals,
                segments: outcome.segments,
            });
        }
        Ok(outcome.totals)
    }

    /// Reads the source that is the backup, and commits it. The session is closed either way.
    pub(crate) async fn commit(mut self, source: Box<dyn Source>) -> Result<BackupReport> {
        let described = source.describe();
        let outcome = match self.store(source, self.options.clone()).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.give_up().await;
                return Err(error);
            }
        };
        let (commit, report) = self.conclude(described, outcome);
        match self.repository.commit(&self.session, &self.index, commit).await {
            Ok(id) => Ok(BackupReport { id, ..report }),
            Err(error) => {
                self.give_up().await;
                Err(error)
            }
        }
    }

    /// Gives the lock back at once; what was stored is found by the next run. If that fails too, the next backup fences us.
    pub(crate) async fn give_up(self) {
        close(self.session).await;
    }

    async fn store(&self, source: Box<dyn Source>, options: BackupOptions) -> Result<plan::Outcome> {
        let pack_target = u64::from(self.repository.config().pack_target);
        let uploads = usize::try_from((options.memory / 2 / pack_target).saturating_sub(1)).unwrap_or(1).clamp(1, 8);
        let writer = Writer::start(&self.repository, Arc::clone(&self.session), Arc::clone(&self.index), uploads);
        let job = plan::Job {
            repository: self.repository.clone(),
            index: Arc::clone(&self.index),
            parent: self.parent.clone(),
            ahead: self.ahead.clone(),
            spoiled: self.spoiled.clone(),
            options,
            monitor: Arc::clone(&self.monitor),
            distrust: self.distrust,
        };
        let runtime = tokio::runtime::Handle::current();
        let outcome = tokio::task::spawn_blocking(move || plan::run(&runtime, job, source, writer)).await;
        outcome.map_err(|error| Error::new(ErrorKind::Unavailable, format!("the backup's planner: {error}")))?
    }

    /// What is committed, and what is told about it.
    fn conclude(&mut self, described: SourceDescription, outcome: plan::Outcome) -> (Commit, BackupReport) {
        let (finished, mut relied) = outcome.stored;
        relied.extend(&self.relied);
        self.stored += finished.totals;
        let counts = outcome.counts;
        let (bytes_read, bytes_new) =
            (counts.bytes_read + self.counts.bytes_read, counts.bytes_new + self.counts.bytes_new);
        self.warnings.extend(described.warnings);
        if outcome.totals.files == 0 {
            let before = match &self.parent {
                Some((_, parent)) if parent.totals.files > 0 => {
                    format!("; the backup before has {}", parent.totals.files)
                }
                _ => String::new(),
            };
            self.warnings.push(format!("there is not one file in {}{before}: is it mounted?", described.location));
        }
        let manifest = Manifest {
            lineage: self.choice.id,
            lineage_name: self.choice.name.clone(),
            parent: self.parent.as_ref().map(|(id, _)| *id),
            started: self.started,
            finished: self.repository.environment().clock.now(),
            partial: outcome.partial,
            source_kind: described.kind.to_owned(),
            source_location: described.location,
            host: self.repository.environment().process.host.clone(),
            tool: crate::TOOL.to_owned(),
            tags: self.options.tags.clone(),
            facts: described.facts,
            totals: outcome.totals,
            segments: outcome.segments,
        };
        let summary = BackupSummary {
            lineage: manifest.lineage,
            lineage_name: manifest.lineage_name.clone(),
            started: manifest.started,
            finished: manifest.finished,
            partial: manifest.partial,
            totals: manifest.totals,
            read_bytes: bytes_read,
            new_bytes: bytes_new,
            stored_bytes: self.stored.stored_bytes,
            source_kind: manifest.source_kind.clone(),
            source_location: manifest.source_location.clone(),
            host: manifest.host.clone(),
            tags: manifest.tags.clone(),
        };
        let report = BackupReport {
            id: ObjectHash::from_bytes([0; 32]),
            lineage: self.choice.name.clone(),
            parent: manifest.parent,
            totals: outcome.totals,
            files_new: counts.files_new + outcome.from_ahead,
            files_changed: counts.files_changed,
            files_unchanged: counts.files_unchanged.saturating_sub(outcome.from_ahead),
            files_removed: counts.files_removed,
            files_read: counts.files_read + self.counts.files_read,
            bytes_read,
            bytes_new,
            bytes_reused: outcome.totals.bytes.saturating_sub(bytes_new),
            bytes_stored: self.stored.stored_bytes,
            chunks_new: self.stored.chunks,
            partial: outcome.partial,
            problems: outcome.problems,
            problem_count: outcome.problem_count,
            skipped: outcome.skipped,
            warnings: std::mem::take(&mut self.warnings),
            duration: Duration::ZERO,
        };
        let parent = outcome.took_over.then_some(manifest.parent).flatten();
        (Commit { manifest, summary, finished, relied, parent }, report)
    }
}

async fn close(session: Arc<Session>) {
    if let Some(session) = Arc::into_inner(session) {
        let _closed = session.close().await;
    }
}
