//! Every live index fragment: readable, true to its name, and in the local index.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};

use super::blocking;
use super::findings::{Finding, Findings, Severity, heal};
use crate::error::{ErrorKind, Result};
use crate::format::fragment::{Fragment, FragmentEntry};
use crate::format::log_state::LogState;
use crate::format::pack::TableEntry;
use crate::id::{ChunkId, ObjectName};
use crate::index::{CatchUp, Index, fetch_fragment};
use crate::repo::Repository;

/// Fragments fetched at once.
const FETCH_AT_ONCE: usize = 4;
/// Chunks looked up in one transaction.
const BATCH: usize = 65_536;

/// What the fragments say of each pack, so condensed that a pack's own table can be compared with it.
pub(super) type Prints = HashMap<ObjectName, Print>;

/// A pack's entries, summed up: equal prints mean equal entries, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Print {
    count: u64,
    sum: u64,
}

impl Print {
    fn add(&mut self, id: &ChunkId, words: [u32; 3], coding: u8) {
        let [offset, stored_len, plain_len] = words.map(u64::from);
        let (head, _) = id.as_bytes().split_first_chunk::<8>().expect("an id has 32 bytes");
        let mut mixed = u64::from_le_bytes(*head);
        for word in [offset, stored_len, plain_len, u64::from(coding)] {
            mixed = (mixed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^= mixed >> 32;
        }
        self.count += 1;
        self.sum = self.sum.wrapping_add(mixed);
    }

    fn add_entry(&mut self, entry: &FragmentEntry) {
        self.add(&entry.id, [entry.offset, entry.stored_len, entry.plain_len], entry.coding);
    }

    /// What a pack's own table says.
    pub(super) fn of_table<'a>(table: impl Iterator<Item = &'a TableEntry>) -> Self {
        let mut print = Self::default();
        for TableEntry { record, offset } in table {
            print.add(&record.id, [*offset, record.stored_len, record.plain_len], record.coding);
        }
        print
    }
}

/// Every live fragment with what came of reading it.
pub(super) fn read_all<'a>(
    repository: &'a Repository,
    state: &'a LogState,
) -> BoxStream<'a, (ObjectName, Result<Fragment>)> {
    stream::iter(&state.fragments)
        .map(move |(_, name)| async move { (*name, fetch_fragment(repository.store(), name).await) })
        .buffered(FETCH_AT_ONCE)
        .boxed()
}

/// Reads every live fragment and holds the local index against it.
pub(super) async fn check(
    repository: &Repository,
    index: &Arc<Index>,
    state: &Arc<LogState>,
    caught_up: [&CatchUp; 2],
    findings: &mut Findings,
) -> Result<Prints> {
    let mut prints = Prints::new();
    let mut unknown: u64 = 0;
    let mut fragments = read_all(repository, state);
    while let Some((name, fragment)) = fragments.next().await {
        let fragment = match fragment {
            Ok(fragment) => fragment,
            Err(error) if error.is_damage() => {
                let was_rebuilt =
                    caught_up.iter().flat_map(|report| &report.rebuilt).any(|(rebuilt, _)| *rebuilt == name);
                let rebuilt = was_rebuilt || index.has_fragment(&name);
                let severity = if rebuilt { Severity::Warning } else { Severity::Error };
                let what = if error.kind() == ErrorKind::NotFound { "missing".to_owned() } else { error.to_string() };
                findings.add_missing(Finding::new(severity, name.to_string(), what, heal::FRAGMENT));
                continue;
            }
            Err(error) => return Err(error),
        };
        take_prints(&fragment, &mut prints);
        let (index, state) = (Arc::clone(index), Arc::clone(state));
        unknown += blocking(move || count_unknown(&index, &state, &fragment)).await?;
    }
    if unknown > 0 {
        let what = format!("does not know {unknown} chunks that the index fragments name");
        let cache = repository.environment().cache.as_ref().map(|cache| cache.join(repository.id().to_string()));
        let place = cache.map_or_else(|| "this host's cache".to_owned(), |cache| cache.display().to_string());
        let heal = format!("delete {place}: it is built again from the repository");
        findings.add_missing(Finding::new(Severity::Warning, "local index", what, &heal));
    }
    Ok(prints)
}

/// A pack's entries stand in one fragment; where another live one names it too, the first counts.
fn take_prints(fragment: &Fragment, prints: &mut Prints) {
    let mut ours: Vec<Option<Print>> = Vec::with_capacity(fragment.packs.len());
    for pack in &fragment.packs {
        ours.push((!prints.contains_key(&pack.name)).then(Print::default));
    }
    for entry in &fragment.entries {
        if let Some(Some(print)) = ours.get_mut(usize::from(entry.pack)) {
            print.add_entry(entry);
        }
    }
    for (pack, print) in fragment.packs.iter().zip(ours) {
        if let (Some(print), Slot::Vacant(slot)) = (print, prints.entry(pack.name)) {
            slot.insert(print);
        }
    }
}

/// Chunks in packs that count, of which the index has no location that does.
fn count_unknown(index: &Index, state: &LogState, fragment: &Fragment) -> Result<u64> {
    let counts: Vec<bool> = fragment.packs.iter().map(|pack| !state.is_dead(&pack.name)).collect();
    let live = |entry: &&FragmentEntry| counts.get(usize::from(entry.pack)).copied().unwrap_or(false);
    let ids: Vec<ChunkId> = fragment.entries.iter().filter(live).map(|entry| entry.id).collect();
    let mut unknown = 0;
    for batch in ids.chunks(BATCH) {
        unknown += index.lookup(batch)?.iter().filter(|found| found.is_none()).count() as u64;
    }
    Ok(unknown)
}
