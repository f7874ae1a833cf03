//! What a `BACKUP` left in the staging root, verified: nothing that a server says is believed before it was looked at.
//!
//! - The marker that a server writes last is there, and every list has the digest beside it.
//! - Every row of `tae_list` is there, in the staging root or, where the server was told that we hold it, in the repository; with its size, and
//!   its SHA-256 where the list tells one.
//! - The closure: every checkpoint can be followed to its last object.
//!
//! What is missing is a result, not an error: it can be fetched from SHARED, or the server asked again.

use std::collections::BTreeMap;
use std::io;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::place::Place;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::matrixone::tree::{self, BackupSum, MetaRow};
use crate::ops::closure::Reader;
use crate::progress::Monitor;
use crate::tae::{
    ClosureReport, FileClass, MetaName, Need, ReadAt, TaeName, TreeView, classify, closure, physical_len,
};

/// More than any of the small files has.
const SMALL_MOST: u64 = 16 << 20;
/// Bytes hashed at a time.
const WINDOW: usize = 1 << 20;

/// Where an object of the backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the staging root.
    Stage,
    /// In the repository; the server was told so.
    Repository,
    /// In SHARED: the server left it out.
    Shared,
    /// Nowhere yet.
    Nowhere,
}

/// An object of the backup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    pub(super) name: TaeName,
    /// Logical bytes.
    pub(super) size: u64,
    pub(super) origin: Origin,
}

/// A backup as it lies in the staging root.
pub(super) struct Arrived {
    pub(super) sum: BackupSum,
    pub(super) meta: Vec<MetaRow>,
    /// Everything that `tae_list` names or the server copied, in the order of names, each once.
    pub(super) objects: Vec<Object>,
    /// Files that the server wrote, and their bytes.
    pub(super) files_copied: u64,
    pub(super) bytes_copied: u64,
    /// Other files in the staging root, and their stored sizes.
    others: BTreeMap<String, u64>,
}

/// Why a backup that the server called done is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) name: TaeName,
    /// Logical bytes, where they are known.
    pub(super) size: u64,
    /// What follows from it.
    pub(super) why: String,
}

/// Reads what is staged and compares it with what the server lists. Blocks.
///
/// `held` are the names that the server was told to leave out, in order.
pub(super) fn read(stage: &Place, runtime: &Handle, held: &[TaeName], monitor: &dyn Monitor) -> Result<Arrived> {
    let (staged, others, files_copied, bytes_copied) = list(stage, runtime)?;
    if !others.contains_key(tree::MO_META) || !others.contains_key(&with_digest(tree::MO_META)) {
        let message = format!(
            "the server says that the backup is done, but the file it writes last, {}, is not in {}: the server and everpack do not see the \
             same directory (another host, a container, a private /tmp), or the copy was cut off. --stage must name a place that both \
             reach; --stage-at-server says what the server calls it",
            with_digest(tree::MO_META),
            stage.display()
        );
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let small = |name: &str| read_verified(stage, runtime, name);
    let meta = tree::parse_meta(&small(tree::MO_META)?)?;
    let sum = tree::parse_sum(&small(tree::TAE_SUM)?)?;
    tree::parse_next_ids(
        &small(tree::HK_DATA).context(|| "a server restored without it gives new tables the ids of old ones")?,
    )?;
    let list = stage.open_logical(runtime, tree::TAE_LIST)?.ok_or_else(|| absent(stage, tree::TAE_LIST))?;
    let mut list = Hashing { file: list, at: 0, hash: Sha256::new() };
    let mut objects: Vec<Object> = Vec::new();
    let mut digests: Vec<(String, [u8; 32])> = Vec::new();
    let mut wrong: Vec<String> = Vec::new();
    for row in tree::list_rows(&mut list) {
        let row = row?;
        let object = row.object();
        let found = match object {
            Some(name) => staged.binary_search_by_key(&name, |(name, _)| *name).ok().map(|at| staged[at].1),
            None => others.get(&format!("tae/{}", row.path)).copied(),
        };
        let mut size = row.size;
        match (found, object) {
            (Some(len), _) => {
                if len != row.size && len != physical_len(row.size) {
                    // Real servers list objects of garbage collection with the size of the file that names them: the digest decides.
                    match row.sha256 {
                        Some(_) => size = logical_size(stage, runtime, &format!("tae/{}", row.path))?,
                        None => wrong.push(format!("{} has {len} bytes, the server lists {}", row.path, row.size)),
                    }
                }
                digests.extend(row.sha256.map(|digest| (format!("tae/{}", row.path), digest)));
            }
            // A file of checkpoints or garbage collection, which the server always copies.
            (None, None) => wrong.push(format!("{} is not there", row.path)),
            (None, Some(_)) => {}
        }
        if let Some(name) = object {
            let origin = match found {
                Some(_) => Origin::Stage,
                None if held.binary_search(&name).is_ok() => Origin::Repository,
                None => Origin::Nowhere,
            };
            objects.push(Object { name, size, origin });
        }
    }
    let digest = list.hash.finalize().into();
    expect_digest(stage, runtime, tree::TAE_LIST, digest)?;
    objects.sort_unstable_by_key(|object| object.name);
    objects.dedup_by_key(|object| object.name);
    add_unlisted(stage, runtime, &staged, &mut objects)?;
    if let Some(first) = wrong.first() {
        let message = format!("{} files of the backup are not as the server lists them; first: {first}", wrong.len());
        return Err(incomplete(message));
    }
    verify_digests(stage, runtime, &digests, monitor)?;
    Ok(Arrived { sum, meta, objects, files_copied, bytes_copied, others })
}

/// Objects with their stored sizes in order, other files, files and bytes in all.
type Listed = (Vec<(TaeName, u64)>, BTreeMap<String, u64>, u64, u64);

fn list(stage: &Place, runtime: &Handle) -> Result<Listed> {
    let (mut objects, mut others, mut files, mut bytes) = (Vec::new(), BTreeMap::new(), 0, 0);
    let mut source = stage.source(runtime)?.ok_or_else(|| absent(stage, "the staging root"))?;
    loop {
        let batch = source.next_batch(4096)?;
        if batch.is_empty() {
            break;
        }
        for entry in batch.into_iter().filter(|entry| entry.kind == crate::source::EntryKind::File) {
            files += 1;
            bytes += entry.size;
            match entry.path.strip_prefix(b"tae/").and_then(TaeName::parse) {
                Some(name) => objects.push((name, entry.size)),
                None => {
                    others.insert(String::from_utf8_lossy(&entry.path).into_owned(), entry.size);
                }
            }
        }
    }
    let failures = source.skipped();
    if failures.failures() > 0 {
        let name = failures.unreadable.names.first().or(failures.unsafe_names.names.first());
        let message = format!(
            "{} files of the backup cannot be looked at, {}: a server writes its files for its own user only; run everpack as that user or as root, or stage in a bucket",
            failures.failures(),
            name.map_or("", String::as_str)
        );
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    objects.sort_unstable();
    Ok((objects, others, files, bytes))
}

fn absent(stage: &Place, name: &str) -> Error {
    incomplete(format!("{name} is not in {} although the server says that the backup is done", stage.display()))
}

/// The server wrote something that is no backup. Not a matter of the repository: nothing of it is kept.
pub(super) fn incomplete(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

fn with_digest(name: &str) -> String {
    format!("{name}{}", tree::SHA256_SUFFIX)
}

fn logical_size(stage: &Place, runtime: &Handle, path: &str) -> Result<u64> {
    Ok(stage.open_logical(runtime, path)?.ok_or_else(|| absent(stage, path))?.len())
}

/// What the server copied and did not list. No release is known to do so.
fn add_unlisted(stage: &Place, runtime: &Handle, staged: &[(TaeName, u64)], objects: &mut Vec<Object>) -> Result<()> {
    let is_listed = |name: &TaeName| objects.binary_search_by_key(name, |object| object.name).is_ok();
    let unlisted: Vec<TaeName> = staged.iter().map(|(name, _)| *name).filter(|name| !is_listed(name)).collect();
    for name in unlisted {
        let path = format!("tae/{name}");
        let size = logical_size(stage, runtime, &path)?;
        objects.push(Object { name, size, origin: Origin::Stage });
    }
    objects.sort_unstable_by_key(|object| object.name);
    Ok(())
}

/// A small file whose digest lies beside it.
fn read_verified(stage: &Place, runtime: &Handle, name: &str) -> Result<Vec<u8>> {
    let bytes = stage.read(runtime, name, SMALL_MOST)?.ok_or_else(|| absent(stage, name))?;
    expect_digest(stage, runtime, name, tree::sha256(&bytes))?;
    Ok(bytes)
}

fn expect_digest(stage: &Place, runtime: &Handle, name: &str, digest: [u8; 32]) -> Result<()> {
    let beside = with_digest(name);
    let expected = stage.read(runtime, &beside, SMALL_MOST)?.ok_or_else(|| absent(stage, &beside))?;
    if expected != digest {
        return Err(Error::corrupt(format!(
            "{name} is not what the server wrote: its SHA-256 is not that of {beside}"
        )));
    }
    Ok(())
}

/// Hashes the copied files and compares.
fn verify_digests(
    stage: &Place,
    runtime: &Handle,
    digests: &[(String, [u8; 32])],
    monitor: &dyn Monitor,
) -> Result<()> {
    digests.par_iter().try_for_each(|(name, expected)| {
        if monitor.cancelled() {
            return Err(super::stopped());
        }
        let file = stage.open_logical(runtime, name)?.ok_or_else(|| absent(stage, name))?;
        if tree::digest_of(&file, &mut |_| ()).context(|| format!("read {name}"))? != *expected {
            return Err(Error::corrupt(format!(
                "{name} arrived damaged: its SHA-256 is not the one that the server lists"
            )));
        }
        Ok(())
    })
}

/// Reads a file from front to end and hashes it in passing.
struct Hashing {
    file: Box<dyn ReadAt>,
    at: u64,
    hash: Sha256,
}

impl io::Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.file.len() - self.at;
        let len = buffer.len().min(WINDOW).min(usize::try_from(rest).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..len];
        self.file.read_exact_at(self.at, buffer).map_err(io::Error::other)?;
        self.hash.update(&*buffer);
        self.at += len as u64;
        Ok(len)
    }
}

impl Arrived {
    /// Everything that a restored server would miss; empty for a backup that is one. Blocks.
    ///
    /// Fails with `Corrupt` if checkpoints cannot be read: then nobody knows.
    pub(super) fn gaps(&self, sides: &Sides<'_>) -> Result<Vec<Gap>> {
        let mut gaps: Vec<Gap> = self
            .objects
            .iter()
            .filter(|object| object.origin == Origin::Nowhere)
            .map(|object| Gap {
                name: object.name,
                size: object.size,
                why: "the server lists it and did not copy it".to_owned(),
            })
            .collect();
        let report = self.closure(sides)?;
        for missing in report.missing {
            let why = match missing.need {
                Need::CheckpointIndex | Need::CheckpointData => {
                    "a restored server would not start without it".to_owned()
                }
                Need::Table(table) => format!("table {table} would not be readable without it"),
            };
            match gaps.iter_mut().find(|gap| gap.name == missing.name) {
                Some(gap) => gap.why = why,
                None => gaps.push(Gap { name: missing.name, size: missing.len, why }),
            }
        }
        Ok(gaps)
    }

    fn closure(&self, sides: &Sides<'_>) -> Result<ClosureReport> {
        let report = closure(&View { arrived: self, sides })?;
        if report.checkpoint_files == 0 {
            return Err(incomplete("there is no checkpoint file in the backup: a restored server would be empty"));
        }
        if let Some(damaged) = report.damaged.first() {
            return Err(incomplete(format!(
                "{}: {}; whether the backup is complete cannot be told",
                damaged.file, damaged.why
            )));
        }
        Ok(report)
    }

    /// Notes where an object was found that the server left out; `size` is logical.
    pub(super) fn found_in_shared(&mut self, name: TaeName, size: u64) {
        let object = Object { name, size, origin: Origin::Shared };
        match self.objects.binary_search_by_key(&name, |object| object.name) {
            Ok(at) => self.objects[at] = object,
            Err(at) => self.objects.insert(at, object),
        }
    }

    fn find(&self, name: &TaeName) -> Option<&Object> {
        let at = self.objects.binary_search_by_key(name, |object| object.name).ok()?;
        Some(&self.objects[at])
    }
}

/// Where the bytes of a backup come from.
pub(super) struct Sides<'a> {
    pub(super) stage: &'a Place,
    pub(super) shared: Option<&'a Place>,
    pub(super) repository: &'a Reader,
    pub(super) runtime: &'a Handle,
}

struct View<'a> {
    arrived: &'a Arrived,
    sides: &'a Sides<'a>,
}

impl TreeView for View<'_> {
    fn checkpoint_files(&self) -> Result<Vec<MetaName>> {
        let names = self.arrived.others.keys();
        Ok(names
            .filter_map(|name| match classify(name.as_bytes()) {
                FileClass::CheckpointMeta(meta) if name.starts_with("tae/ckp/") => Some(meta),
                _ => None,
            })
            .collect())
    }

    fn open_checkpoint(&self, name: &MetaName) -> Result<Box<dyn ReadAt + '_>> {
        let path = format!("tae/{name}");
        let file = self.sides.stage.open_logical(self.sides.runtime, &path)?;
        file.map(|file| file as Box<dyn ReadAt + '_>).ok_or_else(|| absent(self.sides.stage, &path))
    }

    fn object_len(&self, name: &TaeName) -> Result<Option<u64>> {
        Ok(self.arrived.find(name).filter(|object| object.origin != Origin::Nowhere).map(|object| object.size))
    }

    fn open_object(&self, name: &TaeName) -> Result<Option<Box<dyn ReadAt + '_>>> {
        let Sides { stage, shared, repository, runtime } = self.sides;
        let Some(object) = self.arrived.find(name) else { return Ok(None) };
        let in_place = |place: &Place, path: &str| -> Result<Option<Box<dyn ReadAt + '_>>> {
            Ok(place.open_logical(runtime, path)?.map(|file| file as Box<dyn ReadAt + '_>))
        };
        match (object.origin, shared) {
            (Origin::Stage, _) => in_place(stage, &format!("tae/{name}")),
            (Origin::Shared, Some(shared)) => in_place(shared, &name.to_string()),
            (Origin::Repository, _) => {
                let entry = repository.find(format!("tae/{name}").as_bytes())?;
                match entry {
                    Some(entry) => Ok(Some(Box::new(repository.open(&entry)?))),
                    None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }
}
