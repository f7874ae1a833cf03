//! What a server needs of a backup, proved to be there and made ready: the same for a directory, a bucket and a drill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{CheckpointChange, StartOptions};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::index::Index;
use crate::matrixone::release::Release;
use crate::matrixone::tree::{self, BackupSum, ListedFile};
use crate::ops::blocking;
use crate::ops::closure::{self, Reader, TreeFiles, Verdict};
use crate::repo::{Entry, EntryKind, EntryStream, Manifest, Repository};
use crate::source::display_path;
use crate::tae::{FileClass, MetaName, Need, TaeName, classify, zero_lsns};

/// Lists, sums, ids and toml files are far shorter; `tae_list` has some 100 bytes a row.
const SMALL_MAX: u64 = 64 << 20;
const LIST_MAX: u64 = 1 << 30;
/// So many names stand in an error.
const NAMES_MAX: usize = 20;

/// The files of one `BACKUP` tree in a backup, by what they are.
pub(super) struct Tree {
    /// Before every path of the tree: empty, or a folder with a slash behind it.
    pub(super) root: Vec<u8>,
    pub(super) files: TreeFiles,
    /// Files of `gc/`, by path within SHARED.
    pub(super) gc: BTreeMap<Vec<u8>, u64>,
    /// Packages of functions, by path within SHARED.
    pub(super) udf: BTreeMap<Vec<u8>, u64>,
    /// Lists, sums, ids, toml files: everything else, by path within the tree.
    pub(super) small: BTreeMap<Vec<u8>, Entry>,
}

impl Tree {
    /// Finds the one tree of a backup, or the one that is named.
    pub(super) async fn find(
        repository: &Repository,
        index: &Arc<Index>,
        manifest: &Manifest,
        named: Option<&[u8]>,
    ) -> Result<Self> {
        let mut trees: BTreeMap<Vec<u8>, TreeFiles> = BTreeMap::new();
        let mut others: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        let mut entries = EntryStream::new(repository, index, manifest);
        while let Some(segment) = entries.next().await {
            for entry in segment?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
                match classify(&entry.path) {
                    FileClass::Object(_) | FileClass::CheckpointMeta(_) => closure::take(&mut trees, entry),
                    _ if is_of_interest(&entry.path) => drop(others.insert(entry.path.clone(), entry)),
                    _ => {}
                }
            }
        }
        trees.retain(|_, tree| !tree.checkpoints.is_empty());
        let root = choose(&trees, named)?;
        let files = trees.remove(&[root.as_slice(), b"tae"].concat()).expect("chosen from them");
        let mut found = Self { root, files, gc: BTreeMap::new(), udf: BTreeMap::new(), small: BTreeMap::new() };
        for (path, entry) in others {
            let Some(path) = path.strip_prefix(found.root.as_slice()) else { continue };
            let inner = path.strip_prefix(b"tae/").unwrap_or(path);
            if inner.starts_with(b"udf/") {
                found.udf.insert(inner.to_vec(), entry.size);
            } else if inner.len() < path.len() && inner.starts_with(b"gc/") && !is_digest(inner) {
                found.gc.insert(inner.to_vec(), entry.size);
            } else {
                found.small.insert(path.to_vec(), entry);
            }
        }
        Ok(found)
    }

    /// The folder of its objects.
    pub(super) fn top(&self) -> Vec<u8> {
        [self.root.as_slice(), b"tae"].concat()
    }

    /// Where a file of the backup lies within SHARED; `None` for what does not belong there, and for checkpoint files, which are written last.
    pub(super) fn in_shared(&self, path: &[u8]) -> Option<Vec<u8>> {
        let path = path.strip_prefix(self.root.as_slice())?;
        let inner = path.strip_prefix(b"tae/").unwrap_or(path);
        let name = std::str::from_utf8(inner).ok().and_then(|name| TaeName::parse(name.as_bytes()));
        let is_object = inner.len() < path.len() && name.is_some();
        (is_object || self.gc.contains_key(inner) || self.udf.contains_key(inner)).then(|| inner.to_vec())
    }

    /// Everything that SHARED is to hold, as sort keys, but checkpoint files.
    pub(super) fn shared_keys(&self) -> BTreeSet<Vec<u8>> {
        let objects = self.files.objects.keys().map(|name| name.to_string().into_bytes());
        objects.chain(self.gc.keys().cloned()).chain(self.udf.keys().cloned()).collect()
    }

    /// Logical bytes that go to SHARED.
    pub(super) fn bytes(&self) -> u64 {
        let checkpoints = self.files.checkpoints.values().map(|entry| entry.size);
        self.files.objects.values().chain(self.gc.values()).chain(self.udf.values()).copied().chain(checkpoints).sum()
    }

    fn read(&self, reader: &Reader, name: &str, len_max: u64) -> Result<Option<Vec<u8>>> {
        self.small.get(name.as_bytes()).map(|entry| reader.read_all(entry, len_max)).transpose()
    }

    /// The toml files that the server copied, by name.
    pub(super) fn config_entries(&self) -> Vec<(String, Entry)> {
        let name = |path: &[u8]| {
            let name = path.strip_prefix(b"config/").filter(|name| !is_digest(name))?;
            Some(String::from_utf8_lossy(name).into_owned())
        };
        self.small.iter().filter_map(|(path, entry)| Some((name(path)?, entry.clone()))).collect()
    }

    /// The rows of `tae_list`, if there is one.
    pub(super) fn list(&self, reader: &Reader) -> Result<Option<Vec<ListedFile>>> {
        self.read(reader, tree::TAE_LIST, LIST_MAX)?.map(|bytes| tree::parse_list(&bytes)).transpose()
    }

    pub(super) fn sum(&self, reader: &Reader) -> Result<Option<BackupSum>> {
        self.read(reader, tree::TAE_SUM, SMALL_MAX)?.map(|bytes| tree::parse_sum(&bytes)).transpose()
    }

    pub(super) fn release(&self, reader: &Reader) -> Result<Option<Release>> {
        let meta = self.read(reader, tree::MO_META, SMALL_MAX)?.map(|bytes| tree::parse_meta(&bytes)).transpose()?;
        Ok(meta.and_then(|rows| tree::release_of_meta(&rows)))
    }

    /// True if the tree has this file, by its path below `tae/` and its length.
    pub(super) fn has(&self, row: &ListedFile) -> bool {
        let path = row.path.as_bytes();
        match classify(&[b"tae/", path].concat()) {
            // Real servers list objects of garbage collection with a wrong size, beside a digest that is right.
            FileClass::Object(name) => {
                self.files.objects.get(&name).is_some_and(|size| *size == row.size || row.sha256.is_some())
            }
            FileClass::CheckpointMeta(name) => {
                self.files.checkpoints.get(&name).is_some_and(|entry| entry.size == row.size)
            }
            _ => self.gc.get(path) == Some(&row.size),
        }
    }

    /// Rows whose files are not here.
    pub(super) fn missing_rows<'a>(&self, rows: &'a [ListedFile]) -> Vec<&'a ListedFile> {
        let mut missing: Vec<_> = rows.iter().filter(|row| !self.has(row)).collect();
        missing.sort_by(|a, b| a.path.cmp(&b.path));
        missing.dedup_by(|a, b| a.path == b.path);
        missing
    }
}

pub(super) fn is_digest(path: &[u8]) -> bool {
    path.ends_with(tree::SHA256_SUFFIX.as_bytes())
}

/// Everything of a tree that is neither object nor checkpoint. Other files of a backup may be many, and are passed over.
fn is_of_interest(path: &[u8]) -> bool {
    let mut parts = path.rsplit(|byte| *byte == b'/');
    let name = parts.next().unwrap_or_default();
    let folder = parts.next().unwrap_or_default();
    let root = [tree::MO_META, tree::BACKUP_META].iter().any(|known| name.starts_with(known.as_bytes()));
    let in_tae = folder == b"tae" && (name.starts_with(b"tae_") || name.starts_with(b"file_list"));
    let udf = path.starts_with(b"udf/") || path.windows(5).any(|part| part == b"/udf/");
    root || in_tae || udf || matches!(folder, b"config" | b"hakeeper" | b"gc")
}

fn choose(trees: &BTreeMap<Vec<u8>, TreeFiles>, named: Option<&[u8]>) -> Result<Vec<u8>> {
    let root = |top: &Vec<u8>| match top.as_slice() {
        b"tae" => Some(Vec::new()),
        top => top.strip_suffix(b"/tae").map(|root| [root, b"/"].concat()),
    };
    let roots: Vec<Vec<u8>> = trees.keys().filter_map(root).collect();
    let shown = |root: &Vec<u8>| display_path(root.strip_suffix(b"/").unwrap_or(root));
    if let Some(named) = named {
        let trimmed = named.strip_prefix(b"./").unwrap_or(named);
        let trimmed = trimmed.strip_suffix(b"/").unwrap_or(trimmed);
        let wanted = if trimmed.is_empty() || trimmed == b"." { Vec::new() } else { [trimmed, b"/"].concat() };
        return roots.iter().find(|root| **root == wanted).cloned().ok_or_else(|| {
            let there: Vec<_> = roots.iter().map(shown).collect();
            let message =
                format!("--tree {}: no BACKUP tree lies there; there are: {}", display_path(named), there.join(", "));
            Error::new(ErrorKind::NotFound, message)
        });
    }
    match roots.as_slice() {
        [root] => Ok(root.clone()),
        [] if trees.is_empty() => Err(Error::invalid(
            "the backup holds no MatrixOne data: no folder in it has ckp/meta_…; `everpack ls -R` shows what there is",
        )),
        [] => Err(Error::invalid(
            "the backup is a copy of a data directory and no BACKUP tree: without hk_data a server would hand out ids that tables already have. \
             Restore it as it was, with its logservice-data, by `everpack restore BACKUP DIR`",
        )),
        several => {
            let there: Vec<_> = several.iter().map(shown).collect();
            Err(Error::invalid(format!(
                "the backup holds several BACKUP trees; choose one by --tree: {}",
                there.join(", ")
            )))
        }
    }
}

/// What goes to a server, and what was found out on the way.
pub(super) struct Contents {
    pub(super) tree: Tree,
    /// Logical bytes, as they are to be written.
    pub(super) checkpoints: Vec<(MetaName, Vec<u8>)>,
    pub(super) hk_data: Vec<u8>,
    pub(super) sum: Option<BackupSum>,
    pub(super) release: Option<Release>,
    pub(super) changes: Vec<CheckpointChange>,
    pub(super) left_out: Vec<String>,
    pub(super) remarks: Vec<String>,
}

/// Proves that a server can start from the tree, and makes its checkpoint files ready. Refuses what cannot.
pub(super) async fn prepare(tree: Tree, reader: &Arc<Reader>, options: &StartOptions) -> Result<Contents> {
    let reader = Arc::clone(reader);
    let options = options.clone();
    blocking(move || ready(tree, &reader, &options)).await
}

fn ready(tree: Tree, reader: &Reader, options: &StartOptions) -> Result<Contents> {
    if !tree.small.contains_key(tree::MO_META.as_bytes()) {
        return Err(Error::invalid(
            "the tree has no mo_meta, which a server writes last: that BACKUP was not finished, and what it left does not start",
        ));
    }
    let hk_data = hk_data(&tree, reader)?;
    let rows = tree.list(reader)?.ok_or_else(|| {
        Error::invalid(
            "the tree has no tae/tae_list: whether it is complete cannot be known; that BACKUP was not finished",
        )
    })?;
    let missing = tree.missing_rows(&rows);
    if !missing.is_empty() {
        let base = missing.iter().filter(|row| !row.copied).count();
        let names = names(missing.iter().map(|row| row.path.as_str()), missing.len());
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "the tree lacks {} of the {} files that its tae_list names ({base} of them are in an earlier tree that it builds on): {names}. \
                 `everpack import` takes a chain of trees as complete backups; `everpack find NAME` tells whether another backup has one",
                missing.len(),
                rows.len()
            ),
        ));
    }
    let Verdict { report, cure } = closure::follow(&tree.top(), &tree.files, reader)?;
    let mut remarks = Vec::new();
    let mut leave_out = Vec::new();
    if !report.is_complete() {
        match (cure, options.cure) {
            (Some(cure), true) => leave_out = cure.leave_out,
            (cure, _) => refuse(&report, cure.map(|cure| cure.leave_out), &mut remarks)?,
        }
    }
    if !leave_out.is_empty() {
        remarks.push(
            "a global checkpoint without its objects, and the list that names it, were left out: the state is that of the checkpoints before. \
             This was tried on quiet data; what was written while the BACKUP ran may be missing, so compare before you rely on it"
                .to_owned(),
        );
    }
    let release = tree.release(reader)?;
    if let (Some(target), Some(written)) = (options.target_release, release)
        && !target.reads(written)
    {
        remarks.push(format!(
            "a server of release {target} does not read what one of {written} wrote: start with {written}, or a newer one of the same line"
        ));
    }
    let (checkpoints, changes) = checkpoints(&tree, reader, &leave_out, options.verbatim)?;
    if options.verbatim && !changes.is_empty() {
        remarks.push(
            "the log positions of checkpoints were left as they are: a server of release 4.2 panics at the start after its first checkpoint \
             (\"logic error, current lsn …\")"
                .to_owned(),
        );
    }
    let changes = if options.verbatim { Vec::new() } else { changes };
    let left_out = leave_out.iter().map(MetaName::to_string).collect();
    let sum = tree.sum(reader)?;
    Ok(Contents { checkpoints, hk_data, sum, release, changes, left_out, remarks, tree })
}

/// Tells why a tree does not start, or lets pass what costs no more than is said.
fn refuse(report: &crate::tae::ClosureReport, cure: Option<Vec<MetaName>>, remarks: &mut Vec<String>) -> Result<()> {
    if let Some(damaged) = report.damaged.first() {
        return Err(Error::corrupt(format!(
            "checkpoint metadata of the tree cannot be read ({}: {}): a server would not start from it",
            damaged.file, damaged.why
        )));
    }
    let fatal: Vec<_> = report.missing.iter().filter(|missing| !matches!(missing.need, Need::Table(_))).collect();
    if fatal.is_empty() && report.missing.is_empty() {
        for unfollowed in &report.unfollowed {
            let message = format!(
                "{} could not be followed ({}): whether all it names is there is not known",
                unfollowed.file, unfollowed.why
            );
            remarks.push(message);
        }
        return Ok(());
    }
    let missing = if fatal.is_empty() { report.missing.iter().collect() } else { fatal };
    let list = names(missing.iter().map(|missing| missing.name.to_string()), missing.len());
    let kind = if cure.is_some() { ErrorKind::Invalid } else { ErrorKind::Corrupt };
    let message = match (&missing[0].need, cure) {
        (Need::Table(table), _) => format!(
            "the tree lacks objects of tables (first table {table}), which could not be read after a restore: {list}. `everpack find NAME` tells whether \
             another backup has them"
        ),
        (_, Some(leave_out)) => format!(
            "the tree has a hole: a global checkpoint began beside the BACKUP and its objects were not copied: {list}. A server does not start from it. \
             --cure leaves out {}: then it starts with the state of the checkpoints before",
            leave_out.iter().map(MetaName::to_string).collect::<Vec<_>>().join(" and ")
        ),
        (_, None) => format!(
            "the tree lacks objects of its checkpoints, and a server does not start from it: {list}. `everpack find NAME` tells whether another backup has \
             them; else restore the backup before"
        ),
    };
    Err(Error::new(kind, message))
}

fn names<T: std::fmt::Display>(all: impl Iterator<Item = T>, count: usize) -> String {
    let mut text = all.take(NAMES_MAX).map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    if count > NAMES_MAX {
        text.push_str(&format!(" and {} more", count - NAMES_MAX));
    }
    text
}

fn hk_data(tree: &Tree, reader: &Reader) -> Result<Vec<u8>> {
    let bytes = tree.read(reader, tree::HK_DATA, SMALL_MAX)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            "the tree has no hakeeper/hk_data: a server starts without it and gives new tables ids that others already have. Take the file \
             from a later BACKUP of the same cluster, put it into the tree, and back that up again",
        )
    })?;
    if bytes.is_empty() {
        return Err(Error::corrupt("hakeeper/hk_data is empty: the server would begin to count ids anew"));
    }
    tree::parse_next_ids(&bytes)?;
    Ok(bytes)
}

type Ready = (Vec<(MetaName, Vec<u8>)>, Vec<CheckpointChange>);

fn checkpoints(tree: &Tree, reader: &Reader, leave_out: &[MetaName], verbatim: bool) -> Result<Ready> {
    let (mut files, mut changes) = (Vec::new(), Vec::new());
    for (name, entry) in tree.files.checkpoints.iter().filter(|(name, _)| !leave_out.contains(name)) {
        let bytes = reader.read_all(entry, SMALL_MAX)?;
        let zeroed = match zero_lsns(&bytes) {
            // Whoever wants the bytes as they are does not need them understood.
            Err(_) if verbatim => None,
            zeroed => zeroed.context(|| format!("{name}: --verbatim restores it as it is"))?,
        };
        if let Some(zeroed) = &zeroed {
            changes.push(CheckpointChange {
                file: name.to_string(),
                len_before: entry.size,
                len_after: zeroed.len() as u64,
            });
        }
        files.push((*name, zeroed.filter(|_| !verbatim).unwrap_or(bytes)));
    }
    Ok((files, changes))
}
