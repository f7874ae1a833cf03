//! Packs that are damaged or missing, and chunks that no live pack holds.
//!
//! Of a bad pack only those chunks matter that are whole nowhere else. They come, in this order, from a whole pack of the same hash at the
//! replica, out of the pack itself record by record, from wherever the replica has them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};

use super::RepairReport;
use super::donor::{Donor, find_whole};
use super::workshop::Workshop;
use crate::codec::{Decoder, chunk_id, object_hash};
use crate::error::{Error, ErrorKind, Result};
use crate::format::fragment::FragmentEntry;
use crate::format::pack::{RecordHeader, TableEntry};
use crate::format::scrub::{ScrubFact, ScrubResult};
use crate::id::{ChunkId, FamilyId, ObjectKind, ObjectName};
use crate::index::{Index, fetch_fragment};
use crate::ops::check::Suspects;
use crate::pack::{PackScan, salvage};
use crate::progress::Monitor;
use crate::repo::{CodedChunk, Repository};
use crate::store::{Folder, StoredObject};

/// Chunks fetched at once.
const FETCH_AT_ONCE: usize = 16;

/// What reading a suspected pack gave.
enum Verdict {
    /// Every byte is what was written.
    Whole(Bytes, Vec<TableEntry>),
    /// It is there, and is not what was written.
    Damaged(Bytes),
    /// It is not there, or the store fails to give it.
    Gone,
}

/// Heals what is suspected. Gives the objects of which something stays lost, as findings call them.
pub(super) async fn heal(
    workshop: &mut Workshop<'_>,
    donor: Option<&Donor>,
    suspects: &Suspects,
    monitor: &Arc<dyn Monitor>,
    report: &mut RepairReport,
) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    let mut whole = Vec::new();
    let index = workshop.repository.index().await?;
    let bad: HashSet<ObjectName> = suspects.packs.iter().map(|(name, _)| *name).collect();
    let entries = entries_of(workshop.repository, &bad).await?;
    for (name, what) in &suspects.packs {
        if monitor.cancelled() {
            workshop.publish().await?;
            return Err(Error::new(ErrorKind::Unavailable, "repair: stopped on request; what was healed stays healed"));
        }
        let entries = entries.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut patient = Patient { workshop, index: &index, donor, bad: &bad, name: *name, what, entries, report };
        match patient.heal().await? {
            Outcome::Healed => {}
            Outcome::Whole(size) => whole.push((*name, size)),
            Outcome::Lost => lost.push(name.to_string()),
        }
        workshop.tend().await?;
        monitor.advance(0, 0, 1);
    }
    if heal_missing(workshop, &index, donor, &suspects.chunks, report).await? > 0 {
        lost.push(match suspects.chunks.as_slice() {
            [one] => format!("chunk {one}"),
            many => format!("{} chunks", many.len()),
        });
    }
    workshop.publish().await?;
    note_whole(workshop, &whole).await?;
    Ok(lost)
}

/// The ledger learns that a pack that it calls damaged was read whole.
async fn note_whole(workshop: &Workshop<'_>, whole: &[(ObjectName, u64)]) -> Result<()> {
    let Some(session) = workshop.session else { return Ok(()) };
    if whole.is_empty() {
        return Ok(());
    }
    let clock = workshop.repository.clock_of(session).await?;
    let fact = |(pack, size): &(ObjectName, u64)| ScrubFact {
        pack: *pack,
        size: *size,
        time: clock.now(),
        result: ScrubResult::Whole,
    };
    let facts: Vec<_> = whole.iter().map(fact).collect();
    workshop.repository.store_ledger_part(session, &facts).await
}

/// What the live fragments say of these packs.
async fn entries_of(
    repository: &Repository,
    packs: &HashSet<ObjectName>,
) -> Result<HashMap<ObjectName, Vec<FragmentEntry>>> {
    let mut entries: HashMap<ObjectName, Vec<FragmentEntry>> = HashMap::new();
    if packs.is_empty() {
        return Ok(entries);
    }
    let state = repository.state();
    let mut fragments =
        stream::iter(&state.fragments).map(|(_, name)| fetch_fragment(repository.store(), name)).buffered(4);
    while let Some(fragment) = fragments.next().await {
        let fragment = match fragment {
            Ok(fragment) => fragment,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        let wanted: Vec<bool> = fragment.packs.iter().map(|pack| packs.contains(&pack.name)).collect();
        for entry in &fragment.entries {
            let at = usize::from(entry.pack);
            if wanted.get(at) == Some(&true) {
                entries.entry(fragment.packs[at].name).or_default().push(*entry);
            }
        }
    }
    Ok(entries)
}

enum Outcome {
    Healed,
    /// It is whole, and has so many bytes.
    Whole(u64),
    /// Some of its chunks are whole nowhere.
    Lost,
}

/// One suspected pack.
struct Patient<'a, 'b> {
    workshop: &'a mut Workshop<'b>,
    index: &'a Index,
    donor: Option<&'a Donor>,
    /// All suspected packs: a copy in another of them is no copy.
    bad: &'a HashSet<ObjectName>,
    name: ObjectName,
    what: &'a str,
    entries: &'a [FragmentEntry],
    report: &'a mut RepairReport,
}

impl Patient<'_, '_> {
    async fn heal(&mut self) -> Result<Outcome> {
        let verdict = self.examine().await?;
        if let Verdict::Whole(stored, table) = &verdict {
            if self.agrees(table) {
                self.report.add(self.name.to_string(), self.what, "read again: every byte is what was written");
                return Ok(Outcome::Whole(stored.len() as u64));
            }
            let (stored, table) = (stored.clone(), table.clone());
            self.workshop.push_pack(self.name.kind, self.name.hash, stored, &table).await?;
            return Ok(self.replace("stored anew, and published with its own table"));
        }
        let needed = self.needed()?;
        if needed.is_empty() {
            return Ok(self.replace("taken out of use: each of its chunks has a whole copy elsewhere"));
        }
        if let Some(donor) = self.donor
            && let Some(stored) = donor.pack(self.name.kind, &self.name.hash).await?
        {
            let family = self.workshop.repository.config().family;
            let table = PackScan::new(&stored, family).map(|scan| scan.table().to_vec());
            if let Ok(table) = table {
                self.report.bytes_fetched += stored.len() as u64;
                self.workshop.push_pack(self.name.kind, self.name.hash, stored, &table).await?;
                return Ok(self.replace(&format!("a good copy was fetched from {}", donor.location())));
            }
        }
        self.save(&needed, &verdict).await
    }

    /// Reads the pack, a second time if the first was bad: a bad cable is no reason to take it out of use.
    async fn examine(&self) -> Result<Verdict> {
        let repository = self.workshop.repository;
        let mut stored = None;
        for _ in 0..2 {
            match repository.store().get(StoredObject::Named(self.name)).await {
                Ok(bytes) => {
                    if object_hash(&bytes) == self.name.hash
                        && let Some(table) = whole_table(&bytes, repository.config().family)?
                    {
                        return Ok(Verdict::Whole(bytes, table));
                    }
                    stored = Some(bytes);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Verdict::Gone),
                // Whether the pack or the store is at fault, a write will tell.
                Err(_) => {}
            }
        }
        Ok(stored.map_or(Verdict::Gone, Verdict::Damaged))
    }

    /// True if the index fragments say of the pack what its own table says.
    fn agrees(&self, table: &[TableEntry]) -> bool {
        let said: HashSet<_> =
            self.entries.iter().map(|e| (e.id, e.offset, e.stored_len, e.plain_len, e.coding)).collect();
        let is: HashSet<_> = table
            .iter()
            .map(|TableEntry { record: r, offset }| (r.id, *offset, r.stored_len, r.plain_len, r.coding))
            .collect();
        said == is
    }

    /// The chunks of which no other live pack is believed to have a copy.
    fn needed(&mut self) -> Result<Vec<FragmentEntry>> {
        let mut needed = Vec::new();
        for entry in self.entries {
            if self.workshop.has(&entry.id) {
                continue;
            }
            let locations = self.index.locations(&entry.id)?;
            let packs = locations.iter().filter_map(|location| self.index.pack(location.pack));
            match packs.map(|pack| pack.name).find(|name| !self.bad.contains(name)) {
                Some(spare) => self.workshop.rely_on(spare),
                None => needed.push(*entry),
            }
        }
        Ok(needed)
    }

    fn replace(&mut self, how: &str) -> Outcome {
        self.workshop.quarantine(self.name, format!("{}; {how}", self.what));
        self.report.add(self.name.to_string(), self.what, how);
        Outcome::Healed
    }

    /// Chunk by chunk: out of the pack itself, else from the replica.
    async fn save(&mut self, needed: &[FragmentEntry], verdict: &Verdict) -> Result<Outcome> {
        let kind = self.name.kind;
        let (mut saved, mut fetched, mut lost) = (0u64, 0u64, 0u64);
        let mut rest = Vec::new();
        match verdict {
            Verdict::Damaged(stored) => {
                let mut records = Records::new(stored)?;
                for entry in needed {
                    match records.chunk(entry) {
                        Some(chunk) => {
                            self.workshop.push(kind, &chunk).await?;
                            saved += 1;
                        }
                        None => rest.push(entry.id),
                    }
                }
            }
            _ => rest.extend(needed.iter().map(|entry| entry.id)),
        }
        if let Some(donor) = self.donor {
            let mut found = stream::iter(rest).map(|id| async move { donor.chunk(&id).await }).buffered(FETCH_AT_ONCE);
            while let Some(chunk) = found.next().await {
                match chunk? {
                    Some((_, chunk)) => {
                        self.report.bytes_fetched += chunk.payload.len() as u64;
                        self.workshop.push(kind, &chunk).await?;
                        fetched += 1;
                    }
                    None => lost += 1,
                }
            }
        } else {
            lost = rest.len() as u64;
        }
        let is_there = matches!(verdict, Verdict::Damaged(_));
        let mut parts = Vec::new();
        if saved > 0 {
            parts.push(format!("{saved} chunks were saved out of it"));
        }
        if fetched > 0 {
            parts.push(format!("{fetched} chunks were fetched from the replica"));
        }
        if lost > 0 {
            parts.push(format!("{lost} chunks are whole nowhere"));
        }
        let how = parts.join(", ");
        if lost == 0 || is_there {
            let _outcome = self.replace(&how);
        } else if fetched > 0 {
            self.report.add(self.name.to_string(), self.what, &how);
        }
        Ok(if lost > 0 { Outcome::Lost } else { Outcome::Healed })
    }
}

/// The table of a pack of which every chunk decodes; `None` if one does not.
pub(super) fn whole_table(stored: &Bytes, family: FamilyId) -> Result<Option<Vec<TableEntry>>> {
    let scan = match PackScan::new(stored, family) {
        Ok(scan) => scan,
        Err(error) if error.is_damage() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut decoder = Decoder::new()?;
    let mut plain = Vec::new();
    for (header, payload) in scan.records() {
        if !proves(&mut decoder, header.coding, payload, header.plain_len, &header.id, &mut plain) {
            return Ok(None);
        }
    }
    Ok(Some(scan.table().to_vec()))
}

fn proves(
    decoder: &mut Decoder,
    coding: u8,
    payload: &[u8],
    plain_len: u32,
    id: &ChunkId,
    plain: &mut Vec<u8>,
) -> bool {
    decoder.decode_into(coding, payload, plain_len, plain).is_ok() && chunk_id(plain) == *id
}

/// Whole chunks out of a damaged pack.
pub(super) struct Records<'a> {
    stored: &'a [u8],
    found: HashMap<ChunkId, TableEntry>,
    decoder: Decoder,
    plain: Vec<u8>,
}

impl<'a> Records<'a> {
    pub(super) fn new(stored: &'a [u8]) -> Result<Self> {
        let found = salvage(stored).into_iter().map(|entry| (entry.record.id, entry)).collect();
        Ok(Self { stored, found, decoder: Decoder::new()?, plain: Vec::new() })
    }

    /// The chunk where the index says that it is, even if its record's header is broken; else where its header was found.
    fn chunk(&mut self, entry: &FragmentEntry) -> Option<CodedChunk> {
        let FragmentEntry { id, stored_len, plain_len, coding, .. } = *entry;
        let said = TableEntry { record: RecordHeader { id, stored_len, plain_len, coding }, offset: entry.offset };
        let found = self.found.get(&id).copied();
        [Some(said), found].into_iter().flatten().find_map(|place| self.take(&place))
    }

    /// Where whole headers were found.
    pub(super) fn places(&self) -> Vec<TableEntry> {
        let mut places: Vec<_> = self.found.values().copied().collect();
        places.sort_unstable_by_key(|place| place.offset);
        places
    }

    /// The chunk there, if it is whole.
    pub(super) fn take(&mut self, place: &TableEntry) -> Option<CodedChunk> {
        let RecordHeader { id, stored_len, plain_len, coding } = place.record;
        let start = place.offset as usize + RecordHeader::LEN;
        let payload = self.stored.get(start..start.checked_add(stored_len as usize)?)?;
        proves(&mut self.decoder, coding, payload, plain_len, &id, &mut self.plain).then(|| CodedChunk {
            id,
            plain_len,
            coding,
            payload: payload.to_vec(),
        })
    }
}

/// Chunks that no live pack holds: looked for in packs that do not count, in packs that nobody names, at the replica. Gives how many are nowhere.
async fn heal_missing(
    workshop: &mut Workshop<'_>,
    index: &Index,
    donor: Option<&Donor>,
    chunks: &[ChunkId],
    report: &mut RepairReport,
) -> Result<u64> {
    let wanted: Vec<ChunkId> = chunks.iter().filter(|id| !workshop.has(id)).copied().collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let repository = workshop.repository;
    let mut rest: HashSet<ChunkId> = HashSet::new();
    let (mut here, mut fetched) = (0u64, 0u64);
    let mut found = stream::iter(wanted.iter().copied())
        .map(|id| async move { (id, find_whole(repository, index, &id).await) })
        .buffered(FETCH_AT_ONCE);
    while let Some((id, chunk)) = found.next().await {
        match chunk? {
            Some((kind, chunk)) => {
                workshop.push(kind, &chunk).await?;
                here += 1;
            }
            None => drop(rest.insert(id)),
        }
    }
    drop(found);
    if !rest.is_empty() {
        here += search_strays(workshop, index, &mut rest).await?;
    }
    if let Some(donor) = donor {
        let ids: Vec<ChunkId> = rest.iter().copied().collect();
        let mut found = stream::iter(ids).map(|id| async move { (id, donor.chunk(&id).await) }).buffered(FETCH_AT_ONCE);
        while let Some((id, chunk)) = found.next().await {
            if let Some((kind, chunk)) = chunk? {
                report.bytes_fetched += chunk.payload.len() as u64;
                workshop.push(kind, &chunk).await?;
                rest.remove(&id);
                fetched += 1;
            }
        }
    }
    if here + fetched > 0 {
        let object = match chunks {
            [one] => format!("chunk {one}"),
            many => format!("{} chunks", many.len()),
        };
        let mut how = Vec::new();
        if here > 0 {
            how.push(format!("{here} were found in packs that did not count"));
        }
        if fetched > 0 {
            how.push(format!("{fetched} were fetched from the replica"));
        }
        report.add(object, "no live pack held them", how.join(", "));
    }
    Ok(rest.len() as u64)
}

/// Looks through packs that no fragment names: their fragment was lost, and their table with it.
async fn search_strays(workshop: &mut Workshop<'_>, index: &Index, rest: &mut HashSet<ChunkId>) -> Result<u64> {
    let repository = workshop.repository;
    let known = index.known_packs();
    let mut strays = Vec::new();
    for kind in [ObjectKind::DataPack, ObjectKind::MetaPack] {
        let mut listing = repository.store().list(Folder::of(kind));
        while let Some(info) = listing.try_next().await? {
            if let StoredObject::Named(name) = info.object()
                && !known.contains(&name)
            {
                strays.push(name);
            }
        }
    }
    let mut saved = 0;
    for name in strays {
        let stored = match repository.store().get(StoredObject::Named(name)).await {
            Ok(stored) => stored,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        let mut records = Records::new(&stored)?;
        let places: Vec<TableEntry> =
            records.found.values().filter(|place| rest.contains(&place.record.id)).copied().collect();
        for place in places {
            if let Some(chunk) = records.take(&place) {
                workshop.push(name.kind, &chunk).await?;
                rest.remove(&place.record.id);
                saved += 1;
            }
        }
        workshop.tend().await?;
    }
    Ok(saved)
}
