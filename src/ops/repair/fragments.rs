//! Index fragments that are lost: built anew from the tables of the packs that their sessions wrote, and published in their place.
//!
//! What a lost fragment said is told by the packs: those of its session that no whole fragment names. More may be among them than it named
//! (packs that were never published); they are whole, so they do no harm.

use std::collections::{BTreeMap, HashSet};

use futures::TryStreamExt;
use futures::stream::{self, StreamExt};

use super::{RepairReport, describe};
use crate::error::{Error, ErrorKind, Result};
use crate::format::fragment::Fragment;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{ObjectKind, ObjectName, SessionId};
use crate::index::{fetch_fragment, read_table};
use crate::repo::{Repository, Session};
use crate::store::{Folder, StoredObject};

/// Fragments, and tables, fetched at once.
const FETCH_AT_ONCE: usize = 8;
/// A fragment built anew ends behind so many entries.
const ENTRIES_MOST: usize = 150_000;
const PACKS_MOST: usize = 60_000;

/// The lost fragments of one session.
struct Lost {
    fragments: Vec<(ObjectName, String)>,
    packs: Vec<(ObjectName, u64)>,
}

/// Publishes lost fragments anew.
pub(super) async fn heal(repository: &Repository, session: Option<&Session>, report: &mut RepairReport) -> Result<()> {
    let state = repository.state();
    let mut lost: BTreeMap<SessionId, Lost> = BTreeMap::new();
    let mut known: HashSet<ObjectName> = HashSet::new();
    let mut fetched = stream::iter(&state.fragments)
        .map(|(_, name)| async move { (*name, fetch_fragment(repository.store(), name).await) })
        .buffered(FETCH_AT_ONCE);
    while let Some((name, fragment)) = fetched.next().await {
        match fragment {
            Ok(fragment) => known.extend(fragment.packs.iter().map(|pack| pack.name)),
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
            Err(error) if error.is_damage() => {
                let of_session =
                    lost.entry(name.session).or_insert_with(|| Lost { fragments: Vec::new(), packs: Vec::new() });
                of_session.fragments.push((name, describe(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    for kind in [ObjectKind::DataPack, ObjectKind::MetaPack] {
        let mut listing = repository.store().list(Folder::of(kind));
        while let Some(info) = listing.try_next().await? {
            // A retired pack may be deleted any time: nothing may name it anew.
            if let StoredObject::Named(name) = info.object()
                && let Some(of_session) = lost.get_mut(&name.session)
                && !known.contains(&name)
                && !state.retired.contains_key(&name)
            {
                of_session.packs.push((name, info.len));
            }
        }
    }
    for of_session in lost.into_values() {
        rebuild(repository, session, of_session, report).await?;
    }
    Ok(())
}

async fn rebuild(
    repository: &Repository,
    session: Option<&Session>,
    lost: Lost,
    report: &mut RepairReport,
) -> Result<()> {
    let mut tables = stream::iter(lost.packs.iter().copied())
        .map(|(name, len)| async move { (name, len, read_table(repository.store(), &name, len).await) })
        .buffered(FETCH_AT_ONCE);
    let mut fragments = vec![Fragment::default()];
    let mut without_table: u64 = 0;
    while let Some((name, len, table)) = tables.next().await {
        let table = match table {
            Ok(table) => table,
            // Its chunks are looked for when they turn out to be missing.
            Err(error) if error.is_damage() => {
                without_table += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        let full =
            fragments.last().is_none_or(|last| last.entries.len() > ENTRIES_MOST || last.packs.len() > PACKS_MOST);
        if full {
            fragments.push(Fragment::default());
        }
        if let Some(last) = fragments.last_mut() {
            last.push_pack(name, len, &table)?;
        }
    }
    let names: HashSet<ObjectName> =
        fragments.iter().flat_map(|fragment| &fragment.packs).map(|pack| pack.name).collect();
    if let Some(session) = session {
        publish(repository, session, &lost, fragments, &names).await?;
    }
    let mut how = format!("built anew from the tables of {} packs", names.len());
    if without_table > 0 {
        how = format!("{how}; {without_table} packs of its session have no table that can be read");
    }
    for (name, what) in lost.fragments {
        report.add(name.to_string(), what, how.clone());
    }
    Ok(())
}

async fn publish(
    repository: &Repository,
    session: &Session,
    lost: &Lost,
    mut fragments: Vec<Fragment>,
    packs: &HashSet<ObjectName>,
) -> Result<()> {
    let mut added = Vec::new();
    for fragment in fragments.iter_mut().filter(|fragment| !fragment.packs.is_empty()) {
        added.push(repository.store_fragment(session, fragment).await?);
    }
    session
        .say(async |state: &LogState| {
            if let Some(name) = packs.iter().find(|name| state.retired.contains_key(name)) {
                let message = format!("{name}: was retired while its fragment was built anew; run the repair again");
                return Err(Error::new(ErrorKind::Busy, message));
            }
            let live: HashSet<_> = state.fragments.iter().map(|(_, name)| *name).collect();
            let superseded: Vec<_> =
                lost.fragments.iter().map(|(name, _)| *name).filter(|name| live.contains(name)).collect();
            // Somebody else was first: what we built stays unnamed.
            if superseded.is_empty() {
                return Ok(vec![Record::SessionRefreshed]);
            }
            Ok(vec![Record::ObjectsRetired { objects: Vec::new(), superseded, added: added.clone() }])
        })
        .await
}
