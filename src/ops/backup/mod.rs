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

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use plan::Problem;

use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::Purpose;
use crate::format::log_state::LogState;
use crate::id::ObjectHash;
use crate::index::Index;
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{BackupSummary, Commit, Manifest, Repository, Rule, Session, SessionRequest, Totals, Writer};
use crate::source::{Skipped, Source};
use crate::units::MIB;

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
    let started = repository.environment().clock.now();
    monitor.event(Event::Begin { phase: Phase::Opening, bytes: 0, items: 0 });
    repository.refresh().await?;
    let (source, choice) = lineage::choose(repository, source, options.lineage.as_deref()).await?;
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
    let outcome = match run(repository, &session, source, &choice, options, &monitor, started).await {
        Ok((commit, report, index)) => {
            repository.commit(&session, &index, commit).await.map(|id| BackupReport { id, ..report })
        }
        Err(error) => Err(error),
    };
    let mut report = match outcome {
        Ok(report) => report,
        Err(error) => {
            // The lock is given back at once; if that fails too, the next backup fences us.
            if let Some(session) = Arc::into_inner(session) {
                let _closed = session.close().await;
            }
            return Err(error);
        }
    };
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

/// Everything between the opening of the session and the commit.
async fn run(
    repository: &Repository,
    session: &Arc<Session>,
    source: Box<dyn Source>,
    choice: &lineage::Choice,
    options: &BackupOptions,
    monitor: &Arc<dyn Monitor>,
    started: crate::clock::Timestamp,
) -> Result<(Commit, BackupReport, Arc<Index>)> {
    let (index, caught_up) = repository.caught_up_index().await?;
    let mut warnings: Vec<String> = caught_up
        .rebuilt
        .iter()
        .map(|(name, error)| format!("{name} could not be read ({error}); its chunks were found through pack tables"))
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
    let parent = lineage::parent_of(repository, choice.id).await;
    let parent = match parent {
        Ok(parent) => parent,
        Err(error) => {
            warnings.push(format!("the parent backup cannot be read ({error}): every file is read again"));
            None
        }
    };
    let describe = source.describe();
    warnings.extend(describe.warnings.iter().cloned());
    let uploads = usize::try_from((options.memory / 2 / u64::from(repository.config().pack_target)).saturating_sub(1));
    let uploads = uploads.unwrap_or(1).clamp(1, 8);
    // Where a known pack is damaged, entries are taken over only if every chunk is found elsewhere.
    let distrust = quarantined || !absent.is_empty() || repository.state().may_miss_chunks();
    let writer = Writer::start(repository, Arc::clone(session), Arc::clone(&index), uploads);
    let job = plan::Job {
        repository: repository.clone(),
        index: Arc::clone(&index),
        parent: parent.clone(),
        options: options.clone(),
        monitor: Arc::clone(monitor),
        distrust,
    };
    let runtime = tokio::runtime::Handle::current();
    let outcome = tokio::task::spawn_blocking(move || plan::run(&runtime, job, source, writer)).await;
    let outcome =
        outcome.map_err(|error| Error::new(ErrorKind::Unavailable, format!("the backup's planner: {error}")))??;

    let finished_at = repository.environment().clock.now();
    let counts = outcome.counts;
    let (finished, relied) = outcome.stored;
    let totals = finished.totals;
    let partial = outcome.partial;
    let manifest = Manifest {
        lineage: choice.id,
        lineage_name: choice.name.clone(),
        parent: parent.as_ref().map(|(id, _)| *id),
        started,
        finished: finished_at,
        partial,
        source_kind: describe.kind.to_owned(),
        source_location: describe.location.clone(),
        host: repository.environment().process.host.clone(),
        tool: crate::TOOL.to_owned(),
        tags: options.tags.clone(),
        facts: describe.facts.clone(),
        totals: outcome.totals,
        segments: outcome.segments,
    };
    let summary = BackupSummary {
        lineage: choice.id,
        lineage_name: choice.name.clone(),
        started,
        finished: finished_at,
        partial,
        totals: outcome.totals,
        read_bytes: counts.bytes_read,
        new_bytes: counts.bytes_new,
        stored_bytes: totals.stored_bytes,
        source_kind: manifest.source_kind.clone(),
        source_location: manifest.source_location.clone(),
        host: manifest.host.clone(),
        tags: options.tags.clone(),
    };
    let report = BackupReport {
        id: ObjectHash::from_bytes([0; 32]),
        lineage: choice.name.clone(),
        parent: manifest.parent,
        totals: outcome.totals,
        files_new: counts.files_new,
        files_changed: counts.files_changed,
        files_unchanged: counts.files_unchanged,
        files_removed: counts.files_removed,
        files_read: counts.files_read,
        bytes_read: counts.bytes_read,
        bytes_new: counts.bytes_new,
        bytes_reused: outcome.totals.bytes.saturating_sub(counts.bytes_new),
        bytes_stored: totals.stored_bytes,
        chunks_new: totals.chunks,
        partial,
        problems: outcome.problems,
        problem_count: outcome.problem_count,
        skipped: outcome.skipped,
        warnings,
        duration: Duration::ZERO,
    };
    let parent = outcome.took_over.then_some(manifest.parent).flatten();
    Ok((Commit { manifest, summary, finished, relied, parent }, report, index))
}
