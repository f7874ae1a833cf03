//! Brings the index to a state of the log: fetches the live fragments it lacks, drops those that count no more, decides which packs are live.

use std::collections::HashSet;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::db::Index;
use crate::codec::object_hash;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::fragment::Fragment;
use crate::format::log_state::LogState;
use crate::format::pack::PackTrailer;
use crate::id::{EntryHash, ObjectKind, ObjectName};
use crate::pack::{parse_table, table_range};
use crate::store::{Folder, Store, StoredObject};

/// Fragments fetched at once.
const FETCH_AT_ONCE: usize = 4;
/// Entries folded into one run.
const BATCH_ENTRIES: usize = 200_000;

/// What came up.
#[derive(Debug, Default)]
pub(crate) struct CatchUp {
    /// Chunk locations that were taken in.
    pub(crate) entries: u64,
    /// Fragments that could not be read and were rebuilt from the tables of their packs.
    pub(crate) rebuilt: Vec<(ObjectName, Error)>,
    /// The newest entry that this host had seen before.
    pub(crate) seen: Option<(u64, EntryHash)>,
}

/// Catches the index up to `state`. Fragments in `ours` are kept although the log does not name them yet.
pub(crate) async fn catch_up(index: &Index, store: &Store, state: &LogState, ours: &[ObjectName]) -> Result<CatchUp> {
    let mut report = CatchUp { seen: index.seen()?, ..CatchUp::default() };
    let live: HashSet<_> = state.fragments.iter().map(|(_, name)| *name).chain(ours.iter().copied()).collect();
    let gone: Vec<_> = index.fragments().into_iter().filter(|name| !live.contains(name)).collect();
    index.remove_fragments(&gone)?;

    let wanted: Vec<_> =
        state.fragments.iter().map(|(_, name)| *name).filter(|name| !index.has_fragment(name)).collect();
    let mut fetched = stream::iter(wanted)
        .map(|name| async move { (name, fetch_fragment(store, &name).await) })
        .buffered(FETCH_AT_ONCE);
    let mut batch: Vec<(ObjectName, Fragment)> = Vec::new();
    let mut batched = 0;
    while let Some((name, fragment)) = fetched.next().await {
        let fragment = match fragment {
            Ok(fragment) => fragment,
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                let fragment =
                    rebuild(store, state, index, &name).await.context(|| format!("rebuild {name} from pack tables"))?;
                report.rebuilt.push((name, error));
                fragment
            }
            Err(error) => return Err(error),
        };
        batched += fragment.entries.len();
        report.entries += fragment.entries.len() as u64;
        batch.push((name, fragment));
        if batched >= BATCH_ENTRIES {
            index.insert(&batch)?;
            batch.clear();
            batched = 0;
        }
    }
    if !batch.is_empty() {
        index.insert(&batch)?;
    }
    index.set_live_in(state);
    // Never backwards: that the log is shorter than it was must be noticed by every later check, not only by the first.
    let forward = report.seen.is_none_or(|(head, _)| head <= state.head);
    index.settle(state.head_hash.filter(|_| forward).map(|hash| (state.head, hash)))?;
    Ok(report)
}

/// Reads a fragment and verifies it by its name.
pub(crate) async fn fetch_fragment(store: &Store, name: &ObjectName) -> Result<Fragment> {
    let stored = store.get(StoredObject::Named(*name)).await?;
    if object_hash(&stored) != name.hash {
        return Err(Error::corrupt(format!("read {name}: the bytes are not those of its name")));
    }
    Fragment::decode(&stored).context(|| format!("read {name}"))
}

/// What a lost fragment must have said: the tables of the packs of its session that no other live fragment names.
async fn rebuild(store: &Store, state: &LogState, index: &Index, lost: &ObjectName) -> Result<Fragment> {
    let mut known = index.known_packs();
    for (_, name) in &state.fragments {
        if name.session == lost.session
            && name != lost
            && !index.has_fragment(name)
            && let Ok(fragment) = fetch_fragment(store, name).await
        {
            known.extend(fragment.packs.iter().map(|pack| pack.name));
        }
    }
    let mut fragment = Fragment::default();
    for kind in [ObjectKind::DataPack, ObjectKind::MetaPack] {
        let mut listing = store.list(Folder::of(kind));
        while let Some(info) = listing.try_next().await? {
            let StoredObject::Named(name) = info.object() else { continue };
            if name.session != lost.session || known.contains(&name) {
                continue;
            }
            // A pack that cannot be read now is not in the index; check names it.
            let Ok(table) = read_table(store, &name, info.len).await else { continue };
            fragment.push_pack(name, info.len, &table)?;
        }
    }
    fragment.entries.sort_unstable_by_key(|entry| (entry.id, entry.pack, entry.offset));
    Ok(fragment)
}

/// Reads a pack's table: two small ranges.
pub(crate) async fn read_table(
    store: &Store,
    name: &ObjectName,
    size: u64,
) -> Result<Vec<crate::format::pack::TableEntry>> {
    let object = StoredObject::Named(*name);
    let start = size.saturating_sub(PackTrailer::LEN as u64);
    let trailer: Bytes = store.get_range(&object, start..size).await?;
    let range = table_range(&trailer, size).context(|| format!("read {name}"))?;
    let tail = store.get_range(&object, range).await?;
    parse_table(&tail, size).context(|| format!("read {name}"))
}
