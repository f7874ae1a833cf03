//! Which index fragments go, which are written anew without the packs that go, and which are merged: a nightly backup adds a small one, and
//! whoever opens the repository without a cache reads them all.
//!
//! A fragment that names some packs which go and some which stay need not change at once: locations in retired packs do not count. But as
//! long as it stands, these packs stay retired in the log, also when they are deleted (see [`super::sweep`]).

use std::collections::HashSet;

use super::{Job, Planned, PruneReport};
use crate::error::{ErrorKind, Result};
use crate::format::fragment::Fragment;
use crate::format::pack::{RecordHeader, TableEntry};
use crate::id::ObjectName;
use crate::index::fetch_fragment;
use crate::repo::{FRAGMENT_ENTRIES, FRAGMENT_PACKS, Session};

/// A fragment shorter than this can be merged: some 40 000 entries.
const SMALL_BYTES: u64 = 2 << 20;
/// So many of them are merged.
const SMALL_MANY: usize = 24;
/// A fragment is written anew if one in so many of its packs goes.
const GONE_SHARE: usize = 5;

/// What happens to fragments.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// They do not count any more, each with the packs that it names.
    pub(super) superseded: Vec<(ObjectName, Vec<u32>)>,
    /// They count instead.
    pub(super) added: Vec<ObjectName>,
}

impl Merged {
    pub(super) fn is_empty(&self) -> bool {
        self.superseded.is_empty() && self.added.is_empty()
    }
}

/// Finds the fragments of which nothing or little is left, and merges small ones if there are many.
pub(super) async fn merge(
    job: &Job<'_>,
    session: &Session,
    planned: &Planned,
    report: &mut PruneReport,
) -> Result<Merged> {
    let going = planned.chosen.gone();
    let state = job.repository.state();
    let name_of = |number: u32| planned.usage.packs[number as usize].info.name;
    let is_gone = |number: &u32| going.contains(number) || state.retired.contains_key(&name_of(*number));
    let mut merged = Merged::default();
    let (mut holed, mut small) = (Vec::new(), Vec::new());
    for (_, name) in &state.fragments {
        let Some(packs) = planned.usage.fragments.get(name) else { continue };
        let gone = packs.iter().filter(|number| is_gone(number)).count();
        let bytes = planned.stored.fragments.get(name).copied().unwrap_or(u64::MAX);
        if gone == packs.len() {
            merged.superseded.push((*name, packs.clone()));
        } else if state.is_open(name.session) && name.session != session.id() {
            // Its session may be about to supersede it itself.
        } else if gone * GONE_SHARE >= packs.len() {
            holed.push((*name, packs.clone()));
        } else if bytes < SMALL_BYTES {
            small.push((*name, packs.clone()));
        }
    }
    if small.len() >= SMALL_MANY || (!holed.is_empty() && small.len() + holed.len() >= SMALL_MANY) {
        holed.append(&mut small);
    }
    if holed.is_empty() {
        return Ok(merged);
    }
    let gone: HashSet<ObjectName> =
        going.iter().map(|number| name_of(*number)).chain(state.retired.keys().copied()).collect();
    let before = merged.superseded.len();
    match write_anew(job, session, holed, &gone, &mut merged).await {
        // Without room for the new ones the old ones do as well.
        Err(error) if error.is_disk_full() => {
            merged.superseded.truncate(before);
            merged.added.clear();
            report.remarks.push(format!("index fragments were not written anew, for lack of room ({error})"));
        }
        outcome => outcome?,
    }
    Ok(merged)
}

async fn write_anew(
    job: &Job<'_>,
    session: &Session,
    old: Vec<(ObjectName, Vec<u32>)>,
    gone: &HashSet<ObjectName>,
    merged: &mut Merged,
) -> Result<()> {
    let mut sum = Fragment::default();
    for (name, packs) in old {
        let fragment = match fetch_fragment(job.repository.store(), &name).await {
            Ok(fragment) => fragment,
            // Repair's business.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => continue,
            Err(error) => return Err(error),
        };
        let is_full = sum.entries.len() + fragment.entries.len() > FRAGMENT_ENTRIES
            || sum.packs.len() + fragment.packs.len() > FRAGMENT_PACKS;
        if is_full && !sum.packs.is_empty() {
            merged.added.push(job.repository.store_fragment(session, &mut std::mem::take(&mut sum)).await?);
        }
        append(&mut sum, &fragment, gone)?;
        merged.superseded.push((name, packs));
    }
    if !sum.packs.is_empty() {
        merged.added.push(job.repository.store_fragment(session, &mut sum).await?);
    }
    Ok(())
}

/// Takes over the packs that stay.
fn append(sum: &mut Fragment, fragment: &Fragment, gone: &HashSet<ObjectName>) -> Result<()> {
    let mut tables: Vec<Vec<TableEntry>> = vec![Vec::new(); fragment.packs.len()];
    for entry in &fragment.entries {
        let record = RecordHeader {
            id: entry.id,
            stored_len: entry.stored_len,
            plain_len: entry.plain_len,
            coding: entry.coding,
        };
        tables[usize::from(entry.pack)].push(TableEntry { record, offset: entry.offset });
    }
    for (pack, table) in fragment.packs.iter().zip(tables) {
        if !gone.contains(&pack.name) {
            sum.push_pack(pack.name, pack.size, &table)?;
        }
    }
    Ok(())
}
