//! Manifests across, and the entry that makes the backups exist at the target.
//!
//! The entry is the only commit point. Just before it the plan is held against the state that the entry will follow: packs that look-ups
//! answered from must still be live (rule *revalidate-commit*), backups whose segments were taken for whole must still be listed (rule
//! *revalidate-parent*). If not, nothing is said, and the caller plans again.

use std::collections::HashSet;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::copy::Copier;
use super::plan::{Fate, Plan};
use super::sides::Sides;
use super::{ReplicateOptions, ReplicateReport};
use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{ObjectHash, ObjectKind, ObjectName};
use crate::index::Index;
use crate::repo::{BackupInfo, Repository, Rule};
use crate::store::StoredObject;

/// Manifests on their way at once.
const MANIFESTS_AT_ONCE: usize = 8;

/// Commits the whole backups of a round. False, and nothing said, if what the plan relied on is not live any more.
pub(super) async fn commit(
    sides: &mut Sides,
    copier: &mut Copier,
    plan: &Plan,
    round: &[BackupInfo],
    options: &ReplicateOptions,
    report: &mut ReplicateReport,
) -> Result<bool> {
    let whole: Vec<&BackupInfo> =
        round.iter().zip(&plan.fates).filter(|(_, fate)| **fate == Fate::Whole).map(|(backup, _)| backup).collect();
    if whole.is_empty() {
        return Ok(true);
    }
    let (origin, target) = (sides.origin.clone(), sides.target.clone());
    let session = sides.session()?;
    let here = target.state();
    let new = whole.iter().filter(|backup| !here.backups.contains_key(&backup.id)).map(|backup| backup.id);
    let mut stored: HashSet<ObjectHash> = stream::iter(new.collect::<Vec<_>>())
        .map(|id| carry(&origin, &target, session.suffix(), id))
        .buffer_unordered(MANIFESTS_AT_ONCE)
        .try_collect()
        .await?;

    let mut rest = whole.as_slice();
    while !rest.is_empty() {
        let (group, later) = rest.split_at(in_one_entry(rest));
        if !say(sides, copier, plan, group, &mut stored, options, report).await? {
            return Ok(false);
        }
        rest = later;
    }
    Ok(true)
}

/// How many of these fit into one entry. Those of one entry are listed by their times, so an entry ends where a clock was set back: the
/// replica lists them in the origin's order.
fn in_one_entry(backups: &[&BackupInfo]) -> usize {
    let goes_on = |pair: &[&BackupInfo]| pair[0].summary.started < pair[1].summary.started;
    backups.windows(2).take_while(|pair| goes_on(pair)).count() + 1
}

/// Says one entry. False, and nothing said, if what the plan relied on is not live any more.
async fn say(
    sides: &mut Sides,
    copier: &mut Copier,
    plan: &Plan,
    group: &[&BackupInfo],
    stored: &mut HashSet<ObjectHash>,
    options: &ReplicateOptions,
    report: &mut ReplicateReport,
) -> Result<bool> {
    let (origin, target) = (sides.origin.clone(), sides.target.clone());
    let session = sides.session()?;
    let mut is_stale = false;
    let mut sent: Vec<ObjectHash> = Vec::new();
    let said = session
        .say(async |state: &LogState| {
            sent.clear();
            if is_outdated(&target, &sides.to, plan, state) {
                is_stale = true;
                return Err(Error::new(ErrorKind::Busy, "what this run relied on at the target was removed meanwhile"));
            }
            let mut fragments = copier.pending().to_vec();
            let mut committed = Vec::new();
            let mut unforgotten = Vec::new();
            for backup in group {
                match state.backups.get(&backup.id) {
                    // It was only made whole, or another replication was first.
                    Some(there) if there.forgotten.is_none() => continue,
                    Some(_) if options.again => unforgotten.push(backup.id),
                    Some(_) => continue,
                    None if state.purged.contains(&backup.id) && !options.again => continue,
                    None => {
                        // It was forgotten here before, and purged since.
                        if !stored.contains(&backup.id) {
                            stored.insert(carry(&origin, &target, session.suffix(), backup.id).await?);
                        }
                        let kind = ObjectKind::Manifest;
                        committed.push(Record::BackupCommitted {
                            manifest: ObjectName { kind, hash: backup.id, session: session.suffix() },
                            fragments: std::mem::take(&mut fragments),
                            summary: backup.summary.clone(),
                        });
                    }
                }
                sent.push(backup.id);
            }
            let mut records = Vec::new();
            if !fragments.is_empty() {
                records.push(Record::FragmentsPublished { fragments });
            }
            records.extend(committed);
            if !unforgotten.is_empty() {
                records.push(Record::BackupsUnforgotten { backups: unforgotten });
            }
            if records.is_empty() {
                records.push(Record::SessionRefreshed);
            }
            Ok(records)
        })
        .await;
    if is_stale {
        return Ok(false);
    }
    said?;
    copier.forget_pending();
    sides.was_heard().await;
    let sent: Vec<&BackupInfo> = group.iter().copied().filter(|backup| sent.contains(&backup.id)).collect();
    tell_late_arrivals(sides, &sent, report);
    sent.into_iter().for_each(|backup| report.send(backup));
    Ok(true)
}

/// The log of the target lists what arrived last as the latest.
fn tell_late_arrivals(sides: &Sides, sent: &[&BackupInfo], report: &mut ReplicateReport) {
    let listed = sides.target.backups();
    let is_late = |backup: &&&BackupInfo| {
        let before = listed.iter().take_while(|there| there.id != backup.id);
        before.into_iter().any(|there| {
            there.summary.lineage == backup.summary.lineage && there.summary.started > backup.summary.started
        })
    };
    if let Some(late) = sent.iter().find(is_late) {
        let remark = format!(
            "older backups of lineage {} arrived after newer ones: at {} `latest` means the one that arrived last, so name them by id",
            late.summary.lineage_name,
            sides.target.location()
        );
        if !report.remarks.contains(&remark) {
            report.remarks.push(remark);
        }
    }
}

/// True if something that the plan counted on does not count in this state.
fn is_outdated(target: &Repository, index: &Index, plan: &Plan, state: &LogState) -> bool {
    let pack_lost = target.keeps(Rule::RevalidateCommit)
        && plan.relied.iter().any(|number| index.pack(*number).is_none_or(|pack| state.is_dead(&pack.name)));
    // A listed backup is whole unless a pack was found damaged.
    let backup_lost = target.keeps(Rule::RevalidateParent)
        && !plan.leaned.is_empty()
        && (!plan.leaned.iter().all(|id| state.is_listed(id)) || !state.quarantined.is_empty());
    pack_lost || backup_lost
}

/// Copies a manifest byte for byte under a name of our session.
async fn carry(
    origin: &Repository,
    target: &Repository,
    session: crate::id::SessionId,
    id: ObjectHash,
) -> Result<ObjectHash> {
    let state = origin.state();
    let Some(backup) = state.backups.get(&id) else {
        return Err(Error::new(
            ErrorKind::Busy,
            format!("backup {id}: was purged at the origin meanwhile; run it again"),
        ));
    };
    let stored = origin.get_named(&backup.manifest).await?;
    let name = ObjectName { kind: ObjectKind::Manifest, hash: id, session };
    target.store().put_new(StoredObject::Named(name), vec![stored]).await?;
    Ok(id)
}

/// Ends the sessions; both logs remember how far the other was, so that one that goes backwards is noticed.
pub(super) async fn conclude(sides: &mut Sides, copier: &mut Copier, report: &mut ReplicateReport) -> Result<()> {
    let session = sides.session()?;
    let (origin_id, seen) = (sides.origin.id(), sides.origin.state());
    let complete = report.complete;
    session
        .say(async |state: &LogState| {
            let mut records = Vec::new();
            if !copier.pending().is_empty() {
                records.push(Record::FragmentsPublished { fragments: copier.pending().to_vec() });
            }
            if let Some(head_hash) = seen.head_hash.filter(|_| complete) {
                records.push(Record::ReplicaSynced { from: origin_id, head: seen.head, head_hash });
            }
            records.extend(session.closing_records(state).await?);
            Ok(records)
        })
        .await?;
    copier.forget_pending();
    session.unlock().await;
    sides.session = None;
    crate::index::catch_up(&sides.to, sides.target.store(), &sides.target.state(), &[]).await?;
    let Some(session) = sides.origin_session.take() else { return Ok(()) };
    let (target_id, reached) = (sides.target.id(), sides.target.state());
    let said = session
        .say(async |state: &LogState| {
            let mut records = Vec::new();
            if let Some(head_hash) = reached.head_hash {
                records.push(Record::ReplicaSynced { from: target_id, head: reached.head, head_hash });
            }
            records.extend(session.closing_records(state).await?);
            Ok(records)
        })
        .await;
    session.unlock().await;
    if let Err(error) = said {
        report.remarks.push(format!(
            "{} could not note how far the replica is ({error}): that the replica went backwards would not be noticed",
            sides.origin.location()
        ));
    }
    Ok(())
}
