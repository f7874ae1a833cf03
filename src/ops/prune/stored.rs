//! What the store holds beside what the log names: packs, fragments and manifests that a process left behind.
//!
//! Nobody's object is touched while its session may still name it (rule *orphan-needs-dead-session*), nor if the log does not know the
//! session: then a log entry may be lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::format::log_entry::LogEntry;
use crate::format::log_record::{Purpose, Record};
use crate::format::log_state::LogState;
use crate::id::{ObjectKind, ObjectName, SessionId};
use crate::index::Index;
use crate::repo::Repository;
use crate::store::{Folder, StoredObject};

/// Packs that an interrupted backup published stay so long for the next one to find.
const CHECKPOINTS_STAY: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a listing showed.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Objects that no log entry names, by name, with their bytes.
    pub(super) unnamed: Vec<(ObjectName, u64)>,
    /// Bytes of live fragments.
    pub(super) fragments: HashMap<ObjectName, u64>,
    /// Live packs that are not there, or of another size.
    pub(super) absent: HashSet<ObjectName>,
    /// Sessions of interrupted runs whose published packs are kept for the next one.
    pub(super) kept_sessions: HashSet<SessionId>,
}

impl Stored {
    pub(super) async fn find(repository: &Repository, index: &Arc<Index>, state: &LogState) -> Result<Self> {
        let mut stored = Self::default();
        let packs = index.known_packs();
        let mut live: HashMap<ObjectName, u64> =
            index.live_packs().into_iter().map(|pack| (pack.name, pack.size)).collect();
        let fragments: HashSet<ObjectName> = state.fragments.iter().map(|(_, name)| *name).collect();
        let manifests: HashSet<ObjectName> = state.backups.values().map(|backup| backup.manifest).collect();
        for kind in [ObjectKind::DataPack, ObjectKind::MetaPack, ObjectKind::Fragment, ObjectKind::Manifest] {
            let mut listing = repository.store().list(Folder::of(kind));
            while let Some(info) = listing.try_next().await? {
                let StoredObject::Named(name) = info.object() else { continue };
                let is_named = match kind {
                    ObjectKind::Fragment => fragments.contains(&name),
                    ObjectKind::Manifest => manifests.contains(&name),
                    _ => packs.contains(&name),
                };
                if kind == ObjectKind::Fragment && is_named {
                    stored.fragments.insert(name, info.len);
                }
                if live.get(&name).is_some_and(|size| *size == info.len) {
                    live.remove(&name);
                }
                if !is_named && !state.retired.contains_key(&name) {
                    stored.unnamed.push((name, info.len));
                }
            }
        }
        stored.forget_newcomers(repository, state).await?;
        stored.absent = live.into_keys().collect();
        stored.kept_sessions = kept_sessions(repository, index, state).await?;
        Ok(stored)
    }
}

impl Stored {
    /// Leaves out what sessions stored that opened after `state`, while we listed: the log names them by now. The objects that stay
    /// and bear the name of no session in the log are evidence of a lost entry.
    async fn forget_newcomers(&mut self, repository: &Repository, state: &LogState) -> Result<()> {
        let is_new = |(name, _): &(ObjectName, u64)| !state.sessions.contains_key(&name.session);
        if !self.unnamed.iter().any(is_new) {
            return Ok(());
        }
        // Whoever stores something has said before who it is. The plan stays one of `state`: only this question is asked anew.
        let mut newer = state.clone();
        repository.chain().advance(&mut newer).await?;
        self.unnamed.retain(|found| !(is_new(found) && newer.sessions.contains_key(&found.0.session)));
        Ok(())
    }
}

/// Sessions that published packs and were interrupted: what they stored spares the next run of the same lineage the work.
async fn kept_sessions(repository: &Repository, index: &Index, state: &LogState) -> Result<HashSet<SessionId>> {
    let committed: HashSet<SessionId> = state.backups.values().map(|backup| backup.manifest.session).collect();
    let mut candidates: Vec<(u64, SessionId)> = Vec::new();
    let published: HashSet<SessionId> = index.live_packs().iter().map(|pack| pack.name.session).collect();
    for id in published.difference(&committed) {
        if let Some(session) = state.sessions.get(id).filter(|session| session.over.is_some()) {
            candidates.push((session.last_seen, *id));
        }
    }
    // The newest first: with the first that is too old, all others are.
    candidates.sort_unstable_by(|a, b| b.cmp(a));
    let mut kept = HashSet::new();
    let Some(now) = written_at(repository, state.head).await? else { return Ok(kept) };
    for (last_seen, id) in candidates {
        let Some(then) = written_at(repository, last_seen).await? else { continue };
        if now.since(then) > CHECKPOINTS_STAY {
            break;
        }
        let Some(session) = state.sessions.get(&id) else { continue };
        let Some((purpose, lineage)) = opened_for(repository, session.opened, id).await? else { continue };
        let is_done_by_another = |backup: &crate::format::log_state::BackupState| {
            backup.summary.lineage == lineage && session.over.is_some_and(|over| backup.entry > over)
        };
        let is_wanted = match purpose {
            Purpose::Backup => !state.backups.values().any(is_done_by_another),
            Purpose::Replicate => true,
            _ => false,
        };
        if is_wanted {
            kept.insert(id);
        }
    }
    Ok(kept)
}

/// When a log entry was written, by the store's clock.
async fn written_at(repository: &Repository, entry: u64) -> Result<Option<Timestamp>> {
    Ok(repository.store().head(StoredObject::Log(entry)).await?.map(|info| info.last_modified))
}

/// Why a session was opened, and for which lineage: the state forgets that when it is over, the log does not.
async fn opened_for(
    repository: &Repository,
    entry: u64,
    session: SessionId,
) -> Result<Option<(Purpose, crate::id::LineageId)>> {
    let stored = repository.store().get(StoredObject::Log(entry)).await?;
    let entry = LogEntry::decode(&stored)?;
    Ok(entry.records.iter().find_map(|record| match record {
        Record::SessionOpened(info) if info.session == session => Some((info.purpose, info.lineage)),
        _ => None,
    }))
}
