//! A backup as a `BACKUP` tree again, for tools that read one: whole by itself, whatever it was built on.
//!
//! Where the archive holds the files of an incremental tree's base, the list calls them copied, and its digest is written anew. Nothing in the
//! data is changed. `mo_meta` and its digest are written last, as a server does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::contents::{Tree, is_digest};
use super::{Opened, write};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::ObjectHash;
use crate::matrixone::tree::{self, ListedFile};
use crate::ops::blocking;
use crate::ops::closure;
use crate::ops::restore::{self, DamagedFile, Job, RestoreOptions, RestoreReport, TargetMode};
use crate::ops::target::{Attributes, Target, keep_apart};
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{BackupInfo, Entry, EntryKind, Repository};
use crate::source::display_path;
use crate::tae::{FileClass, Need, classify};

/// How a tree is written.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Which tree, if the backup holds several.
    pub tree: Option<Vec<u8>>,
    /// `tae/` and `hakeeper/` with the framing of backend DISK; everything else never has it.
    pub framed: bool,
    /// `New`, or `Delta` to go on.
    pub mode: TargetMode,
    /// Do not read files back as a whole.
    pub fast: bool,
    /// Bytes of memory to stay below.
    pub memory: u64,
}

/// What was written as a tree.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ExportReport {
    /// Of which backup.
    pub id: ObjectHash,
    /// Where.
    pub directory: String,
    /// True if `tae/` and `hakeeper/` have the framing of backend DISK.
    pub framed: bool,
    /// Rows of the list that were called somebody else's, and whose files are there now.
    pub rows_made_own: u64,
    /// Rows of the list whose files the backup does not have.
    pub rows_missing: u64,
    /// The first of them.
    pub missing: Vec<String>,
    /// Files that are there now, verified.
    pub files: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes that were there already.
    pub bytes_kept: u64,
    /// Files that could not be restored.
    pub damaged: Vec<DamagedFile>,
    /// How many.
    pub damaged_count: u64,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// A small file of the tree, ready to be written.
struct Small {
    path: Vec<u8>,
    bytes: Vec<u8>,
    with_digest: bool,
}

/// The small files, and what was found about the list.
struct Prepared {
    tree: Tree,
    small: Vec<Small>,
    rows_made_own: u64,
    missing: Vec<String>,
    rows_missing: u64,
    remarks: Vec<String>,
}

const SMALL_MAX: u64 = 1 << 30;
const NAMES_MAX: usize = 100;

/// Writes a backup as a tree of its own into `directory`.
pub async fn export(
    repository: &Repository,
    backup: &BackupInfo,
    directory: &Path,
    options: &ExportOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<ExportReport> {
    let begun = Instant::now();
    let act = || format!("restore {} as a BACKUP tree into {}", backup.id, directory.display());
    keep_apart(repository.store().local_path(), directory)?;
    let opened = super::open(repository, backup, &monitor).await?;
    let tree = Tree::find(repository, &opened.index, &opened.manifest, options.tree.as_deref()).await.context(act)?;
    let reader = Arc::clone(&opened.reader);
    let prepared = blocking(move || prepare(tree, &reader)).await.context(act)?;
    let mut report = RestoreReport::new(backup);
    restore::in_session(repository, &mut report, async |report| {
        run(repository, &opened, &prepared, directory, options, &monitor, report).await
    })
    .await?;
    monitor.event(Event::End { phase: Phase::Restoring });
    let Prepared { rows_made_own, rows_missing, missing, mut remarks, .. } = prepared;
    remarks.extend(report.remarks);
    Ok(ExportReport {
        id: backup.id,
        directory: directory.display().to_string(),
        framed: options.framed,
        rows_made_own,
        rows_missing,
        missing,
        files: report.files,
        bytes_written: report.bytes_written,
        bytes_kept: report.bytes_kept,
        damaged: report.damaged,
        damaged_count: report.damaged_count,
        remarks,
        duration: begun.elapsed(),
    })
}

fn prepare(tree: Tree, reader: &closure::Reader) -> Result<Prepared> {
    let mut remarks = Vec::new();
    let rows = tree.list(reader)?;
    let sum = tree.sum(reader)?;
    let (Some(rows), Some(mut sum)) = (rows, sum) else {
        return Err(Error::new(
            ErrorKind::NotFound,
            "the tree has no tae/tae_list and tae/tae_sum: that BACKUP was not finished",
        ));
    };
    let absent: Vec<String> = tree.missing_rows(&rows).into_iter().map(|row| row.path.clone()).collect();
    let mut rows_made_own = 0;
    let mut listed: Vec<ListedFile> = Vec::with_capacity(rows.len());
    for row in rows {
        let here = tree.has(&row);
        rows_made_own += u64::from(here && !row.copied);
        listed.push(ListedFile { copied: here || row.copied, ..row });
    }
    let added = add_unlisted(&tree, &mut listed, sum.ts);
    if added > 0 {
        remarks.push(format!("{added} files that the tree has and its list did not name were added to the list"));
    }
    let changed = rows_made_own > 0 || added > 0;
    if changed && absent.is_empty() && rows_made_own > 0 {
        sum.kind = "full".to_owned();
    }
    sum.bytes = listed.iter().map(|row| row.size).sum();
    let verdict = closure::follow(&tree.top(), &tree.files, reader)?;
    if let Some(missing) = verdict.report.missing.iter().find(|missing| !matches!(missing.need, Need::Table(_))) {
        remarks.push(format!(
            "the tree has a hole: {} is not in it, and a server restored from it does not start{}",
            missing.name,
            if verdict.cure.is_some() {
                "; `restore --matrixone … --cure` makes a data directory that does"
            } else {
                ""
            }
        ));
    }
    let mut small = Vec::new();
    for (path, entry) in &tree.small {
        if is_digest(path) || is_input(path) {
            continue;
        }
        let bytes = match path.as_slice() {
            path if changed && path == tree::TAE_LIST.as_bytes() => tree::write_list(&listed),
            path if changed && path == tree::TAE_SUM.as_bytes() => tree::write_sum(&sum),
            _ => reader.read_all(entry, SMALL_MAX)?,
        };
        let digest = [path.as_slice(), tree::SHA256_SUFFIX.as_bytes()].concat();
        let with_digest = tree.small.contains_key(&digest);
        small.push(Small { path: path.clone(), bytes, with_digest });
    }
    // The last file of a tree says that it is complete.
    small.sort_by_key(|small| (small.path == tree::MO_META.as_bytes(), small.path.clone()));
    let rows_missing = absent.len() as u64;
    if rows_missing > 0 {
        remarks.push(
            "the tree builds on an earlier one whose files this backup does not have: it stays incremental".to_owned(),
        );
    }
    let missing = absent.into_iter().take(NAMES_MAX).collect();
    Ok(Prepared { tree, small, rows_made_own, missing, rows_missing, remarks })
}

/// What was brought into a tree later, to heal it, has to stand in its list for those who go by that.
fn add_unlisted(tree: &Tree, rows: &mut Vec<ListedFile>, ts: Option<crate::tae::Ts>) -> usize {
    let known: std::collections::HashSet<String> = rows.iter().map(|row| row.path.clone()).collect();
    let objects = tree.files.objects.iter().map(|(name, size)| (name.to_string(), *size));
    let checkpoints = tree.files.checkpoints.iter().map(|(name, entry)| (name.to_string(), entry.size));
    let gc = tree.gc.iter().map(|(path, size)| (String::from_utf8_lossy(path).into_owned(), *size));
    let before = rows.len();
    for (path, size) in objects.chain(checkpoints).chain(gc) {
        if !known.contains(&path) {
            rows.push(ListedFile { path, size, sha256: None, copied: true, ts });
        }
    }
    rows.len() - before
}

/// What whoever asked for the BACKUP had put there.
fn is_input(path: &[u8]) -> bool {
    path == tree::FILE_LIST.as_bytes() || path.starts_with(b"file_index_")
}

async fn run(
    repository: &Repository,
    opened: &Opened,
    prepared: &Prepared,
    directory: &Path,
    options: &ExportOptions,
    monitor: &Arc<dyn Monitor>,
    report: &mut RestoreReport,
) -> Result<()> {
    let tree = &prepared.tree;
    let target = Arc::new(Target::create(directory, options.mode)?);
    let items = (tree.files.objects.len() + tree.files.checkpoints.len() + tree.gc.len()) as u64;
    monitor.event(Event::Begin { phase: Phase::Restoring, bytes: tree.bytes(), items });
    let restore_options =
        RestoreOptions { mode: options.mode, fast: options.fast, memory: options.memory, ..RestoreOptions::default() };
    let transform = write::transform(options.framed);
    let place = |entry: Entry| -> Option<Entry> {
        let path = entry.path.strip_prefix(tree.root.as_slice())?.to_vec();
        let is_checkpoint = path.starts_with(b"tae/") && matches!(classify(&path), FileClass::CheckpointMeta(_));
        if entry.kind != EntryKind::File || !(is_checkpoint || tree.in_shared(&entry.path).is_some()) {
            return None;
        }
        let transform = if path.starts_with(b"tae/") { transform } else { entry.transform };
        Some(Entry { path, transform, ..entry })
    };
    let Opened { manifest, index, .. } = opened;
    let job = Job { repository, index, manifest, target: &target, options: &restore_options, monitor };
    restore::write_placed(&job, &place, report).await?;
    let now = repository.environment().clock.now();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let attributes = Attributes { mode: 0o600, uid, gid, mtime: now };
    for folder in ["tae", "tae/ckp", "tae/gc", "config", "hakeeper"] {
        let below = format!("{folder}/");
        let used = tree.small.keys().any(|path| path.starts_with(below.as_bytes()))
            || folder == "tae/ckp"
            || folder == "tae/gc" && !tree.gc.is_empty();
        if used {
            target.make_directory_with(folder.as_bytes(), &Attributes { mode: 0o755, ..attributes })?;
        }
    }
    for Small { path, bytes, with_digest } in &prepared.small {
        let framed = options.framed && (path.starts_with(b"tae/") || path.starts_with(b"hakeeper/"));
        let act = || format!("restore {}", display_path(path));
        write::small(&target, path, bytes, framed, &attributes).context(act)?;
        report.files += 1;
        report.bytes_written += bytes.len() as u64;
        if *with_digest {
            let digest = [path.as_slice(), tree::SHA256_SUFFIX.as_bytes()].concat();
            write::small(&target, &digest, &tree::sha256(bytes), framed, &attributes).context(act)?;
            report.files += 1;
        }
    }
    restore::finish(target, report).await
}
