//! Replicate: bring another repository of the family to hold chosen backups.
//!
//! - [`choose`]: which backups, and what of them the target may be sent.
//! - [`sides`]: the two repositories, their indexes and our sessions in both; logs that went backwards.
//! - [`plan`]: which packs of the origin hold what the target lacks, and which backups are whole at the target.
//! - [`copy`]: packs across, verified in passing, at a pace; fragments published at checkpoints.
//! - [`commit`]: manifests, and the entry that makes the backups exist at the target.
//! - [`mod@prove`]: do both sides hold the same?
//! - [`roots`]: one hash over a set, and which part of it differs.
//!
//! Packs travel unchanged, so what arrives is compared with its name and nothing is decoded. Plan and copy take turns until a plan finds
//! nothing more to copy: that last plan is the proof that every chunk of a backup is live at the target, whatever the copies said.
//!
//! Invariant: a backup is committed at the target only if every chunk that it names was found in the target's own index in packs that are
//! live in the state which the entry follows (rule *revalidate-commit*), or stands in a segment of a backup that is listed there in that state
//! (rule *revalidate-parent*).
//!
//! If we crash here: the target lists nothing new. Packs of published fragments are live there, so the next run finds their chunks and
//! sends only the rest; packs after the last checkpoint are orphans of a dead session.
//!
//! Safe to run concurrently with: everything, on both sides, other replications into the same target included. Our session at the origin
//! keeps what we read; without one (the origin cannot be written) a pack that vanishes makes us look again.

mod choose;
mod commit;
mod copy;
mod pace;
mod plan;
mod prove;
mod roots;
mod sides;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use choose::{Selection, Skipped, Why};
pub use prove::{Missing, ProveReport, SetProof, Side, prove};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{ObjectHash, RepositoryId};
use crate::ops::blocking;
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{BackupInfo, Repository};
use crate::units::MIB;
use choose::Choice;
use copy::Copier;
use plan::{Fate, Plan, Todo};
use sides::Sides;

/// Backups that are planned and committed together: what is remembered of them is bounded.
const ROUND: usize = 256;
/// So often the target may lose, between plan and commit, what a plan relied on.
const ATTEMPTS: usize = 16;
/// The plan is made again when the origin's log moved on while something looked missing there; at most so often.
const REFRESHES: usize = 4;
/// Findings kept in a report.
const FINDINGS_MOST: usize = 1000;

/// How a replication is done.
#[derive(Clone, Debug)]
pub struct ReplicateOptions {
    /// Which backups.
    pub selection: Selection,
    /// Also those that the target once had and forgot.
    pub again: bool,
    /// Go on although the origin's log is not the one that the target was filled from.
    pub accept_rollback: bool,
    /// Bytes of packs a second, over all transfers.
    pub limit_rate: Option<u64>,
    /// Packs on their way at once, as far as the memory allows.
    pub transfers: usize,
    /// Copy only shard i of n (from 1) of the packs; whatever is complete afterwards is committed.
    pub shard: Option<(u32, u32)>,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Bytes of memory to stay below.
    pub memory: u64,
}

impl Default for ReplicateOptions {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            again: false,
            accept_rollback: false,
            limit_rate: None,
            transfers: 8,
            shard: None,
            dry_run: false,
            memory: 256 * MIB,
        }
    }
}

impl ReplicateOptions {
    fn validate(&self) -> Result<()> {
        if let Some((shard, shards)) = self.shard
            && !(1..=shards).contains(&shard)
        {
            let message = format!("replicate shard {shard}/{shards}: shards are numbered from 1 to their number");
            return Err(Error::invalid(message));
        }
        if self.limit_rate == Some(0) || self.transfers == 0 {
            return Err(Error::invalid(
                "replicate: with no bytes a second, or no transfers, nothing would ever arrive",
            ));
        }
        Ok(())
    }
}

/// A backup that was sent.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Sent {
    /// Its id, the same on both sides.
    pub id: ObjectHash,
    /// Its lineage's name.
    pub lineage: String,
}

/// Damage that kept something from being sent, or that was met and went around.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ReplicateFinding {
    /// What is damaged, or the backup that could not be sent.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// What heals it.
    pub heal: String,
}

/// What a replication did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ReplicateReport {
    /// Where the backups came from.
    pub origin: RepositoryId,
    /// The place of it.
    pub origin_location: String,
    /// Where they went.
    pub target: RepositoryId,
    /// The place of it.
    pub target_location: String,
    /// Nothing was done: this is what would be.
    pub dry_run: bool,
    /// The target holds every chosen backup now, except those that it forgot itself.
    pub complete: bool,
    /// Sent, oldest first; in a dry run: would be sent.
    pub sent: Vec<Sent>,
    /// Chosen backups that were there already.
    pub present: u64,
    /// Chosen, and not sent.
    pub skipped: Vec<Skipped>,
    /// Packs copied; in a dry run: to be copied.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// What is damaged; at most a thousand.
    pub findings: Vec<ReplicateFinding>,
    /// How many there were.
    pub finding_count: u64,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

impl ReplicateReport {
    fn new(origin: &Repository, target: &Repository, dry_run: bool) -> Self {
        Self {
            origin: origin.id(),
            origin_location: origin.location(),
            target: target.id(),
            target_location: target.location(),
            dry_run,
            complete: true,
            sent: Vec::new(),
            present: 0,
            skipped: Vec::new(),
            packs: 0,
            bytes: 0,
            chunks: 0,
            findings: Vec::new(),
            finding_count: 0,
            remarks: Vec::new(),
            duration: Duration::ZERO,
        }
    }

    fn find(&mut self, object: String, what: String, heal: &str) {
        self.finding_count += 1;
        if self.findings.len() < FINDINGS_MOST {
            self.findings.push(ReplicateFinding { object, what, heal: heal.to_owned() });
        }
    }

    fn skip(&mut self, backup: &BackupInfo, why: Why) {
        let lineage = backup.summary.lineage_name.clone();
        self.skipped.push(Skipped { id: backup.id, lineage, why });
    }

    fn send(&mut self, backup: &BackupInfo) {
        self.sent.push(Sent { id: backup.id, lineage: backup.summary.lineage_name.clone() });
    }
}

/// Sends the chosen backups of `origin` to `target`, a repository of the same family.
///
/// Damage at the origin does not stop it: what can be sent is sent, and the report names the rest. Fails if the two are not of one family,
/// if the origin's log went backwards since the last time, or if either side cannot be reached; then nothing is lost that arrived before a
/// checkpoint.
pub async fn replicate(
    origin: &Repository,
    target: &Repository,
    options: &ReplicateOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<ReplicateReport> {
    let begun = Instant::now();
    options.validate()?;
    check_family(origin, target)?;
    let mut report = ReplicateReport::new(origin, target, options.dry_run);
    monitor.event(Event::Begin { phase: Phase::Opening, bytes: 0, items: 0 });
    let mut sides = Sides::open(origin, target, options, &mut report).await?;
    let mut copier = Copier::new(options);
    let outcome = run(&mut sides, &mut copier, options, &monitor, &mut report).await;
    if outcome.is_err() {
        // What arrived is found by the next run; the sessions end now instead of being fenced later. Whatever fails here was lost before.
        let _published = copier.publish(&mut sides).await;
        sides.abandon().await;
    }
    outcome?;
    report.duration = begun.elapsed();
    Ok(report)
}

/// Packs travel only within a family.
fn check_family(origin: &Repository, target: &Repository) -> Result<()> {
    if origin.id() == target.id() {
        let message = format!(
            "replicate {} to {}: both are repository {}, or one is a plain copy of the other: a replica has an id and a log of its own; \
             name an empty place as the target",
            origin.location(),
            target.location(),
            origin.id()
        );
        return Err(Error::invalid(message));
    }
    let (ours, theirs) = (origin.config().family, target.config().family);
    if ours != theirs {
        let message = format!(
            "replicate {} to {}: the target is of family {theirs}, the origin of family {ours}: their packs do not fit together. Name an \
             empty place as the target (it becomes a member of the family), or back the source up into both",
            origin.location(),
            target.location()
        );
        return Err(Error::invalid(message));
    }
    Ok(())
}

async fn run(
    sides: &mut Sides,
    copier: &mut Copier,
    options: &ReplicateOptions,
    monitor: &Arc<dyn Monitor>,
    report: &mut ReplicateReport,
) -> Result<()> {
    let choice = Choice::make(sides, options)?;
    report.present = choice.present;
    report.skipped = choice.skipped;
    for round in choice.wanted.chunks(ROUND) {
        send_round(sides, copier, round, options, monitor, report).await?;
    }
    copier.report(report);
    sides.report_avoided(report);
    if !options.dry_run {
        commit::conclude(sides, copier, report).await?;
    }
    monitor.event(Event::End { phase: Phase::Replicating });
    Ok(())
}

/// Plans, copies and commits some backups, again and again until nothing more can be copied and what arrived is committed.
async fn send_round(
    sides: &mut Sides,
    copier: &mut Copier,
    round: &[BackupInfo],
    options: &ReplicateOptions,
    monitor: &Arc<dyn Monitor>,
    report: &mut ReplicateReport,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let mut plan = loop {
            let plan = plan_round(sides, round, monitor).await?;
            let Todo { packs, avoided } = plan.todo(sides, copier, options.shard);
            if options.dry_run {
                copier.count(&packs);
                break plan;
            }
            if !packs.is_empty() {
                let bytes = packs.iter().map(|(_, pack)| pack.size).sum();
                monitor.event(Event::Begin { phase: Phase::Replicating, bytes, items: packs.len() as u64 });
                copier.copy(sides, packs, monitor).await?;
                if options.shard.is_some() {
                    // Other shards look for them.
                    copier.publish(sides).await?;
                }
                sides.catch_up(copier.pending(), copier.met_damage()).await?;
            } else if !avoided {
                break plan;
            }
        };
        if !options.dry_run {
            let waits = report.skipped.iter().any(|skipped| skipped.why == Why::Waiting);
            plan.keep_order(waits);
        }
        if options.dry_run || commit::commit(sides, copier, &plan, round, options, report).await? {
            tell_fates(sides, &plan, round, options, report);
            return Ok(());
        }
        // What the plan relied on was retired meanwhile: look everything up again.
        sides.catch_up(copier.pending(), false).await?;
    }
    let message = format!(
        "replicate to {}: what this run relied on there was removed {ATTEMPTS} times while it ran; nothing was committed, run it again when \
         no prune runs there",
        sides.target.location()
    );
    Err(Error::new(ErrorKind::Busy, message))
}

/// A plan in which nothing is called missing before a refresh shows that the origin's log has not moved.
async fn plan_round(sides: &mut Sides, round: &[BackupInfo], monitor: &Arc<dyn Monitor>) -> Result<Plan> {
    monitor.event(Event::Begin { phase: Phase::Planning, bytes: 0, items: round.len() as u64 });
    for _ in 0..REFRESHES {
        let head = sides.origin.state().head;
        let plan = plan::make(sides, round, monitor).await?;
        if !plan.fates.iter().any(|fate| matches!(fate, Fate::Lost(_))) {
            return Ok(plan);
        }
        sides.origin.refresh().await?;
        if sides.origin.state().head == head {
            return Ok(plan);
        }
        sides.catch_up_origin().await?;
    }
    plan::make(sides, round, monitor).await
}

/// What became of those that were not committed; in a dry run: what would become of all.
fn tell_fates(
    sides: &Sides,
    plan: &Plan,
    round: &[BackupInfo],
    options: &ReplicateOptions,
    report: &mut ReplicateReport,
) {
    let state = sides.target.state();
    for (backup, fate) in round.iter().zip(&plan.fates) {
        let is_listed = state.is_listed(&backup.id);
        match fate {
            Fate::Whole | Fate::Coming if options.dry_run => {
                if !is_listed {
                    report.send(backup);
                }
            }
            Fate::Whole => {}
            Fate::Coming => {
                report.complete = false;
                report.skip(backup, Why::Waiting);
            }
            Fate::Gone => report.skip(backup, Why::Gone),
            Fate::Lost(what) => {
                report.complete = false;
                report.skip(backup, Why::Damaged);
                let object = format!("backup {} of {}", backup.id, backup.summary.lineage_name);
                let act = if is_listed { "damaged at the target and not made whole" } else { "not sent" };
                let heal = "run `everpack check --read-data` and `everpack repair` at the origin, then replicate again";
                report.find(object, format!("{act}: {what}"), heal);
            }
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "replicate: stopped on request; what arrived is not sent again")
}
