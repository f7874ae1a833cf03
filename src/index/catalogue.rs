//! The catalogue of an index: its packs, folded fragments and runs, in one small redb file (the only home of redb).
//!
//! redb makes what belongs together change together, and survives a crash at any point. It may stumble over a file that was damaged while
//! it was closed, so the file is not shown to it then: at the end its checksum is written beside it, and at the next opening it must
//! fit. After a crash there is no checksum; then redb itself verifies every page.

use std::collections::HashMap;

use redb::{
    Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use super::home::Home;
use super::run::RunInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checksum;
use crate::id::{EntryHash, ObjectHash, ObjectKind, ObjectName, RepositoryId, SessionId};

/// Pack number → size and name.
const PACKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("packs");
/// Fragment name → the numbers of its packs.
const FRAGMENTS: TableDefinition<'_, &[u8; NAME_LEN], &[u8]> = TableDefinition::new("fragments");
/// Run number → rows and checksum. A greater number is a newer run.
const RUNS: TableDefinition<'_, u32, (u64, u32)> = TableDefinition::new("runs");
/// Facts about this file.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const NAME_LEN: usize = 41;
/// Changes whenever the tables or the runs do: an index of another layout is thrown away.
const LAYOUT: &[u8] = b"everpack index 2";
/// redb's default cache is 1 GiB.
const CACHE_BYTES: usize = 8 << 20;
const FILE: &str = "index.redb";
const SUM: &str = "index.sum";

/// A pack as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackInfo {
    pub(crate) name: ObjectName,
    /// Bytes of the stored object.
    pub(crate) size: u64,
}

/// Everything in the catalogue.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) packs: Vec<PackInfo>,
    pub(super) fragments: HashMap<ObjectName, Vec<u32>>,
    /// Oldest first.
    pub(super) runs: Vec<RunInfo>,
    pub(super) seen: Option<(u64, EntryHash)>,
}

/// What changes together.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) packs: Vec<(u32, PackInfo)>,
    pub(super) fragments: Vec<(ObjectName, Vec<u32>)>,
    pub(super) fragments_gone: Vec<ObjectName>,
    pub(super) runs: Vec<RunInfo>,
    pub(super) runs_gone: Vec<u32>,
    pub(super) seen: Option<(u64, EntryHash)>,
    /// This change and all before it outlive a crash.
    pub(super) durable: bool,
}

/// The open catalogue.
#[derive(Debug)]
pub(super) struct Catalogue {
    /// `None` only while it is dropped.
    db: Option<Database>,
    /// Where the checksum goes at the end.
    sum: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

impl Catalogue {
    /// Opens or makes the catalogue. Fails if it belongs to something else or is damaged.
    pub(super) fn open(home: &Home, repository: RepositoryId) -> Result<(Self, Contents)> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let db = match (home.path(FILE), home.path(SUM)) {
            (Some(file), Some(sum)) => {
                let is_new = !file.exists();
                let was_closed = !is_new && verify_sum(&file, &sum)?;
                if sum.exists() {
                    std::fs::remove_file(&sum).map_err(|error| failed(error.into()))?;
                }
                let mut db = builder.create(&file).map_err(|error| failed(error.into()))?;
                if !is_new && !was_closed {
                    db.check_integrity().map_err(|error| failed(error.into()))?;
                }
                Self { db: Some(db), sum: Some((file, sum)) }
            }
            _ => {
                let db = builder.create_file(home.create_file(FILE)?).map_err(|error| failed(error.into()))?;
                Self { db: Some(db), sum: None }
            }
        };
        let contents = db.load(repository)?;
        Ok((db, contents))
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("it is there until it is dropped")
    }

    fn load(&self, repository: RepositoryId) -> Result<Contents> {
        let is = [LAYOUT, repository.as_bytes().as_slice()].concat();
        match self.read(&is) {
            Ok(Some(contents)) => contents,
            Ok(None) => self
                .write(|txn| {
                    txn.open_table(META)?.insert("is", is.as_slice())?;
                    txn.open_table(PACKS)?;
                    txn.open_table(FRAGMENTS)?;
                    txn.open_table(RUNS)?;
                    Ok(())
                })
                .map(|()| Contents::default()),
            Err(error) => Err(failed(error)),
        }
    }

    /// `None` if nothing was ever written.
    fn read(&self, is: &[u8]) -> std::result::Result<Option<Result<Contents>>, redb::Error> {
        let txn = self.db().begin_read()?;
        let meta = match txn.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if meta.get("is")?.is_none_or(|found| found.value() != is) {
            return Ok(Some(Err(Error::corrupt("the local index belongs to something else"))));
        }
        let seen = meta.get("seen")?.and_then(|value| {
            let (number, hash) = value.value().split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*number), EntryHash::from_bytes(hash.try_into().ok()?)))
        });
        let mut contents = Contents { seen, ..Contents::default() };
        for row in txn.open_table(PACKS)?.iter()? {
            let (number, value) = row?;
            match decode_pack(value.value()) {
                Ok(pack) if number.value() as usize == contents.packs.len() => contents.packs.push(pack),
                Ok(_) => return Ok(Some(Err(Error::corrupt("the local index: pack numbers have gaps")))),
                Err(error) => return Ok(Some(Err(error))),
            }
        }
        for row in txn.open_table(FRAGMENTS)?.iter()? {
            let (name, numbers) = row?;
            let (numbers, _) = numbers.value().as_chunks::<4>();
            let numbers: Vec<u32> = numbers.iter().map(|number| u32::from_le_bytes(*number)).collect();
            if numbers.iter().any(|number| *number as usize >= contents.packs.len()) {
                return Ok(Some(Err(Error::corrupt("the local index: a fragment names a pack that is not there"))));
            }
            match decode_name(name.value()) {
                Ok(name) => drop(contents.fragments.insert(name, numbers)),
                Err(error) => return Ok(Some(Err(error))),
            }
        }
        for row in txn.open_table(RUNS)?.iter()? {
            let (number, value) = row?;
            let (rows, checksum) = value.value();
            contents.runs.push(RunInfo { number: number.value(), rows, checksum });
        }
        Ok(Some(Ok(contents)))
    }

    /// Applies a change, whole or not at all.
    pub(super) fn apply(&self, change: &Change) -> Result<()> {
        let durability = if change.durable { Durability::Immediate } else { Durability::None };
        self.write(|txn| {
            txn.set_durability(durability)?;
            let mut packs = txn.open_table(PACKS)?;
            for (number, pack) in &change.packs {
                packs.insert(number, encode_pack(*pack).as_slice())?;
            }
            let mut fragments = txn.open_table(FRAGMENTS)?;
            for name in &change.fragments_gone {
                fragments.remove(&encode_name(name))?;
            }
            for (name, numbers) in &change.fragments {
                let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                fragments.insert(&encode_name(name), numbers.as_slice())?;
            }
            let mut runs = txn.open_table(RUNS)?;
            for number in &change.runs_gone {
                runs.remove(number)?;
            }
            for run in &change.runs {
                runs.insert(run.number, (run.rows, run.checksum))?;
            }
            if let Some((head, hash)) = &change.seen {
                let value = [head.to_le_bytes().as_slice(), hash.as_bytes()].concat();
                txn.open_table(META)?.insert("seen", value.as_slice())?;
            }
            Ok(())
        })
    }

    fn write(&self, change: impl FnOnce(&mut WriteTransaction) -> std::result::Result<(), redb::Error>) -> Result<()> {
        let run = || -> std::result::Result<(), redb::Error> {
            let mut txn = self.db().begin_write()?;
            change(&mut txn)?;
            txn.commit()?;
            Ok(())
        };
        run().map_err(failed)
    }
}

impl Drop for Catalogue {
    /// Without the checksum the next opening verifies page by page: nothing depends on getting here.
    fn drop(&mut self) {
        drop(self.db.take());
        if let Some((file, sum)) = &self.sum
            && let Ok(bytes) = std::fs::read(file)
        {
            let _kept = std::fs::write(sum, checksum(&bytes).to_le_bytes());
        }
    }
}

/// True if the file is the one that was closed; false if it was never closed properly. Fails if it was changed since.
fn verify_sum(file: &std::path::Path, sum: &std::path::Path) -> Result<bool> {
    let Ok(stored) = std::fs::read(sum) else { return Ok(false) };
    let bytes = std::fs::read(file).map_err(|error| failed(error.into()))?;
    if stored == checksum(&bytes).to_le_bytes() {
        return Ok(true);
    }
    Err(Error::corrupt("the local index was changed since it was closed"))
}

/// True for the names of the catalogue's own files.
pub(super) fn is_ours(name: &str) -> bool {
    name == FILE || name == SUM
}

fn failed(error: redb::Error) -> Error {
    Error::with_source(ErrorKind::Unavailable, format!("the local index: {error}"), error)
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
