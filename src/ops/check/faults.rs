//! Damaged packs: what is lost with each, and what has a whole copy elsewhere.
//!
//! The chunks of a pack are told by the index fragments, which a damaged pack cannot change. After a scrub, each of them is read on its own, so
//! that a pack with one flipped byte loses one chunk.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::StreamExt;

use super::findings::{Finding, Findings, Severity, heal};
use super::fragments;
use super::touches::{Cause, TouchMap};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::format::fragment::FragmentEntry;
use crate::format::log_state::LogState;
use crate::format::scrub::ScrubResult;
use crate::id::{ChunkId, ObjectName};
use crate::index::{Index, PackInfo};
use crate::pack::Location;
use crate::repo::Repository;

/// How much of a pack is damaged.
#[derive(Clone, Debug)]
pub(super) enum Extent {
    /// All of it.
    All,
    /// Some part, still to be found out.
    Unknown,
    /// These chunks.
    Chunks(HashSet<ChunkId>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Missing,
    /// The store fails to give it.
    Unreadable,
    Damaged,
    /// The bytes are whole, the index says something else of them.
    Contradicted,
    /// Damaged when a scrub read it last, and not read since.
    Remembered,
}

/// One damaged pack.
#[derive(Debug)]
struct Fault {
    name: ObjectName,
    what: String,
    kind: Kind,
    extent: Extent,
    /// Bytes that the stored object has.
    len: u64,
    /// Its chunks are known from a fragment.
    assessed: bool,
    lost: u64,
    spared: u64,
}

/// The damaged packs by their number in the index.
#[derive(Debug, Default)]
pub(super) struct Faults {
    by_number: BTreeMap<u32, Fault>,
}

impl Faults {
    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub(super) fn has(&self, number: u32) -> bool {
        self.by_number.contains_key(&number)
    }

    fn add(&mut self, number: u32, name: ObjectName, kind: Kind, what: String, extent: Extent, len: u64) {
        let fault = Fault { name, what, kind, extent, len, assessed: false, lost: 0, spared: 0 };
        self.by_number.insert(number, fault);
    }

    pub(super) fn add_missing(&mut self, number: u32, name: ObjectName, size: u64) {
        self.add(number, name, Kind::Missing, format!("missing, it had {size} bytes"), Extent::All, 0);
    }

    pub(super) fn add_resized(&mut self, number: u32, name: ObjectName, size: u64, len: u64) {
        self.add(number, name, Kind::Damaged, format!("has {len} bytes, should have {size}"), Extent::All, len);
    }

    /// Found by reading it.
    pub(super) fn add_damaged(&mut self, number: u32, pack: &PackInfo, what: String, extent: Extent, len: u64) {
        self.add(number, pack.name, Kind::Damaged, what, extent, len);
    }

    /// The store failed to give it.
    pub(super) fn add_unreadable(&mut self, number: u32, pack: &PackInfo, why: &str) {
        self.add(number, pack.name, Kind::Unreadable, format!("cannot be read: {why}"), Extent::All, pack.size);
    }

    /// Whole, but the index fragments say something else of it.
    pub(super) fn add_contradicted(&mut self, number: u32, pack: &PackInfo, what: String) {
        self.add(number, pack.name, Kind::Contradicted, what, Extent::Unknown, pack.size);
    }

    /// A scrub found it damaged then.
    pub(super) fn add_remembered(&mut self, number: u32, name: ObjectName, time: Timestamp, size: u64) {
        let what = format!("found damaged on {}", time.to_local());
        self.add(number, name, Kind::Remembered, what, Extent::Unknown, size);
    }

    /// All of them, with what is wrong.
    pub(super) fn packs(&self) -> Vec<(ObjectName, String)> {
        self.by_number.values().map(|fault| (fault.name, fault.what.clone())).collect()
    }

    /// What the ledger is to know of each: its number, and whether it is there.
    pub(super) fn results(&self) -> Vec<(u32, ScrubResult)> {
        let result = |kind| match kind {
            Kind::Missing => Some(ScrubResult::Missing),
            Kind::Damaged => Some(ScrubResult::Damaged),
            Kind::Unreadable | Kind::Contradicted | Kind::Remembered => None,
        };
        self.by_number.iter().filter_map(|(number, fault)| Some((*number, result(fault.kind)?))).collect()
    }

    pub(super) fn retain(&mut self, is_live: impl Fn(&ObjectName) -> bool) {
        self.by_number.retain(|_, fault| is_live(&fault.name));
    }

    /// True if the chunk cannot be read there.
    fn is_bad(&self, id: &ChunkId, location: &Location) -> bool {
        match self.by_number.get(&location.pack).map(|fault| &fault.extent) {
            None => false,
            Some(Extent::All | Extent::Unknown) => true,
            Some(Extent::Chunks(damaged)) => damaged.contains(id),
        }
    }

    /// The damaged pack that the chunk is lost with; `None` if it can be read somewhere.
    pub(super) fn lost_with(&self, index: &Index, id: &ChunkId, first: &Location) -> Result<Option<u32>> {
        if self.by_number.is_empty() || !self.is_bad(id, first) {
            return Ok(None);
        }
        let whole = index.locations(id)?.iter().any(|location| !self.is_bad(id, location));
        Ok((!whole).then_some(first.pack))
    }

    /// Finds out how much is damaged (by reading, if asked to) and what of it is nowhere else.
    pub(super) async fn assess(
        &mut self,
        repository: &Repository,
        index: &Index,
        state: &LogState,
        read: bool,
    ) -> Result<()> {
        if self.by_number.is_empty() {
            return Ok(());
        }
        if read {
            let unknown: HashSet<u32> =
                self.by_number.iter().filter(|(_, fault)| fault.wants_reading()).map(|(n, _)| *n).collect();
            let mut damaged: HashMap<u32, HashSet<ChunkId>> = HashMap::new();
            for_each_entry(repository, state, &self.numbers(), async |number, entry| {
                if !unknown.contains(&number) {
                    return Ok(());
                }
                let found = damaged.entry(number).or_default();
                if !self.is_readable(repository, index, number, entry).await? {
                    found.insert(entry.id);
                }
                Ok(())
            })
            .await?;
            for (number, chunks) in damaged {
                if let Some(fault) = self.by_number.get_mut(&number) {
                    fault.extent = Extent::Chunks(chunks);
                }
            }
        }
        let mut counts: HashMap<u32, (u64, u64)> = HashMap::new();
        for_each_entry(repository, state, &self.numbers(), async |number, entry| {
            let (lost, spared) = counts.entry(number).or_default();
            let here = location_of(number, entry);
            if self.is_bad(&entry.id, &here) {
                let whole = index.locations(&entry.id)?.iter().any(|location| !self.is_bad(&entry.id, location));
                *if whole { spared } else { lost } += 1;
            }
            Ok(())
        })
        .await?;
        for (number, (lost, spared)) in counts {
            if let Some(fault) = self.by_number.get_mut(&number) {
                (fault.assessed, fault.lost, fault.spared) = (true, lost, spared);
            }
        }
        Ok(())
    }

    fn numbers(&self) -> HashMap<ObjectName, u32> {
        self.by_number.iter().map(|(number, fault)| (fault.name, *number)).collect()
    }

    /// Reads one chunk of a damaged pack.
    async fn is_readable(
        &self,
        repository: &Repository,
        index: &Index,
        number: u32,
        entry: &FragmentEntry,
    ) -> Result<bool> {
        let location = location_of(number, entry);
        let (Some(fault), Some(pack)) = (self.by_number.get(&number), index.pack(number)) else { return Ok(false) };
        if location.range().end > fault.len {
            return Ok(false);
        }
        match repository.read_at(&entry.id, &pack, &location).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// True if some file may be touched: what has a whole copy elsewhere touches nothing.
    pub(super) fn loses_something(&self) -> bool {
        self.by_number.values().any(Fault::loses_something)
    }

    /// Turns each into a finding.
    pub(super) fn report(self, touches: &mut TouchMap, findings: &mut Findings) {
        for (number, fault) in self.by_number {
            let touched = touches.remove(&Cause::Pack(number)).unwrap_or_default();
            let lost = fault.loses_something() || touched.count > 0;
            let severity = if lost { Severity::Error } else { Severity::Warning };
            let heal = match fault.kind {
                _ if !lost => heal::SPARED_PACK,
                Kind::Missing => heal::MISSING_PACK,
                Kind::Unreadable | Kind::Damaged | Kind::Contradicted | Kind::Remembered => heal::DAMAGED_PACK,
            };
            let what = format!("{}; {}", fault.what, fault.consequence());
            findings.add(Finding::new(severity, fault.name.to_string(), what, heal).touching(touched));
        }
    }
}

impl Fault {
    /// A part of it may be whole, and reading tells which.
    fn wants_reading(&self) -> bool {
        matches!(self.kind, Kind::Damaged | Kind::Contradicted)
            && !matches!(self.extent, Extent::Chunks(_))
            && self.len > 0
    }

    fn loses_something(&self) -> bool {
        !self.assessed || self.lost > 0
    }

    fn consequence(&self) -> String {
        let up_to = if self.kind == Kind::Remembered { "up to " } else { "" };
        match (self.assessed, self.lost, self.spared) {
            (false, ..) => "no index fragment tells what was in it".to_owned(),
            (true, 0, 0) => "every chunk in it is whole".to_owned(),
            (true, 0, spared) => format!("each of its {spared} damaged chunks has a whole copy elsewhere"),
            (true, lost, 0) => format!("{up_to}{lost} chunks are lost with it"),
            (true, lost, spared) => {
                format!("{up_to}{lost} chunks are lost with it, {spared} have a whole copy elsewhere")
            }
        }
    }
}

fn location_of(pack: u32, entry: &FragmentEntry) -> Location {
    let FragmentEntry { offset, stored_len, plain_len, coding, .. } = *entry;
    Location { pack, offset, stored_len, plain_len, coding }
}

/// Every entry of the live fragments that lies in one of these packs. Damaged fragments are findings of their own.
async fn for_each_entry(
    repository: &Repository,
    state: &LogState,
    packs: &HashMap<ObjectName, u32>,
    mut visit: impl AsyncFnMut(u32, &FragmentEntry) -> Result<()>,
) -> Result<()> {
    let mut done: HashSet<u32> = HashSet::new();
    let mut fragments = fragments::read_all(repository, state);
    while let Some((_, fragment)) = fragments.next().await {
        let fragment = match fragment {
            Ok(fragment) => fragment,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        // A pack counts by the first fragment that names it.
        let number_of = |name| packs.get(name).copied().filter(|number| !done.contains(number));
        let numbers: Vec<Option<u32>> = fragment.packs.iter().map(|pack| number_of(&pack.name)).collect();
        if numbers.iter().all(Option::is_none) {
            continue;
        }
        for entry in &fragment.entries {
            if let Some(Some(number)) = numbers.get(usize::from(entry.pack)) {
                visit(*number, entry).await?;
            }
        }
        done.extend(numbers.into_iter().flatten());
    }
    Ok(())
}
