//! The redb file behind the index.
//!
//! One process writes it at a time (redb locks the file). Another process on the same host gets a private one without a name, filled from the
//! fragments and gone with the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{
    Builder, Database, DatabaseError, MultimapTableDefinition, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::fragment::{Fragment, FragmentEntry};
use crate::id::{ChunkId, EntryHash, ObjectHash, ObjectKind, ObjectName, RepositoryId, SessionId};
use crate::pack::Location;

/// First location of each chunk.
const CHUNKS: TableDefinition<&[u8; 32], &[u8; LOCATION_LEN]> = TableDefinition::new("chunks");
/// Further locations.
const SPARES: MultimapTableDefinition<&[u8; 32], &[u8; LOCATION_LEN]> = MultimapTableDefinition::new("spares");
/// Pack number → name and size.
const PACKS: TableDefinition<u32, &[u8]> = TableDefinition::new("packs");
/// Fragment name → the numbers of its packs.
const FRAGMENTS: TableDefinition<&[u8; NAME_LEN], &[u8]> = TableDefinition::new("fragments");
/// Facts about this file.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

const LOCATION_LEN: usize = 17;
const NAME_LEN: usize = 41;
/// Changes whenever the tables do: an index of another layout is thrown away.
const LAYOUT: &[u8] = b"everpack index 1";
/// redb's default cache is 1 GiB.
const CACHE_BYTES: usize = 32 << 20;

/// A pack as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackInfo {
    pub(crate) name: ObjectName,
    /// Bytes of the stored object.
    pub(crate) size: u64,
}

/// All packs, in memory: about 70 bytes each.
#[derive(Debug, Default)]
struct Packs {
    infos: Vec<PackInfo>,
    numbers: HashMap<ObjectName, u32>,
    /// Packs whose locations count.
    live: Vec<bool>,
    /// Folded fragments and their packs.
    fragments: HashMap<ObjectName, Vec<u32>>,
}

/// The local index of one repository.
#[derive(Debug)]
pub(crate) struct Index {
    db: Database,
    packs: RwLock<Packs>,
    private: bool,
}

impl Index {
    /// Opens the index kept in `directory`, or makes a private one if another process has it or the directory cannot be written.
    pub(crate) fn open(directory: Option<&Path>, repository: RepositoryId) -> Result<Self> {
        if let Some(directory) = directory
            && std::fs::create_dir_all(directory).is_ok()
        {
            let path = directory.join("index.redb");
            match Self::open_file(&path, repository) {
                Ok(Some(index)) => return Ok(index),
                Ok(None) => return Self::open_private(Some(directory), repository),
                Err(_) => {
                    // Of another repository, of another layout, or damaged: a cache is not worth repairing.
                    let _gone = std::fs::remove_file(&path);
                    if let Ok(Some(index)) = Self::open_file(&path, repository) {
                        return Ok(index);
                    }
                }
            }
        }
        Self::open_private(directory, repository)
    }

    /// `None` if another process has it open.
    fn open_file(path: &Path, repository: RepositoryId) -> Result<Option<Self>> {
        match Builder::new().set_cache_size(CACHE_BYTES).create(path) {
            Ok(db) => Self::load(db, repository, false).map(Some),
            Err(DatabaseError::DatabaseAlreadyOpen) => Ok(None),
            Err(error) => Err(failed("open the local index", error)),
        }
    }

    /// An index without a name, which is gone when the process ends.
    fn open_private(directory: Option<&Path>, repository: RepositoryId) -> Result<Self> {
        let places = [directory.map(Path::to_path_buf), Some(std::env::temp_dir()), Some(PathBuf::from("/var/tmp"))];
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        for place in places.into_iter().flatten() {
            if let Ok(fd) = rustix::fs::open(&place, flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR) {
                let db = Builder::new()
                    .set_cache_size(CACHE_BYTES)
                    .create_file(std::fs::File::from(fd))
                    .map_err(|error| failed("create a private index", error))?;
                return Self::load(db, repository, true);
            }
        }
        let db = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(|error| failed("create an index in memory", error))?;
        Self::load(db, repository, true)
    }

    fn load(db: Database, repository: RepositoryId, private: bool) -> Result<Self> {
        let index = Self { db, packs: RwLock::default(), private };
        index.prepare(repository)?;
        index.read_packs().context(|| "read the local index")?;
        Ok(index)
    }

    /// Makes the tables of a new file; refuses one that belongs to something else.
    fn prepare(&self, repository: RepositoryId) -> Result<()> {
        let wanted = [LAYOUT, repository.as_bytes().as_slice()].concat();
        let txn = self.db.begin_write().map_err(|error| failed("write the local index", error))?;
        {
            let mut meta = txn.open_table(META).map_err(|error| failed("open the local index", error))?;
            let found = meta
                .get("is")
                .map_err(|error| failed("read the local index", error))?
                .map(|value| value.value().to_vec());
            match found {
                Some(found) if found != wanted => {
                    return Err(Error::corrupt("the local index belongs to something else"));
                }
                Some(_) => {}
                None => {
                    meta.insert("is", wanted.as_slice()).map_err(|error| failed("write the local index", error))?;
                }
            }
            txn.open_table(CHUNKS).map_err(|error| failed("open the local index", error))?;
            txn.open_multimap_table(SPARES).map_err(|error| failed("open the local index", error))?;
            txn.open_table(PACKS).map_err(|error| failed("open the local index", error))?;
            txn.open_table(FRAGMENTS).map_err(|error| failed("open the local index", error))?;
        }
        txn.commit().map_err(|error| failed("write the local index", error))
    }

    fn read_packs(&self) -> Result<()> {
        let txn = self.db.begin_read().map_err(|error| failed("read", error))?;
        let mut packs = Packs::default();
        let table = txn.open_table(PACKS).map_err(|error| failed("read", error))?;
        for row in table.iter().map_err(|error| failed("read", error))? {
            let (number, value) = row.map_err(|error| failed("read", error))?;
            if number.value() as usize != packs.infos.len() {
                return Err(Error::corrupt("pack numbers have gaps"));
            }
            packs.add(decode_pack(value.value())?);
        }
        let table = txn.open_table(FRAGMENTS).map_err(|error| failed("read", error))?;
        for row in table.iter().map_err(|error| failed("read", error))? {
            let (name, numbers) = row.map_err(|error| failed("read", error))?;
            let numbers: Vec<u32> =
                numbers.value().chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]])).collect();
            if numbers.iter().any(|number| *number as usize >= packs.infos.len()) {
                return Err(Error::corrupt("a fragment names a pack that is not there"));
            }
            packs.fragments.insert(decode_name(name.value())?, numbers);
        }
        *self.packs.write().unwrap_or_else(PoisonError::into_inner) = packs;
        Ok(())
    }

    /// True if nothing of it outlives this process.
    pub(crate) fn is_private(&self) -> bool {
        self.private
    }

    /// The newest log entry that this host has seen of the repository, by which a log that went backwards is noticed.
    pub(crate) fn seen(&self) -> Result<Option<(u64, EntryHash)>> {
        let txn = self.db.begin_read().map_err(|error| failed("read the local index", error))?;
        let meta = txn.open_table(META).map_err(|error| failed("read the local index", error))?;
        let value = meta.get("seen").map_err(|error| failed("read the local index", error))?;
        Ok(value.and_then(|value| {
            let (number, hash) = value.value().split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*number), EntryHash::from_bytes(hash.try_into().ok()?)))
        }))
    }

    /// Remembers the newest entry seen.
    pub(crate) fn set_seen(&self, head: u64, hash: EntryHash) -> Result<()> {
        let mut txn = self.db.begin_write().map_err(|error| failed("write the local index", error))?;
        txn.set_durability(redb::Durability::None).map_err(|error| failed("write the local index", error))?;
        {
            let mut meta = txn.open_table(META).map_err(|error| failed("write the local index", error))?;
            let value = [head.to_le_bytes().as_slice(), hash.as_bytes()].concat();
            meta.insert("seen", value.as_slice()).map_err(|error| failed("write the local index", error))?;
        }
        txn.commit().map_err(|error| failed("write the local index", error))
    }

    /// True if this fragment was folded.
    pub(crate) fn has_fragment(&self, name: &ObjectName) -> bool {
        self.packs.read().unwrap_or_else(PoisonError::into_inner).fragments.contains_key(name)
    }

    /// Folds fragments, given in log order, in one transaction.
    pub(crate) fn insert(&self, fragments: &[(ObjectName, Fragment)]) -> Result<()> {
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        let txn = self.db.begin_write().map_err(|error| failed("write the local index", error))?;
        {
            let mut pack_table = txn.open_table(PACKS).map_err(|error| failed("write the local index", error))?;
            let mut fragment_table =
                txn.open_table(FRAGMENTS).map_err(|error| failed("write the local index", error))?;
            let mut entries: Vec<(FragmentEntry, u32)> = Vec::new();
            for (name, fragment) in fragments {
                let mut numbers = Vec::with_capacity(fragment.packs.len());
                for pack in &fragment.packs {
                    let info = PackInfo { name: pack.name, size: pack.size };
                    let number = packs.number_of(info, |number, info| {
                        pack_table.insert(number, encode_pack(info).as_slice()).map(drop)
                    })?;
                    numbers.push(number);
                }
                entries.extend(fragment.entries.iter().map(|entry| (*entry, numbers[usize::from(entry.pack)])));
                let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                fragment_table
                    .insert(&encode_name(name), bytes.as_slice())
                    .map_err(|error| failed("write the local index", error))?;
                packs.fragments.insert(*name, numbers);
            }
            // Stable: of equal ids the earlier fragment's comes first, and the first one counts.
            entries.sort_by_key(|(entry, _)| entry.id);
            let mut chunks = txn.open_table(CHUNKS).map_err(|error| failed("write the local index", error))?;
            let mut spares = txn.open_multimap_table(SPARES).map_err(|error| failed("write the local index", error))?;
            for (entry, number) in &entries {
                let value = encode_location(entry, *number);
                let id = entry.id.as_bytes();
                let known =
                    chunks.get(id).map_err(|error| failed("read the local index", error))?.map(|old| *old.value());
                match known {
                    None => drop(chunks.insert(id, &value).map_err(|error| failed("write the local index", error))?),
                    Some(known) if known == value => {}
                    Some(_) => drop(spares.insert(id, &value).map_err(|error| failed("write the local index", error))?),
                }
            }
        }
        txn.commit().map_err(|error| failed("write the local index", error))
    }

    /// Forgets fragments that do not count any more; their packs count only if another fragment names them.
    pub(crate) fn remove_fragments(&self, gone: &[ObjectName]) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        let txn = self.db.begin_write().map_err(|error| failed("write the local index", error))?;
        {
            let mut table = txn.open_table(FRAGMENTS).map_err(|error| failed("write the local index", error))?;
            for name in gone {
                table.remove(&encode_name(name)).map_err(|error| failed("write the local index", error))?;
                packs.fragments.remove(name);
            }
        }
        txn.commit().map_err(|error| failed("write the local index", error))
    }

    /// Decides which packs count: those of folded fragments, except the ones in `dead`.
    pub(crate) fn set_live(&self, is_dead: impl Fn(&ObjectName) -> bool) {
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        let mut live = vec![false; packs.infos.len()];
        for number in packs.fragments.values().flatten() {
            live[*number as usize] = !is_dead(&packs.infos[*number as usize].name);
        }
        packs.live = live;
    }

    /// Stops counting these packs, until the next `set_live`.
    pub(crate) fn leave_out(&self, numbers: &HashSet<u32>) {
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        for number in numbers {
            if let Some(live) = packs.live.get_mut(*number as usize) {
                *live = false;
            }
        }
    }

    /// The folded fragments.
    pub(crate) fn fragments(&self) -> Vec<ObjectName> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner).fragments.keys().copied().collect()
    }

    /// A pack by its number.
    pub(crate) fn pack(&self, number: u32) -> Option<PackInfo> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner).infos.get(number as usize).copied()
    }

    /// The packs whose locations count.
    pub(crate) fn live_packs(&self) -> Vec<PackInfo> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs.infos.iter().zip(&packs.live).filter(|(_, live)| **live).map(|(info, _)| *info).collect()
    }

    /// Every pack that a folded fragment names, live or not, by session: for telling orphans from lost entries.
    pub(crate) fn known_packs(&self) -> HashSet<ObjectName> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs.fragments.values().flatten().map(|number| packs.infos[*number as usize].name).collect()
    }

    /// The location that counts for each chunk, in the order asked; asking in sorted order is faster.
    pub(crate) fn lookup(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        let txn = self.db.begin_read().map_err(|error| failed("read the local index", error))?;
        let chunks = txn.open_table(CHUNKS).map_err(|error| failed("read the local index", error))?;
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::with_capacity(ids.len());
        let mut spares = None;
        for id in ids {
            let first = chunks.get(id.as_bytes()).map_err(|error| failed("read the local index", error))?;
            let first = first.map(|value| decode_location(value.value()));
            found.push(match first {
                None => None,
                Some(first) if packs.counts(&first) => Some(first),
                Some(_) => {
                    let table = match &spares {
                        Some(table) => table,
                        None => spares.insert(
                            txn.open_multimap_table(SPARES).map_err(|error| failed("read the local index", error))?,
                        ),
                    };
                    let rows = table.get(id.as_bytes()).map_err(|error| failed("read the local index", error))?;
                    let mut spare = None;
                    for row in rows {
                        let row = row.map_err(|error| failed("read the local index", error))?;
                        let location = decode_location(row.value());
                        if packs.counts(&location) && spare.is_none_or(|spare: Location| location.pack < spare.pack) {
                            spare = Some(location);
                        }
                    }
                    spare
                }
            });
        }
        Ok(found)
    }

    /// Every location of a chunk in a live pack, the one that counts first.
    pub(crate) fn locations(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let txn = self.db.begin_read().map_err(|error| failed("read the local index", error))?;
        let chunks = txn.open_table(CHUNKS).map_err(|error| failed("read the local index", error))?;
        let spares = txn.open_multimap_table(SPARES).map_err(|error| failed("read the local index", error))?;
        let first = chunks.get(id.as_bytes()).map_err(|error| failed("read the local index", error))?;
        let mut all: Vec<Location> = first.map(|value| decode_location(value.value())).into_iter().collect();
        for row in spares.get(id.as_bytes()).map_err(|error| failed("read the local index", error))? {
            all.push(decode_location(row.map_err(|error| failed("read the local index", error))?.value()));
        }
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        all.retain(|location| packs.counts(location));
        Ok(all)
    }

    /// A location in a pack that does not count but is still there: for copying a chunk out of a retired pack.
    pub(crate) fn last_resort(&self, id: &ChunkId, is_there: impl Fn(&ObjectName) -> bool) -> Result<Option<Location>> {
        let txn = self.db.begin_read().map_err(|error| failed("read the local index", error))?;
        let chunks = txn.open_table(CHUNKS).map_err(|error| failed("read the local index", error))?;
        let spares = txn.open_multimap_table(SPARES).map_err(|error| failed("read the local index", error))?;
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        let usable =
            |location: &Location| packs.infos.get(location.pack as usize).is_some_and(|info| is_there(&info.name));
        let first = chunks.get(id.as_bytes()).map_err(|error| failed("read the local index", error))?;
        if let Some(location) = first.map(|value| decode_location(value.value())).filter(usable) {
            return Ok(Some(location));
        }
        for row in spares.get(id.as_bytes()).map_err(|error| failed("read the local index", error))? {
            let row = row.map_err(|error| failed("read the local index", error))?;
            if let Some(location) = Some(decode_location(row.value())).filter(usable) {
                return Ok(Some(location));
            }
        }
        Ok(None)
    }

    /// Chunks known, whether their packs count or not.
    pub(crate) fn chunk_count(&self) -> Result<u64> {
        let txn = self.db.begin_read().map_err(|error| failed("read the local index", error))?;
        let chunks = txn.open_table(CHUNKS).map_err(|error| failed("read the local index", error))?;
        chunks.len().map_err(|error| failed("read the local index", error))
    }
}

impl Packs {
    fn add(&mut self, info: PackInfo) -> u32 {
        let number = u32::try_from(self.infos.len()).expect("fewer packs than 2^32");
        self.numbers.insert(info.name, number);
        self.infos.push(info);
        self.live.push(false);
        number
    }

    fn number_of(
        &mut self,
        info: PackInfo,
        store: impl FnOnce(u32, PackInfo) -> std::result::Result<(), redb::StorageError>,
    ) -> Result<u32> {
        if let Some(number) = self.numbers.get(&info.name) {
            return Ok(*number);
        }
        let number = self.add(info);
        self.live[number as usize] = true;
        store(number, info).map_err(|error| failed("write the local index", error))?;
        Ok(number)
    }

    fn counts(&self, location: &Location) -> bool {
        self.live.get(location.pack as usize).copied().unwrap_or(false)
    }
}

fn encode_location(entry: &FragmentEntry, pack: u32) -> [u8; LOCATION_LEN] {
    let mut out = [0; LOCATION_LEN];
    out[..4].copy_from_slice(&pack.to_le_bytes());
    out[4..8].copy_from_slice(&entry.offset.to_le_bytes());
    out[8..12].copy_from_slice(&entry.stored_len.to_le_bytes());
    out[12..16].copy_from_slice(&entry.plain_len.to_le_bytes());
    out[16] = entry.coding;
    out
}

fn decode_location(value: &[u8; LOCATION_LEN]) -> Location {
    let word = |at: usize| u32::from_le_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]);
    Location { pack: word(0), offset: word(4), stored_len: word(8), plain_len: word(12), coding: value[16] }
}

fn encode_name(name: &ObjectName) -> [u8; NAME_LEN] {
    let mut out = [0; NAME_LEN];
    out[0] = name.kind.code();
    out[1..33].copy_from_slice(name.hash.as_bytes());
    out[33..].copy_from_slice(name.session.as_bytes());
    out
}

fn decode_name(value: &[u8; NAME_LEN]) -> Result<ObjectName> {
    let mut hash = [0; 32];
    let mut session = [0; 8];
    hash.copy_from_slice(&value[1..33]);
    session.copy_from_slice(&value[33..]);
    Ok(ObjectName {
        kind: ObjectKind::from_code(value[0])?,
        hash: ObjectHash::from_bytes(hash),
        session: SessionId::from_bytes(session),
    })
}

fn encode_pack(info: PackInfo) -> Vec<u8> {
    [info.size.to_le_bytes().as_slice(), encode_name(&info.name).as_slice()].concat()
}

fn decode_pack(value: &[u8]) -> Result<PackInfo> {
    let broken = || Error::corrupt("a pack's row is of the wrong length");
    let (size, name) = value.split_first_chunk::<8>().ok_or_else(broken)?;
    let name: &[u8; NAME_LEN] = name.try_into().map_err(|_| broken())?;
    Ok(PackInfo { name: decode_name(name)?, size: u64::from_le_bytes(*size) })
}

/// Sizes by kind, for reports: kind → (packs, bytes).
pub(crate) fn sizes(packs: &[PackInfo]) -> BTreeMap<ObjectKind, (u64, u64)> {
    let mut sizes = BTreeMap::new();
    for pack in packs {
        let (count, bytes) = sizes.entry(pack.name.kind).or_insert((0, 0));
        *count += 1;
        *bytes += pack.size;
    }
    sizes
}

fn failed(act: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Unavailable, format!("{act}: {error}"), error)
}
