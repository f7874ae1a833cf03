//! Deletes what was retired once nobody can be reading it (rule *wait-for-sessions*), and what interrupted processes left lying about.
//!
//! A name never comes back (rule *names-carry-session*), so whoever deletes late deletes nothing that it should not.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use futures::TryStreamExt;

use super::PruneReport;
use crate::error::Result;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{ObjectName, SessionId};
use crate::repo::{Repository, Rule, Session};
use crate::store::{Folder, ObjectPath, StoredObject};

/// How often the log is looked at while we wait for sessions.
pub(super) const POLL: Duration = Duration::from_millis(500);
/// Objects deleted at once.
const BATCH: usize = 1000;
/// What has no session in its name is litter when it is this old.
const LITTER_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Deletes what retired objects may be deleted in the newest state. `own`, a session of ours that is still open, is not waited for.
///
/// An entry is said to be deleted only when no live fragment names one of its packs: where the log does not call a pack retired, a
/// fragment that names it says that it is there.
pub(super) async fn retired(repository: &Repository, own: Option<&Session>, report: &mut PruneReport) -> Result<()> {
    let state = repository.state();
    let mut by_entry: BTreeMap<u64, Vec<ObjectName>> = BTreeMap::new();
    for (name, entry) in &state.retired {
        by_entry.entry(*entry).or_default().push(*name);
    }
    report.objects_waiting = 0;
    report.waiting_for.clear();
    let mut waiting: HashSet<ObjectName> = HashSet::new();
    by_entry.retain(|entry, names| {
        let waits = blockers(&state, *entry, own.map(Session::id));
        let goes = waits.is_empty() || !repository.keeps(Rule::WaitForSessions);
        if !goes {
            waiting.extend(names.iter());
            report.waiting_for.extend(waits);
        }
        goes
    });
    report.waiting_for.sort_unstable();
    report.waiting_for.dedup();
    let going: HashSet<ObjectName> = by_entry.values().flatten().copied().collect();
    delete(repository, &going, &waiting, report).await?;
    if by_entry.is_empty() {
        return Ok(());
    }
    let index = repository.index().await?;
    let named = index.known_packs();
    by_entry.retain(|_, names| !names.iter().any(|name| named.contains(name)));
    let say = async |state: &LogState| {
        // Another may have said it first.
        let is_new = |entry: &&u64| state.retired.values().any(|retired| retired == *entry);
        Ok(by_entry.keys().filter(is_new).map(|entry| Record::ObjectsDeleted { entry: *entry }).collect())
    };
    match own {
        // On a store for one writer the session has the lock.
        Some(session) if state.retired.values().any(|entry| by_entry.contains_key(entry)) => session.say(say).await,
        Some(_) => Ok(()),
        None => repository.say(say).await,
    }
}

/// True if something that was retired cannot be deleted yet.
pub(super) fn must_wait(repository: &Repository, own: Option<SessionId>) -> bool {
    let state = repository.state();
    let Some(newest) = state.retired.values().max() else { return false };
    repository.keeps(Rule::WaitForSessions) && !blockers(&state, *newest, own).is_empty()
}

/// Deletes those of these objects that are there, and counts those that wait.
async fn delete(
    repository: &Repository,
    going: &HashSet<ObjectName>,
    waiting: &HashSet<ObjectName>,
    report: &mut PruneReport,
) -> Result<()> {
    let kinds: BTreeSet<_> = going.iter().chain(waiting).map(|name| name.kind).collect();
    let mut paths: Vec<ObjectPath> = Vec::new();
    for kind in kinds {
        let mut listing = repository.store().list(Folder::of(kind));
        while let Some(info) = listing.try_next().await? {
            let StoredObject::Named(name) = info.object() else { continue };
            if waiting.contains(&name) {
                report.objects_waiting += 1;
            } else if going.contains(&name) {
                report.objects_deleted += 1;
                report.bytes_deleted += info.len;
                paths.push(info.path);
            }
        }
    }
    for batch in paths.chunks(BATCH) {
        repository.store().delete_many(batch.to_vec()).await?;
    }
    Ok(())
}

/// Who may still be reading what this entry retired.
fn blockers(state: &LogState, entry: u64, own: Option<SessionId>) -> Vec<String> {
    let may_read = state.open_sessions().filter(|(id, session)| session.opened < entry && Some(*id) != own);
    may_read
        .map(|(id, session)| match &session.info {
            Some(info) => format!("session {id} (process {} on {})", info.pid, info.host),
            None => format!("session {id}"),
        })
        .collect()
}

/// Removes half-written files of a local disk, probes, and folded states that newer ones took the place of.
pub(super) async fn litter(repository: &Repository, report: &mut PruneReport) -> Result<()> {
    let state = repository.state();
    let store = repository.store();
    let now = store.head(StoredObject::Log(state.head)).await?.map(|info| info.last_modified);
    let is_old = |then| now.is_some_and(|now: crate::clock::Timestamp| now.since(then) > LITTER_AFTER);
    for leftover in store.leftovers().await? {
        let is_over = match leftover.object.session() {
            Some(session) => state.is_over(session),
            None => is_old(leftover.last_modified),
        };
        if is_over {
            report.objects_deleted += 1;
            report.bytes_deleted += leftover.len;
            store.delete_leftover(leftover).await?;
        }
    }
    let mut gone: Vec<ObjectPath> = Vec::new();
    let mut probes = store.list(Folder::Probe);
    while let Some(info) = probes.try_next().await? {
        if is_old(info.last_modified) {
            gone.push(info.path);
        }
    }
    // The newest named one and the one before it stay; newer ones may be about to be named.
    let mut older: Vec<(u64, ObjectPath)> = Vec::new();
    let newest = state.checkpoint.map_or(0, |(number, _)| number);
    let mut states = store.list(Folder::LogState);
    while let Some(info) = states.try_next().await? {
        if let StoredObject::LogState { n, .. } = info.object()
            && n < newest
        {
            older.push((n, info.path));
        }
    }
    older.sort_unstable_by(|a, b| b.cmp(a));
    gone.extend(older.into_iter().skip(1).map(|(_, path)| path));
    if !gone.is_empty() {
        report.objects_deleted += gone.len() as u64;
        store.delete_many(gone).await?;
    }
    Ok(())
}
