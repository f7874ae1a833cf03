//! Repair: heals what check and scrub find, as far as something whole is left of it, here or in a replica.
//!
//! - [`log`]: `config` and log entries out of a plain copy, proved by the chain. Works on stores: without them no repository opens.
//! - [`states`]: state objects that are damaged, false or named by nobody.
//! - [`fragments`]: index fragments built anew from pack tables.
//! - [`manifests`]: manifests out of a replica.
//! - [`packs`]: damaged and missing packs, and chunks that no live pack holds.
//! - [`workshop`]: where whole chunks are packed anew, and the entry that puts the new packs in the place of the bad ones.
//! - [`donor`]: a replica, and what can be had of it.
//! - [`mod@salvage`]: a new repository out of ruins: packs without log, index or config.
//!
//! *Invariant*: repair never deletes the only copy of anything, and never makes anything worse. What is damaged is quarantined in the same log
//! entry that publishes what was saved of it; a pack that is only missing stays where it is in the log, unless nothing is lost with it: it may
//! come back with a disk that was not mounted. Everything that is put in its place was decoded and proved by its id first.
//!
//! If we crash here: packs, fragments or manifests that nobody names (as after a killed backup), and an open session that the next writer
//! fences. The next repair goes on.
//!
//! Safe to run concurrently with: backups, restores, checks, prunes, other repairs. Names are new, and every entry is decided against the state
//! that it follows.

mod donor;
mod fragments;
mod log;
mod manifests;
mod packs;
mod salvage;
mod states;
mod workshop;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use log::{LogReport, repair_log};
pub use salvage::{SalvageOptions, SalvageReport, salvage};

use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::{Purpose, Record};
use crate::format::log_state::LogState;
use crate::log::CHECKPOINT_EVERY;
use crate::ops::check::{CheckOptions, CheckReport, Finding, Severity, check};
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{Repository, Session, SessionRequest};
use crate::units::MIB;
use donor::Donor;
use workshop::Workshop;

/// What was healed lets more be seen: a list of files that can be read again names more chunks. At most so often.
const ROUNDS: usize = 6;
/// Healed objects kept by name.
const HEALED_MOST: usize = 1000;

/// How a repair is done.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// Look for everything and change nothing.
    pub dry_run: bool,
    /// Read every pack first; without it only what is known to be damaged, or looks so, is read.
    pub read_data: bool,
    /// Bytes of memory to stay below.
    pub memory: u64,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self { dry_run: false, read_data: false, memory: 256 * MIB }
    }
}

/// Something that was put right; in a dry run, that would be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Healed {
    /// What.
    pub object: String,
    /// What was wrong with it.
    pub what: String,
    /// How it was healed.
    pub how: String,
}

/// What a repair did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RepairReport {
    /// Nothing was changed: `healed` is what would be.
    pub dry_run: bool,
    /// What was put right, at most a thousand.
    pub healed: Vec<Healed>,
    /// How many there were.
    pub healed_count: u64,
    /// What is still wrong, with the files that it touches.
    pub remaining: Vec<Finding>,
    /// How many there are.
    pub remaining_count: u64,
    /// Chunks that were packed anew.
    pub chunks_saved: u64,
    /// Of them, or in whole packs, so much came from the replica.
    pub bytes_fetched: u64,
    /// Bytes by which the repository grew.
    pub bytes_stored: u64,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

impl RepairReport {
    fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            healed: Vec::new(),
            healed_count: 0,
            remaining: Vec::new(),
            remaining_count: 0,
            chunks_saved: 0,
            bytes_fetched: 0,
            bytes_stored: 0,
            remarks: Vec::new(),
            duration: Duration::ZERO,
        }
    }

    /// Takes in what was healed in the log before the repository could be opened.
    pub fn add_log(&mut self, log: LogReport) {
        self.healed_count += log.healed.len() as u64;
        self.healed.splice(0..0, log.healed);
        self.remarks.extend(log.remarks);
    }

    fn add(&mut self, object: impl Into<String>, what: impl Into<String>, how: impl Into<String>) {
        self.healed_count += 1;
        if self.healed.len() < HEALED_MOST {
            self.healed.push(Healed { object: object.into(), what: what.into(), how: how.into() });
        }
    }
}

/// Heals what can be healed. `from` is a replica: another repository of the same family, or a copy of this one.
///
/// Fails if the log is damaged ([`repair_log`] comes first then), if the repository cannot be written, or if the replica fails while it is
/// needed. What cannot be healed is in the report.
pub async fn repair(
    repository: &Repository,
    from: Option<&Repository>,
    options: &RepairOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<RepairReport> {
    let begun = Instant::now();
    let mut report = RepairReport::new(options.dry_run);
    monitor.event(Event::Begin { phase: Phase::Opening, bytes: 0, items: 0 });
    if let Some(from) = from
        && from.config().family != repository.config().family
    {
        let message = format!(
            "repair from {}: it is of family {}, this repository of {}: none of its packs fits here",
            from.location(),
            from.config().family,
            repository.config().family
        );
        return Err(Error::invalid(message));
    }
    let session = if options.dry_run { None } else { Some(open_session(repository).await?) };
    let outcome = run(repository, session.as_ref(), from, options, &monitor, &mut report).await;
    if let Some(session) = session {
        match &outcome {
            Ok(ending) => {
                for name in repository.damaged_ledger_parts().await? {
                    report.add(name.to_string(), "damaged", "taken out of use: its packs count as not read");
                }
                end(repository, session, *ending).await?;
            }
            // A session that cannot be closed is fenced by the next writer of this host.
            Err(_) => drop(session.close().await),
        }
    }
    outcome?;
    monitor.event(Event::End { phase: Phase::Repairing });
    report.duration = begun.elapsed();
    Ok(report)
}

async fn open_session(repository: &Repository) -> Result<Session> {
    let request = SessionRequest::for_work(Purpose::Repair);
    Session::open(repository, request).await
}

/// What the entry that closes the session is to say.
#[derive(Clone, Copy, Debug, Default)]
struct Ending {
    /// A state object made now is wanted.
    fresh_state: bool,
    /// Some chunk that a backup names is whole nowhere.
    lost: bool,
}

/// Closes the session; the entry also takes damaged parts of the scrub ledger out of use, and tells backups whether entries may be taken over
/// unseen.
async fn end(repository: &Repository, session: Session, ending: Ending) -> Result<()> {
    let closing = &session;
    let closed = async {
        let damaged = repository.damaged_ledger_parts().await?;
        closing
            .say(async |state: &LogState| {
                let mut records = closing.closing_records(state).await?;
                let has_state = records.iter().any(|record| matches!(record, Record::StateCheckpointed { .. }));
                if ending.fresh_state && !has_state {
                    records.push(repository.chain().store_state(state).await?);
                }
                let objects: Vec<_> =
                    damaged.iter().filter(|name| !state.retired.contains_key(name)).copied().collect();
                if !objects.is_empty() {
                    records.push(Record::ObjectsRetired { objects, superseded: Vec::new(), added: Vec::new() });
                }
                records.extend(state.note_missing_chunks(ending.lost));
                Ok(records)
            })
            .await
    };
    let closed = closed.await;
    session.unlock().await;
    closed
}

/// Everything between the opening of the session and its end.
async fn run(
    repository: &Repository,
    session: Option<&Session>,
    from: Option<&Repository>,
    options: &RepairOptions,
    monitor: &Arc<dyn Monitor>,
    report: &mut RepairReport,
) -> Result<Ending> {
    let states_healed = states::heal(repository, session.is_some(), report).await?;
    let donor = match from {
        Some(from) => Some(Donor::open(from, session.is_some(), report).await?),
        None => None,
    };
    let outcome = heal(repository, session, donor.as_ref(), options, monitor, report).await;
    if let Some(donor) = donor {
        donor.close().await;
    }
    let ending = outcome?;
    Ok(Ending { fresh_state: states_healed || ending.fresh_state || lacks_state(repository).await?, ..ending })
}

/// True if opening the repository folds a long log.
async fn lacks_state(repository: &Repository) -> Result<bool> {
    use futures::TryStreamExt;
    let mut listing = repository.store().list(crate::store::Folder::LogState);
    Ok(repository.state().head >= CHECKPOINT_EVERY && listing.try_next().await?.is_none())
}

/// Heals round by round until nothing more can be healed.
async fn heal(
    repository: &Repository,
    session: Option<&Session>,
    donor: Option<&Donor>,
    options: &RepairOptions,
    monitor: &Arc<dyn Monitor>,
    report: &mut RepairReport,
) -> Result<Ending> {
    fragments::heal(repository, session, report).await?;
    let moved = manifests::heal(repository, session, donor, report).await?;
    let mut looking = CheckOptions {
        read_data: options.read_data,
        ledger: !options.dry_run,
        memory: options.memory,
        ..CheckOptions::default()
    };
    for round in 1.. {
        let found = check(repository, &looking, Arc::clone(monitor)).await?;
        monitor.event(Event::Begin { phase: Phase::Repairing, bytes: 0, items: found.suspects.packs.len() as u64 });
        report.remarks.extend(found.remarks.iter().cloned());
        let before = report.healed_count;
        let mut workshop = Workshop::new(repository, session)?;
        let lost = packs::heal(&mut workshop, donor, &found.suspects, monitor, report).await?;
        let progress = report.healed_count > before || workshop.published();
        report.chunks_saved += workshop.chunks;
        report.bytes_stored += workshop.stored_bytes;
        if options.dry_run || !progress || round == ROUNDS {
            finish(report, found, &lost);
            // An older release learns from the state where a manifest lies now.
            return Ok(Ending { fresh_state: moved, lost: !lost.is_empty() });
        }
        looking.read_data = false;
    }
    unreachable!("the loop ends at the last round")
}

/// What is left of the findings of the last look.
fn finish(report: &mut RepairReport, found: CheckReport, lost: &[String]) {
    let counted = found.findings.len() as u64;
    let healed = |finding: &Finding| {
        report.dry_run
            && !lost.contains(&finding.object)
            && report.healed.iter().any(|healed| healed.object == finding.object)
    };
    let remaining: Vec<_> =
        found.findings.into_iter().filter(|finding| finding.severity > Severity::Note && !healed(finding)).collect();
    report.remaining_count = remaining.len() as u64 + (found.finding_count - counted);
    report.remaining = remaining;
}

/// `missing`, or what is wrong.
fn describe(error: &Error) -> String {
    if error.kind() == ErrorKind::NotFound { "missing".to_owned() } else { error.to_string() }
}
