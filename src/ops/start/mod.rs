//! A backup as something a MatrixOne server starts from.
//!
//! - [`contents`]: the tree of a backup, proved to be complete; checkpoint files that survive a restart.
//! - [`places`]: what the toml files of the cluster say: where SHARED and the ids go, and in which framing.
//! - [`busy`]: does a server run on that directory?
//! - [`bucket`]: the same for a cluster whose SHARED is a bucket.
//! - [`mod@export`]: not a server's directory but a `BACKUP` tree again, for the tools that read one.
//!
//! [`plan`] finds out everything that can stand in the way and changes nothing; [`apply`] writes. The archive is never changed: what is cured is
//! the restored copy, and the report says so.
//!
//! If we crash here: the ids (`hk_data`) and then the checkpoint files are written last, so what an interrupted run leaves has no checkpoint and
//! is no half of a database; the same command with `--delta` goes on.
//! Safe to run concurrently with: everything that uses the repository. Not with a server on the same directory, which is refused.

mod bucket;
mod busy;
mod contents;
mod export;
mod places;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use bucket::{BucketReport, to_bucket};
pub use export::{ExportOptions, ExportReport, export};
pub use places::ServicePlace;

use self::contents::{Contents, Tree, prepare};
use self::places::Places;
use super::closure::Reader;
use super::listed_manifest;
use super::restore::{self, DamagedFile, Job, RestoreOptions, RestoreReport, TargetMode};
use super::target::{Target, keep_apart};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::ObjectHash;
use crate::index::Index;
use crate::matrixone::config::Backend;
use crate::matrixone::release::Release;
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{BackupInfo, Entry, EntryKind, Manifest, Repository, Transform};
use crate::tae::Ts;
use crate::units::MIB;

/// How a backup becomes something to start from.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// toml files of the cluster, or directories with them; empty for those that the backup holds.
    pub config: Vec<PathBuf>,
    /// Which tree, if the backup holds several.
    pub tree: Option<Vec<u8>>,
    /// Write checkpoint files as they are.
    pub verbatim: bool,
    /// Leave a global checkpoint out whose objects are missing.
    pub cure: bool,
    /// Directories outside the working directory may be written as well.
    pub outside: bool,
    /// The server that is to start.
    pub target_release: Option<Release>,
    /// `New`, or `Delta` to go on.
    pub mode: TargetMode,
    /// With `Delta`: remove what does not belong there.
    pub delete_extra: bool,
    /// Do not read files back as a whole.
    pub fast: bool,
    /// Bytes of memory to stay below.
    pub memory: u64,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            config: Vec::new(),
            tree: None,
            verbatim: false,
            cure: false,
            outside: false,
            target_release: None,
            mode: TargetMode::New,
            delete_extra: false,
            fast: false,
            memory: 256 * MIB,
        }
    }
}

impl StartOptions {
    fn restore_options(&self) -> RestoreOptions {
        RestoreOptions { mode: self.mode, fast: self.fast, memory: self.memory, ..RestoreOptions::default() }
    }
}

/// A checkpoint file whose log positions were set to zero.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CheckpointChange {
    /// Within SHARED.
    pub file: String,
    /// Its logical bytes in the backup.
    pub len_before: u64,
    /// Its logical bytes as restored.
    pub len_after: u64,
}

/// Something that was written for a server.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PlaceReport {
    /// `SHARED`, or `hk_data`.
    pub what: &'static str,
    /// Where.
    pub path: String,
    /// True if it has the checksum framing of backend DISK.
    pub framed: bool,
    /// Files there.
    pub files: u64,
}

/// What was restored for a server.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StartReport {
    /// Of which backup.
    pub id: ObjectHash,
    /// The working directory of the server.
    pub directory: String,
    /// The tree in the backup.
    pub tree: String,
    /// The release that wrote it, if the tree says so.
    pub release: Option<String>,
    /// The moment that the server will show.
    pub backup_ts: Option<Ts>,
    /// `full` or `incremental`, or whatever the BACKUP was called.
    pub kind: Option<String>,
    /// Where what is.
    pub places: Vec<PlaceReport>,
    /// Each service, and where its file says that it keeps what.
    pub services: Vec<ServicePlace>,
    /// Checkpoint files whose log positions were set to zero.
    pub zeroed: Vec<CheckpointChange>,
    /// Checkpoint files were written as they are.
    pub verbatim: bool,
    /// Files of the tree that were left out on purpose.
    pub left_out: Vec<String>,
    /// Files that are there now, verified.
    pub files: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes that were there already.
    pub bytes_kept: u64,
    /// Bytes read from the repository.
    pub bytes_read: u64,
    /// Objects that could not be restored.
    pub damaged: Vec<DamagedFile>,
    /// How many.
    pub damaged_count: u64,
    /// How the server is started.
    pub commands: Vec<String>,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// Everything decided, nothing done.
pub struct StartPlan {
    backup: BackupInfo,
    manifest: Manifest,
    index: Arc<Index>,
    contents: Contents,
    places: Places,
    options: StartOptions,
}

impl std::fmt::Debug for StartPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartPlan")
            .field("backup", &self.backup.id)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl StartPlan {
    /// The directory of SHARED, and whether it is framed.
    pub fn shared(&self) -> (&Path, bool) {
        (&self.places.shared.path, self.places.shared.framed)
    }

    /// The release that wrote the tree.
    pub fn release(&self) -> Option<Release> {
        self.contents.release
    }

    /// What is worth knowing beforehand.
    pub fn remarks(&self) -> &[String] {
        &self.contents.remarks
    }
}

/// How the server that wrote a tree kept it: framed or not, and of which release it was.
pub(crate) async fn written_as(
    repository: &Repository,
    backup: &BackupInfo,
    options: &StartOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<(bool, Option<Release>)> {
    let opened = open(repository, backup, monitor).await?;
    let tree = Tree::find(repository, &opened.index, &opened.manifest, options.tree.as_deref()).await?;
    let reader = Arc::clone(&opened.reader);
    super::blocking(move || {
        // The toml files say it; without them, how the tree itself lay.
        let cluster = places::cluster_of(&tree, &reader)?;
        let said = cluster.shared().ok().and_then(|shared| match shared {
            Backend::Directory { framed, .. } => Some(*framed),
            _ => None,
        });
        let lay = || tree.files.checkpoints.values().any(|entry| entry.transform == Transform::DiskCrc);
        Ok((said.unwrap_or_else(lay), tree.release(&reader)?))
    })
    .await
}

/// What a backup is read through.
struct Opened {
    manifest: Manifest,
    index: Arc<Index>,
    reader: Arc<Reader>,
}

async fn open(repository: &Repository, backup: &BackupInfo, monitor: &Arc<dyn Monitor>) -> Result<Opened> {
    monitor.event(Event::Begin { phase: Phase::Planning, bytes: 0, items: 0 });
    let index = repository.index().await?;
    let manifest = listed_manifest(repository, &backup.id).await?;
    let reader = Arc::new(Reader::new(repository, &index, vec![manifest.clone()]));
    Ok(Opened { manifest, index, reader })
}

/// Finds out where everything goes, and whether a server will start from it. `directory` is the working directory of the server.
///
/// Refuses: a tree that is not complete or has no ids; a directory that a server uses or that is not empty; a SHARED that is a bucket.
pub async fn plan(
    repository: &Repository,
    backup: &BackupInfo,
    directory: &Path,
    options: &StartOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<StartPlan> {
    let act = || format!("restore {} for a server in {}", backup.id, directory.display());
    let opened = open(repository, backup, monitor).await?;
    let tree = Tree::find(repository, &opened.index, &opened.manifest, options.tree.as_deref()).await.context(act)?;
    let (reader, from, id) = (Arc::clone(&opened.reader), options.clone(), backup.id);
    let dir = directory.to_owned();
    let (tree, places) = super::blocking(move || {
        let places = Places::find(&dir, &tree, &reader, &from, &id)?;
        busy::refuse_if_used(&places)?;
        places.refuse_if_filled(from.mode)?;
        Ok((tree, places))
    })
    .await
    .context(act)?;
    let contents = prepare(tree, &opened.reader, options).await.context(act)?;
    let Opened { manifest, index, .. } = opened;
    Ok(StartPlan { backup: backup.clone(), manifest, index, contents, places, options: options.clone() })
}

/// Writes what was planned.
pub async fn apply(repository: &Repository, plan: StartPlan, monitor: Arc<dyn Monitor>) -> Result<StartReport> {
    let begun = Instant::now();
    let mut report = RestoreReport::new(&plan.backup);
    let places =
        restore::in_session(repository, &mut report, async |report| run(repository, &plan, &monitor, report).await)
            .await?;
    monitor.event(Event::End { phase: Phase::Restoring });
    Ok(told(plan, report, places, begun.elapsed()))
}

/// Plans and writes.
pub async fn start(
    repository: &Repository,
    backup: &BackupInfo,
    directory: &Path,
    options: &StartOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<StartReport> {
    let plan = plan(repository, backup, directory, options, &monitor).await?;
    apply(repository, plan, monitor).await
}

async fn run(
    repository: &Repository,
    plan: &StartPlan,
    monitor: &Arc<dyn Monitor>,
    report: &mut RestoreReport,
) -> Result<Vec<PlaceReport>> {
    let StartPlan { manifest, index, contents, places, options, .. } = plan;
    let tree = &contents.tree;
    // Once more: time has passed since the plan.
    busy::refuse_if_used(places)?;
    // Where it writes, which the server's settings may put anywhere; a repository beside that, in the server's directory, is no harm.
    let written = places.ids.iter().filter_map(|ids| ids.path.parent()).chain([places.shared.path.as_path()]);
    for directory in written {
        keep_apart(repository.store().local_path(), directory)?;
    }
    let owner = write::Owner::of(&places.directory, repository.environment().clock.now())?;
    owner.make_directories(&places.all_directories())?;
    let shared = Arc::new(Target::create(&places.shared.path, options.mode)?);
    let mut keys = tree.shared_keys();
    let in_shared = places.ids.iter().filter_map(|ids| ids.path.strip_prefix(&places.shared.path).ok());
    keys.extend(in_shared.map(|path| path.as_os_str().as_encoded_bytes().to_vec()));
    if options.mode != TargetMode::New {
        write::remove_extra(&shared, keys, &contents.checkpoints, options.delete_extra, report)?;
    }
    let bytes = tree.bytes();
    let free = shared.free_bytes()?;
    if options.mode == TargetMode::New && bytes > free {
        let (bytes, free) = (crate::units::bytes(bytes), crate::units::bytes(free));
        let message = format!("{bytes} are to be restored and the disk says that {free} are free: it may become full");
        monitor.event(Event::Warning { message });
    }
    let items = (tree.files.objects.len() + tree.gc.len() + tree.udf.len()) as u64;
    monitor.event(Event::Begin { phase: Phase::Restoring, bytes, items });

    let transform = write::transform(places.shared.framed);
    let place = |entry: Entry| placed(tree, entry, transform, &owner);
    let restore_options = options.restore_options();
    let job = Job { repository, index, manifest, target: &shared, options: &restore_options, monitor };
    for folder in write::folders(tree) {
        shared.make_directory_with(&folder, &owner.of_directory())?;
    }
    restore::write_placed(&job, &place, report).await?;

    let mut written = Vec::new();
    for place in &places.ids {
        match place.path.strip_prefix(&places.shared.path) {
            Ok(inner) if place.in_shared => {
                let inner = inner.as_os_str().as_encoded_bytes();
                write::small(&shared, inner, &contents.hk_data, place.framed, &owner.of_file(owner.now))?;
            }
            _ => write::ids(place, &contents.hk_data, &owner)?,
        }
        report.bytes_written += contents.hk_data.len() as u64;
        let path = place.path.display().to_string();
        written.push(PlaceReport { what: "hk_data", path, framed: place.framed, files: 1 });
    }
    for (name, bytes) in &contents.checkpoints {
        let path = name.to_string();
        write::small(&shared, path.as_bytes(), bytes, places.shared.framed, &owner.of_file(owner.now))?;
        report.files += 1;
        report.bytes_written += bytes.len() as u64;
    }
    let (path, framed) = (places.shared.path.display().to_string(), places.shared.framed);
    written.insert(0, PlaceReport { what: "SHARED", path, framed, files: report.files });
    report.files += places.ids.len() as u64;
    restore::finish(shared, report).await?;
    Ok(written)
}

/// An entry of the tree as it is to lie in SHARED.
fn placed(tree: &Tree, entry: Entry, transform: Transform, owner: &write::Owner) -> Option<Entry> {
    if entry.kind != EntryKind::File {
        return None;
    }
    let path = tree.in_shared(&entry.path)?;
    let attributes = owner.of_file(entry.mtime);
    Some(Entry { path, transform, mode: attributes.mode, uid: attributes.uid, gid: attributes.gid, ..entry })
}

fn told(plan: StartPlan, report: RestoreReport, places: Vec<PlaceReport>, duration: Duration) -> StartReport {
    let StartPlan { backup, contents, places: planned, options, .. } = plan;
    let Contents { tree, sum, release, changes, left_out, mut remarks, .. } = contents;
    remarks.extend(planned.remarks);
    remarks.extend(report.remarks);
    if !changes.is_empty() {
        remarks.push(format!(
            "the log positions in {} checkpoint files were set to zero, so that the server survives its restarts; the backup itself is unchanged",
            changes.len()
        ));
    }
    StartReport {
        id: backup.id,
        directory: planned.directory.display().to_string(),
        tree: crate::source::display_path(&tree.root),
        release: release.map(|release| release.to_string()),
        backup_ts: sum.as_ref().and_then(|sum| sum.ts),
        kind: sum.map(|sum| sum.kind),
        places,
        services: planned.services,
        zeroed: changes,
        verbatim: options.verbatim,
        left_out,
        files: report.files,
        bytes_written: report.bytes_written,
        bytes_kept: report.bytes_kept,
        bytes_read: report.bytes_read,
        damaged: report.damaged,
        damaged_count: report.damaged_count,
        commands: planned.commands,
        remarks,
        duration,
    }
}

/// A refusal for what lies in the way.
fn in_the_way(what: &str, path: &Path) -> Error {
    Error::new(ErrorKind::Invalid, format!("{what} {} is not empty: stop the server and move it away", path.display()))
}
