//! Is a MatrixOne tree in a backup complete? A server can answer OK to a `BACKUP` and leave out objects that a restored server asks for first.
//!
//! Follows the checkpoints of every tree in a backup (`tae::closure`) with the repository behind it. An object that the tree's `tae_list` names
//! counts as there: an incremental tree has it in its base. Nothing is changed; what is missing is told.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use super::blocking;
use crate::codec::FileHasher;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::ObjectHash;
use crate::index::Index;
use crate::repo::{ChunkCache, Entry, EntryKind, EntryStream, Manifest, Piece, Repository, pieces_of};
use crate::source::display_path;
use crate::tae::{
    CheckpointKind, CheckpointRow, ClosureReport, FileClass, MetaName, MissingObject, Need, ReadAt, TaeName, TreeView,
    classify, closure, read_checkpoint_rows, read_index,
};

/// Plain chunks kept while checkpoints are read.
const CACHE_BYTES: usize = 16 << 20;
/// A `tae_list` of a million rows is about this large.
const LIST_BYTES_MOST: u64 = 256 << 20;

/// Something that a restored server would miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    /// Where it should be.
    pub(crate) path: String,
    /// What follows from that.
    pub(crate) message: String,
}

/// The files of one tree.
#[derive(Default)]
pub(crate) struct TreeFiles {
    pub(crate) checkpoints: BTreeMap<MetaName, Entry>,
    pub(crate) objects: BTreeMap<TaeName, u64>,
    /// Objects that `tae_list` names, and that count as being there.
    listed: BTreeMap<TaeName, u64>,
    list: Option<Entry>,
}

/// Checkpoint files without which a tree with a hole is whole again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cure {
    /// The global checkpoint whose objects are missing, and the list that names it.
    pub(crate) leave_out: Vec<MetaName>,
}

/// What following the checkpoints of one tree gave.
pub(crate) struct Verdict {
    pub(crate) report: ClosureReport,
    pub(crate) cure: Option<Cure>,
}

/// Follows the checkpoints of every tree in a backup.
pub(crate) async fn holes(repository: &Repository, index: &Arc<Index>, backup: &ObjectHash) -> Result<Vec<Hole>> {
    let manifest = repository.manifest(backup).await?;
    let mut trees: BTreeMap<Vec<u8>, TreeFiles> = BTreeMap::new();
    let mut entries = EntryStream::new(repository, index, &manifest);
    while let Some(segment) = entries.next().await {
        for entry in segment?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            take(&mut trees, entry);
        }
    }
    trees.retain(|_, tree| !tree.checkpoints.is_empty());
    let mut holes = Vec::new();
    for (top, mut tree) in trees {
        let reader = Reader::new(repository, index, vec![manifest.clone()]);
        let found = blocking(move || {
            if let Some(list) = tree.list.take() {
                tree.listed = read_list(&reader.open(&list)?)?;
            }
            let verdict = follow(&top, &tree, &reader)?;
            Ok::<_, Error>(tell(&top, &verdict))
        });
        holes.extend(found.await?);
    }
    Ok(holes)
}

/// Follows the checkpoints of one tree, and looks for the cure if they lead nowhere. May block.
pub(crate) fn follow(top: &[u8], tree: &TreeFiles, reader: &Reader) -> Result<Verdict> {
    let whole = View { top, tree, reader, without: &[] };
    let report = closure(&whole)?;
    let needed = |missing: &&MissingObject| matches!(missing.need, Need::CheckpointIndex | Need::CheckpointData);
    let lost: BTreeSet<TaeName> = report.missing.iter().filter(needed).map(|missing| missing.name).collect();
    let cure = match lost.is_empty() || !report.damaged.is_empty() {
        true => None,
        false => find_cure(&whole, &lost)?,
    };
    Ok(Verdict { report, cure })
}

/// A global checkpoint that started beside a BACKUP has its file and its row in the merged list, and none of its objects. Without both files the
/// tree is whole, provided that no other checkpoint is known from them alone: the restored state is that of the checkpoints before.
fn find_cure(whole: &View<'_>, lost: &BTreeSet<TaeName>) -> Result<Option<Cure>> {
    let is_broken = |row: &CheckpointRow| -> Result<bool> {
        if row.kind != CheckpointKind::Global {
            return Ok(false);
        }
        let Some(index) = row.index else { return Ok(true) };
        if lost.contains(&index.name) {
            return Ok(true);
        }
        let Some(file) = whole.open_object(&index.name)? else { return Ok(false) };
        Ok(read_index(&file)?.iter().any(|stats| lost.contains(&stats.name)))
    };
    let key = |row: &CheckpointRow| (row.start, row.end, row.index.map(|index| index.name));
    let (mut leave_out, mut dropped, mut kept) = (Vec::new(), Vec::new(), BTreeSet::new());
    for name in whole.checkpoint_files()? {
        let rows = read_checkpoint_rows(&whole.open_checkpoint(&name)?)?;
        let mut broken = false;
        for row in &rows {
            broken |= is_broken(row)?;
        }
        if broken {
            leave_out.push(name);
            dropped.extend(rows);
        } else {
            kept.extend(rows.iter().map(key));
        }
    }
    let mut known = true;
    for row in &dropped {
        // The checkpoint that BACKUP makes for itself comes after all others and goes with its list.
        known &= row.kind == CheckpointKind::Backup || kept.contains(&key(row)) || is_broken(row)?;
    }
    if leave_out.is_empty() || kept.is_empty() || !known {
        return Ok(None);
    }
    let rest = closure(&View { without: &leave_out, ..*whole })?;
    Ok(rest.is_complete().then_some(Cure { leave_out }))
}

/// Adds a file to the tree that it belongs to; trees go by the folder in which their objects lie.
pub(crate) fn take(trees: &mut BTreeMap<Vec<u8>, TreeFiles>, entry: Entry) {
    let (folder, name) = split(&entry.path);
    let folder = folder.to_vec();
    match classify(&entry.path) {
        FileClass::CheckpointMeta(meta) => {
            let top = split(&folder).0.to_vec();
            trees.entry(top).or_default().checkpoints.insert(meta, entry);
        }
        FileClass::Object(object) => {
            trees.entry(folder).or_default().objects.insert(object, entry.size);
        }
        _ if name == b"tae_list" => trees.entry(folder).or_default().list = Some(entry),
        _ => {}
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn tell(top: &[u8], verdict: &Verdict) -> Vec<Hole> {
    let Verdict { report, cure } = verdict;
    let path = |name: &str| display_path(&[top, if top.is_empty() { b"" } else { b"/" }, name.as_bytes()].concat());
    let missing = report.missing.iter().map(|missing| {
        let what = match missing.need {
            Need::CheckpointIndex | Need::CheckpointData => {
                "a server restored from this backup does not start".to_owned()
            }
            Need::Table(table) => format!("table {table} cannot be read after a restore"),
        };
        let state = if missing.found_len.is_some() {
            "has another length than its checkpoint says"
        } else {
            "is not in the tree"
        };
        let name = missing.name;
        let cure = match (&missing.need, cure) {
            (Need::CheckpointIndex | Need::CheckpointData, Some(_)) => {
                "; `everpack restore --matrixone … --cure` leaves out the global checkpoint that needs it, and what lists it"
            }
            _ => "",
        };
        let message = format!(
            "a checkpoint needs it and it {state}: {what}. `everpack find {name}` tells whether another backup has it, and the running server \
             may still have it in SHARED: copy it into the tree and back that up again, or take another BACKUP{cure}"
        );
        Hole { path: path(&missing.name.to_string()), message }
    });
    let damaged = report.damaged.iter().map(|damaged| Hole {
        path: path(&damaged.file),
        message: format!(
            "checkpoint metadata that cannot be read ({}): whether the tree is complete is not known",
            damaged.why
        ),
    });
    missing.chain(damaged).collect()
}

/// Reads `tae_list`: name, size and more, comma-separated; rows that are not objects are passed over.
fn read_list(list: &dyn ReadAt) -> Result<BTreeMap<TaeName, u64>> {
    let bytes = list.read_all(LIST_BYTES_MOST).context(|| "tae_list")?;
    let row = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b',');
        let name = TaeName::parse(fields.next()?)?;
        let size = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        Some((name, size))
    };
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(row).collect())
}

#[derive(Clone, Copy)]
struct View<'a> {
    top: &'a [u8],
    tree: &'a TreeFiles,
    reader: &'a Reader,
    /// Checkpoint files that do not count.
    without: &'a [MetaName],
}

impl TreeView for View<'_> {
    fn checkpoint_files(&self) -> Result<Vec<MetaName>> {
        Ok(self.tree.checkpoints.keys().filter(|name| !self.without.contains(name)).copied().collect())
    }

    fn open_checkpoint(&self, name: &MetaName) -> Result<Box<dyn ReadAt + '_>> {
        let entry = self.tree.checkpoints.get(name);
        let entry = entry
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("checkpoint file {name}: not in the backup")))?;
        Ok(Box::new(self.reader.open(entry)?))
    }

    fn object_len(&self, name: &TaeName) -> Result<Option<u64>> {
        Ok(self.tree.objects.get(name).or_else(|| self.tree.listed.get(name)).copied())
    }

    fn open_object(&self, name: &TaeName) -> Result<Option<Box<dyn ReadAt + '_>>> {
        if !self.tree.objects.contains_key(name) {
            return Ok(None);
        }
        let slash: &[u8] = if self.top.is_empty() { b"" } else { b"/" };
        let path = [self.top, slash, name.to_string().as_bytes()].concat();
        let Some(entry) = self.reader.find(&path)? else { return Ok(None) };
        Ok(Some(Box::new(self.reader.open(&entry)?)))
    }
}

/// Opens files of backups, for their logical bytes. Lives on a thread that may block.
pub(crate) struct Reader {
    repository: Repository,
    index: Arc<Index>,
    cache: Arc<ChunkCache>,
    runtime: tokio::runtime::Handle,
    manifests: Vec<Manifest>,
}

impl Reader {
    /// Reads files of these manifests; where several have a path, of the first of them.
    pub(crate) fn new(repository: &Repository, index: &Arc<Index>, manifests: Vec<Manifest>) -> Self {
        Self {
            repository: repository.clone(),
            index: Arc::clone(index),
            cache: Arc::new(ChunkCache::new(CACHE_BYTES)),
            runtime: tokio::runtime::Handle::current(),
            manifests,
        }
    }

    pub(crate) fn find(&self, path: &[u8]) -> Result<Option<Entry>> {
        for manifest in &self.manifests {
            let found = super::restore::find_entry(&self.repository, &self.index, manifest, path);
            if let Some(entry) = self.runtime.block_on(found)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// All logical bytes of a small file, verified as a whole. `Corrupt` if it is longer than `len_max`.
    pub(crate) fn read_all(&self, entry: &Entry, len_max: u64) -> Result<Vec<u8>> {
        let act = || format!("read {}", display_path(&entry.path));
        let bytes = self.open(entry)?.read_all(len_max).context(act)?;
        let mut hasher = FileHasher::new();
        hasher.update(&bytes);
        if hasher.finish() != entry.hash {
            return Err(Error::corrupt(format!("{}: the bytes are not those of the file's hash", act())));
        }
        Ok(bytes)
    }

    pub(crate) fn open(&self, entry: &Entry) -> Result<StoredFile<&Self>> {
        StoredFile::open(self, entry)
    }
}

/// The logical bytes of a file in the repository, read through a [`Reader`] that is borrowed or shared.
pub(crate) struct StoredFile<R> {
    reader: R,
    len: u64,
    /// Where in the file each piece begins.
    pieces: Vec<(u64, Piece)>,
}

impl<R: Deref<Target = Reader>> StoredFile<R> {
    pub(crate) fn open(reader: R, entry: &Entry) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut at = 0;
        let mut runs = pieces_of(&reader.repository, &reader.index, &entry.pieces);
        while let Some(run) = reader.runtime.block_on(futures::StreamExt::next(&mut runs)) {
            for piece in run? {
                pieces.push((at, piece));
                at += u64::from(piece.len);
            }
        }
        drop(runs);
        Ok(Self { reader, len: entry.size, pieces })
    }
}

impl<R: Deref<Target = Reader> + Send + Sync> ReadAt for StoredFile<R> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let at = self.pieces.partition_point(|(start, _)| *start <= offset).checked_sub(1);
            let beyond = || Error::corrupt(format!("read {} bytes at {offset}: the file ends before", buffer.len()));
            let (start, piece) = at.and_then(|at| self.pieces.get(at)).ok_or_else(beyond)?;
            let inside = usize::try_from(offset - start).unwrap_or(usize::MAX);
            let len = (piece.len as usize).saturating_sub(inside).min(buffer.len());
            if len == 0 {
                return Err(beyond());
            }
            let Reader { repository, index, cache, runtime, .. } = &*self.reader;
            let plain = runtime.block_on(cache.read(repository, index, &piece.chunk))?;
            let from = piece.offset as usize + inside;
            let bytes = plain.get(from..from + len).ok_or_else(beyond)?;
            let (head, rest) = buffer.split_at_mut(len);
            head.copy_from_slice(bytes);
            buffer = rest;
            offset += len as u64;
        }
        Ok(())
    }
}
