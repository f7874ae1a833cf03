//! Restore: files out of a backup, verified, in parallel, into a safe target.
//!
//! - [`select`]: which entries are wanted.
//! - [`window`]: a bounded run of files: what must be read from which pack, in which order, and where it goes.
//! - [`fetch`]: reads the ranges, decodes, verifies, writes.
//! - [`pipeline`]: window after window, one written while the one before is published.
//! - [`publish`]: verifies whole files, frames them where asked, makes them durable and visible.
//! - [`mod@cat`]: one file to a stream.
//!
//! Everything is planned from the manifest and look-ups, window by window, so memory depends on neither the backup's nor a file's size. A file
//! appears under its name only when every byte of it is verified and durable; a damaged one does not appear at all.
//!
//! If we crash here: complete files stay, others are temporary files that the next restore into the same target continues from (`--delta`).

mod cat;
mod fetch;
mod pipeline;
mod publish;
mod select;
mod window;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use cat::cat;
pub(crate) use publish::{find_entry, finish};

use pipeline::Pipeline;

pub use super::target::TargetMode;
use super::target::{Target, keep_apart};
use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::Purpose;
use crate::format::manifest::SegmentRef;
use crate::id::ObjectHash;
use crate::ops::{blocking, listed_manifest};
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{
    BackupInfo, Entry, EntryKind, EntryStream, Manifest, Repository, Session, SessionRequest, Transform,
};
use crate::source::display_path;
use crate::units::MIB;

/// How files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// As they were at the source.
    #[default]
    AsStored,
    /// Without MatrixOne's DISK framing.
    Raw,
    /// Every file with MatrixOne's DISK framing.
    DiskCrc,
}

impl Framing {
    /// How this file is to be written.
    pub(crate) fn of(self, entry: &Entry) -> Transform {
        match self {
            Self::AsStored => entry.transform,
            Self::Raw => Transform::None,
            Self::DiskCrc => Transform::DiskCrc,
        }
    }
}

/// How a restore is done.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Only these files, and what is below these directories; empty for everything.
    pub paths: Vec<Vec<u8>>,
    /// Only what matches one of these patterns; empty for everything.
    pub globs: Vec<String>,
    /// How files are written.
    pub framing: Framing,
    /// What the target may hold.
    pub mode: TargetMode,
    /// With `Delta`: remove what the backup does not have.
    pub delete_extra: bool,
    /// Do not read files back to verify them as a whole; every chunk is verified all the same.
    pub fast: bool,
    /// Bytes of memory to stay below.
    pub memory: u64,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            globs: Vec::new(),
            framing: Framing::AsStored,
            mode: TargetMode::New,
            delete_extra: false,
            fast: false,
            memory: 256 * MIB,
        }
    }
}

/// A file that could not be restored.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DamagedFile {
    /// Which.
    pub path: String,
    /// Why.
    pub message: String,
}

/// What a restore did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RestoreReport {
    /// Of which backup.
    pub id: ObjectHash,
    /// Files that are there now, verified.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links.
    pub symlinks: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes that were there already (`Delta`).
    pub bytes_kept: u64,
    /// Bytes read from the repository.
    pub bytes_read: u64,
    /// Files that could not be restored, at most a thousand of them; none of them is in the target.
    pub damaged: Vec<DamagedFile>,
    /// How many there were, with all entries of a part of the list that cannot be read.
    pub damaged_count: u64,
    /// Parts of the list of files that cannot be read; each has one row in `damaged`.
    pub parts_lost: u64,
    /// Entries in them.
    pub entries_lost: u64,
    /// Paths and patterns that were asked for and are not in the backup; there is a remark about each.
    pub not_found: Vec<String>,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// Damaged files kept by name.
const DAMAGED_NAMES: usize = 1000;

impl RestoreReport {
    pub(crate) fn new(backup: &BackupInfo) -> Self {
        let partial = "the backup is PARTIAL: files that could not be read when it was made are missing in it, or incomplete; it does not \
                       record which";
        Self {
            id: backup.id,
            files: 0,
            directories: 0,
            symlinks: 0,
            bytes_written: 0,
            bytes_kept: 0,
            bytes_read: 0,
            damaged: Vec::new(),
            damaged_count: 0,
            parts_lost: 0,
            entries_lost: 0,
            not_found: Vec::new(),
            remarks: Vec::from_iter(backup.summary.partial.then(|| partial.to_owned())),
            duration: Duration::ZERO,
        }
    }

    pub(crate) fn add_damaged(&mut self, path: &[u8], message: String) {
        self.damaged_count += 1;
        if self.damaged.len() < DAMAGED_NAMES {
            self.damaged.push(DamagedFile { path: display_path(path), message });
        }
    }

    /// A part of the list cannot be read: what it names is lost, whatever that is.
    fn add_lost_part(&mut self, manifest: &Manifest, part: &SegmentRef, error: &Error) {
        let first = display_path(&part.first_key);
        let next = manifest.segments.iter().find(|segment| segment.first_key > part.first_key);
        let last =
            next.map_or_else(|| "the end".to_owned(), |next| format!("before {}", display_path(&next.first_key)));
        let entries = crate::units::count(part.entry_count.into());
        self.add_damaged(
            b"(a part of the list of files)",
            format!("{entries} entries, from {first} to {last}: {error}"),
        );
        self.damaged_count += u64::from(part.entry_count).saturating_sub(1);
        self.parts_lost += 1;
        self.entries_lost += u64::from(part.entry_count);
    }
}

/// Restores a backup, or a part of it, into a directory.
///
/// Damaged or missing chunks do not stop it: the rest is restored, and the report names the files. Fails if the target is not fit, the disk is
/// full, or nothing in the backup was asked for.
pub async fn restore(
    repository: &Repository,
    backup: &BackupInfo,
    target: &Path,
    options: &RestoreOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<RestoreReport> {
    let begun = Instant::now();
    let selection = select::Selection::new(&options.paths, &options.globs)?;
    keep_apart(repository.store().local_path(), target)?;
    let mut report = RestoreReport::new(backup);
    in_session(repository, &mut report, async |report| {
        run(repository, backup, target, &selection, options, &monitor, report).await
    })
    .await?;
    report.duration = begun.elapsed();
    Ok(report)
}

/// Does work that reads the repository, registered in it for as long, and closes the session whatever comes of the work.
pub(crate) async fn in_session<T>(
    repository: &Repository,
    report: &mut RestoreReport,
    work: impl AsyncFnOnce(&mut RestoreReport) -> Result<T>,
) -> Result<T> {
    let session = open_session(repository, report).await;
    let outcome = Session::while_alive(session.as_ref(), work(report)).await;
    if let Some(session) = session {
        // A session that cannot be closed is fenced by the next writer of this host.
        let _closed = session.close().await;
    }
    outcome
}

/// Registers, so that no prune deletes what we are about to read. A repository that cannot be written is read all the same.
async fn open_session(repository: &Repository, report: &mut RestoreReport) -> Option<Session> {
    let request = SessionRequest::for_work(Purpose::Restore);
    match Session::open(repository, request).await {
        Ok(session) => Some(session),
        Err(error) => {
            report.remarks.push(format!("reading without a session, since the repository cannot be written: {error}"));
            None
        }
    }
}

async fn run(
    repository: &Repository,
    backup: &BackupInfo,
    target: &Path,
    selection: &select::Selection,
    options: &RestoreOptions,
    monitor: &Arc<dyn Monitor>,
    report: &mut RestoreReport,
) -> Result<()> {
    monitor.event(Event::Begin { phase: Phase::Planning, bytes: 0, items: 0 });
    let (index, caught_up) = repository.caught_up_index().await?;
    for (name, error) in &caught_up.rebuilt {
        report.remarks.push(format!("{name} could not be read ({error}); its chunks were found through pack tables"));
    }
    let manifest = listed_manifest(repository, &backup.id).await?;
    // Before anything is made: a mistyped path leaves no empty directory behind.
    if !finds_something(repository, &index, &manifest, selection, monitor).await? {
        let message = format!(
            "backup {} holds nothing at {}; `everpack ls -R` shows what it holds",
            backup.id,
            selection.not_found().join(", ")
        );
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let target = Arc::new(Target::create(target, options.mode)?);
    let (bytes, items) =
        if selection.is_everything() { (manifest.totals.bytes, manifest.totals.files) } else { (0, 0) };
    let free = target.free_bytes()?;
    if options.mode == TargetMode::New && bytes > free {
        let (bytes, free) = (crate::units::bytes(bytes), crate::units::bytes(free));
        let message = format!("{bytes} are to be restored and the disk says that {free} are free: it may become full");
        monitor.event(Event::Warning { message });
    }
    monitor.event(Event::Begin { phase: Phase::Restoring, bytes, items });

    let job = Job { repository, index: &index, manifest: &manifest, target: &target, options, monitor };
    write_entries(&job, selection, None, report).await?;
    if !selection.is_everything() {
        report.not_found = selection.not_found();
        let remarks =
            report.not_found.iter().map(|name| format!("the backup holds nothing at {name}, which was asked for"));
        report.remarks.extend(remarks);
    }
    if options.delete_extra && options.mode != TargetMode::New && selection.is_everything() {
        publish::remove_extra(repository, &index, &manifest, &target, report).await?;
    }
    publish::finish(target, report).await?;
    monitor.event(Event::End { phase: Phase::Restoring });
    Ok(())
}

/// True if something of the backup is wanted, or may be: a part of its list that cannot be read is named by the restore itself.
async fn finds_something(
    repository: &Repository,
    index: &Arc<crate::index::Index>,
    manifest: &Manifest,
    selection: &select::Selection,
    monitor: &Arc<dyn Monitor>,
) -> Result<bool> {
    if selection.is_everything() {
        return Ok(true);
    }
    let mut entries = EntryStream::of_segments(repository, index, selection.segments(manifest));
    while let Some(segment) = entries.next().await {
        if monitor.cancelled() {
            return Err(Error::new(ErrorKind::Unavailable, "stopped on request before anything was written"));
        }
        match segment {
            Ok(segment) if segment.iter().any(|entry| selection.wants(entry)) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Corrupt || error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Says of each entry where and how it is written; `None` for one that is not.
pub(crate) type Place<'a> = &'a (dyn Fn(Entry) -> Option<Entry> + Send + Sync);

/// What a restore works on.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) index: &'a Arc<crate::index::Index>,
    pub(crate) manifest: &'a Manifest,
    pub(crate) target: &'a Arc<Target>,
    pub(crate) options: &'a RestoreOptions,
    pub(crate) monitor: &'a Arc<dyn Monitor>,
}

/// Writes what is wanted of a manifest into an open target; gives the number of entries. The target still has to be finished.
async fn write_entries(
    job: &Job<'_>,
    selection: &select::Selection,
    place: Option<Place<'_>>,
    report: &mut RestoreReport,
) -> Result<u64> {
    let mut files = Pipeline::new(job)?;
    let selected = write_all(job, selection, place, &mut files, report).await;
    let (selected, so_far) = match selected {
        Ok(selected) => (selected, Ok(())),
        Err(error) => (0, Err(error)),
    };
    files.finish(so_far, report).await?;
    Ok(selected)
}

/// Makes directories and links, and hands the files to the pipeline.
async fn write_all(
    job: &Job<'_>,
    selection: &select::Selection,
    place: Option<Place<'_>>,
    files: &mut Pipeline,
    report: &mut RestoreReport,
) -> Result<u64> {
    let Job { repository, index, manifest, target, monitor, .. } = *job;
    let parts = selection.segments(manifest);
    let mut entries = EntryStream::of_segments(repository, index, parts.clone());
    let mut selected: u64 = 0;
    for part in &parts {
        let Some(segment) = entries.next().await else { break };
        let segment = match segment {
            Ok(segment) => segment,
            Err(error) if error.kind() == ErrorKind::Corrupt || error.kind() == ErrorKind::NotFound => {
                report.add_lost_part(manifest, part, &error);
                continue;
            }
            Err(error) => return Err(error),
        };
        for entry in segment {
            if monitor.cancelled() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "stopped on request; complete files stay, --delta goes on from here",
                ));
            }
            if !selection.wants(&entry) {
                continue;
            }
            let Some(entry) = (match place {
                Some(place) => place(entry),
                None => Some(entry),
            }) else {
                continue;
            };
            selected += 1;
            match entry.kind {
                EntryKind::Directory => {
                    target.make_directory_with(&entry.path, &attributes(&entry))?;
                    report.directories += 1;
                }
                EntryKind::Symlink => {
                    target.make_symlink(&entry.path, &entry.link_target, &attributes(&entry))?;
                    report.symlinks += 1;
                }
                EntryKind::File => files.add(entry, report).await?,
            }
        }
    }
    Ok(selected)
}

/// Writes entries of a backup where `place` says, into an open target, which the caller finishes.
pub(crate) async fn write_placed(job: &Job<'_>, place: Place<'_>, report: &mut RestoreReport) -> Result<u64> {
    write_entries(job, &select::Selection::new(&[], &[])?, Some(place), report).await
}

/// What is set on a restored file.
fn attributes(entry: &Entry) -> super::target::Attributes {
    super::target::Attributes { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime }
}
