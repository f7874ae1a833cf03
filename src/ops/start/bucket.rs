//! A backup into the bucket of a cluster whose SHARED is one.
//!
//! Objects of any size go through in parts, every byte is hashed on the way, and an object whose hash is not the backup's is never finished.
//! Checkpoint files come last: a prefix without them holds no database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::contents::{Contents, Tree, prepare};
use super::places::{IdsPlace, log_framing};
use super::{CheckpointChange, Opened, StartOptions, write};
use crate::codec::FileHasher;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::ObjectHash;
use crate::ops::restore::{self, DamagedFile, RestoreReport, TargetMode};
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{BackupInfo, ChunkCache, Entry, EntryKind, EntryStream, Repository, pieces_of};
use crate::source::display_path;
use crate::store::{Folder, ObjectPath, Store};
use crate::tae::{FileClass, TaeName, Ts, classify};
use crate::units::MIB;

/// Files on their way at once.
const FILES_AT_ONCE: usize = 6;
/// Chunks of a file read ahead.
const CHUNKS_AHEAD: usize = 16;
/// Shorter files are one request; longer ones are written in parts.
const WHOLE_MAX: u64 = 8 * MIB;
const CACHE_BYTES: usize = 32 << 20;

/// What was written into a bucket.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BucketReport {
    /// Of which backup.
    pub id: ObjectHash,
    /// The prefix that SHARED names.
    pub bucket: String,
    /// The file with the ids.
    pub hk_data: String,
    /// True if that file has the framing of backend DISK.
    pub hk_data_framed: bool,
    /// The release that wrote the tree, if it says so.
    pub release: Option<String>,
    /// The moment that the server will show.
    pub backup_ts: Option<Ts>,
    /// Checkpoint files whose log positions were set to zero.
    pub zeroed: Vec<CheckpointChange>,
    /// Checkpoint files were written as they are.
    pub verbatim: bool,
    /// Files of the tree that were left out on purpose.
    pub left_out: Vec<String>,
    /// Objects there.
    pub files: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes that were there already.
    pub bytes_kept: u64,
    /// Objects that could not be restored.
    pub damaged: Vec<DamagedFile>,
    /// How many.
    pub damaged_count: u64,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// Writes a backup below the root of `store`, raw, and its ids into a file on this machine.
///
/// The prefix must be empty; with `Delta` objects that are there are kept by name and length, as their names never stand for other bytes, and
/// everything else is written anew. Refuses what [`super::plan`] refuses of the tree.
pub async fn to_bucket(
    repository: &Repository,
    backup: &BackupInfo,
    store: &Store,
    hk_data: &Path,
    options: &StartOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<BucketReport> {
    let begun = Instant::now();
    let act = || format!("restore {} to {}", backup.id, store.display());
    if store.local_path().is_some() {
        let message = "it is a directory: --matrixone DIR restores for a server whose SHARED is one";
        return Err(Error::invalid(message)).context(act);
    }
    let opened = super::open(repository, backup, &monitor).await?;
    let tree = Tree::find(repository, &opened.index, &opened.manifest, options.tree.as_deref()).await.context(act)?;
    let place = ids_place(&tree, &opened, hk_data, options).await.context(act)?;
    let contents = prepare(tree, &opened.reader, options).await.context(act)?;
    let there = already_there(store, &contents, options).await.context(act)?;

    let mut report = RestoreReport::new(backup);
    restore::in_session(repository, &mut report, async |report| {
        run(repository, &opened, &contents, store, &there, &place, &monitor, report).await
    })
    .await
    .context(act)?;
    monitor.event(Event::End { phase: Phase::Restoring });
    let Contents { sum, release, changes, left_out, mut remarks, .. } = contents;
    remarks.extend(report.remarks);
    remarks.push(format!(
        "put {} into LOCAL of every log service, as hk_data, before the first start",
        place.path.display()
    ));
    Ok(BucketReport {
        id: backup.id,
        bucket: store.display().to_owned(),
        hk_data: place.path.display().to_string(),
        hk_data_framed: place.framed,
        release: release.map(|release| release.to_string()),
        backup_ts: sum.and_then(|sum| sum.ts),
        zeroed: changes,
        verbatim: options.verbatim,
        left_out,
        files: report.files,
        bytes_written: report.bytes_written,
        bytes_kept: report.bytes_kept,
        damaged: report.damaged,
        damaged_count: report.damaged_count,
        remarks,
        duration: begun.elapsed(),
    })
}

async fn ids_place(tree: &Tree, opened: &Opened, file: &Path, options: &StartOptions) -> Result<IdsPlace> {
    if options.mode == TargetMode::New && file.exists() {
        return Err(Error::invalid(format!("--hk-data {}: the file is there already", file.display())));
    }
    let path = std::path::absolute(file).context(|| format!("find {}", file.display()))?;
    let framed = log_framing(tree, &opened.reader, options).await?;
    Ok(IdsPlace { path, framed, in_shared: false })
}

/// What the prefix holds, refused if it is not what may be there.
async fn already_there(store: &Store, contents: &Contents, options: &StartOptions) -> Result<BTreeMap<Vec<u8>, u64>> {
    let mut there = BTreeMap::new();
    let mut listing = store.list(Folder::Root);
    let keys = contents.tree.shared_keys();
    let is_checkpoint = |path: &[u8]| contents.checkpoints.iter().any(|(name, _)| name.to_string().as_bytes() == path);
    let mut extra = Vec::new();
    while let Some(object) = listing.try_next().await? {
        let path = object.path.as_str().as_bytes().to_vec();
        if options.mode == TargetMode::New {
            return Err(Error::invalid(format!(
                "the prefix is not empty (it holds {}): name an empty one, or go on with a restore that was stopped by --delta",
                object.path
            )));
        }
        if keys.contains(&path) {
            there.insert(path, object.len);
        } else if !is_checkpoint(&path) {
            extra.push(object.path);
        }
    }
    if let Some(first) = extra.first() {
        if !options.delete_extra {
            return Err(Error::invalid(format!(
                "the prefix holds {} objects that the backup does not have, {first} first; a server would take checkpoints of another state for \
                 its own: --delete removes them",
                extra.len()
            )));
        }
        store.delete_many(extra).await?;
    }
    Ok(there)
}

#[allow(clippy::too_many_arguments, reason = "one phase of a restore, with all that was prepared for it")]
async fn run(
    repository: &Repository,
    opened: &Opened,
    contents: &Contents,
    store: &Store,
    there: &BTreeMap<Vec<u8>, u64>,
    place: &IdsPlace,
    monitor: &Arc<dyn Monitor>,
    report: &mut RestoreReport,
) -> Result<()> {
    let tree = &contents.tree;
    let items = (tree.files.objects.len() + tree.gc.len() + tree.udf.len()) as u64;
    monitor.event(Event::Begin { phase: Phase::Restoring, bytes: tree.bytes(), items });
    let cache = Arc::new(ChunkCache::new(CACHE_BYTES));
    let mut entries = EntryStream::new(repository, &opened.index, &opened.manifest);
    while let Some(segment) = entries.next().await {
        let wanted = segment?.into_iter().filter(|entry| entry.kind == EntryKind::File);
        let wanted: Vec<_> = wanted.filter_map(|entry| Some((tree.in_shared(&entry.path)?, entry))).collect();
        let mut uploads = futures::stream::iter(wanted)
            .map(|(path, entry)| {
                let kept = is_stable(&path) && there.get(&path) == Some(&entry.size);
                let sender = Sender { repository, opened, store, cache: &cache, monitor };
                async move {
                    let sent = if kept { Ok(()) } else { sender.send(&path, &entry).await };
                    (entry, kept, sent)
                }
            })
            .buffer_unordered(FILES_AT_ONCE);
        while let Some((entry, kept, sent)) = uploads.next().await {
            if monitor.cancelled() {
                let message = "stopped on request; complete objects stay, --delta goes on from here";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            match sent {
                Ok(()) if kept => report.bytes_kept += entry.size,
                Ok(()) => report.bytes_written += entry.size,
                Err(error) if error.is_damage() => {
                    report.add_damaged(&entry.path, error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            }
            report.files += 1;
        }
    }
    let ids = Bytes::copy_from_slice(&contents.hk_data);
    write_ids(repository, place, ids).await?;
    for (name, bytes) in &contents.checkpoints {
        let path = ObjectPath::parse(&name.to_string())?;
        store.put_new(path, vec![Bytes::copy_from_slice(bytes)]).await?;
        report.files += 1;
        report.bytes_written += bytes.len() as u64;
    }
    Ok(())
}

async fn write_ids(repository: &Repository, place: &IdsPlace, ids: Bytes) -> Result<()> {
    let now = repository.environment().clock.now();
    let place = place.clone();
    crate::ops::blocking(move || {
        let directory: PathBuf = place.path.parent().map(Path::to_owned).unwrap_or_default();
        let owner = write::Owner::of(&directory, now)?;
        owner.make_directories(&[directory])?;
        write::ids(&place, &ids, &owner)
    })
    .await
}

/// True for objects whose name fixes their content.
fn is_stable(path: &[u8]) -> bool {
    matches!(classify(path), FileClass::Object(name) if TaeName::is_content_stable(&name))
}

/// Sends one file after the other.
#[derive(Clone, Copy)]
struct Sender<'a> {
    repository: &'a Repository,
    opened: &'a Opened,
    store: &'a Store,
    cache: &'a Arc<ChunkCache>,
    monitor: &'a Arc<dyn Monitor>,
}

impl Sender<'_> {
    async fn send(&self, path: &[u8], entry: &Entry) -> Result<()> {
        let act = || format!("restore {}", display_path(&entry.path));
        let path = ObjectPath::parse(std::str::from_utf8(path).map_err(|_| Error::corrupt(act()))?)?;
        if entry.size <= WHOLE_MAX {
            let mut parts = Vec::new();
            self.read(entry, async |part| {
                parts.push(part);
                Ok(())
            })
            .await
            .context(act)?;
            return self.store.put_new(path, parts).await;
        }
        let mut upload = self.store.upload(path).await?;
        let read = self.read(entry, async |part| upload.write(part).await).await;
        match read {
            Ok(()) => upload.finish().await,
            Err(error) => {
                upload.abort().await;
                Err(error.context(act()))
            }
        }
    }

    /// Hands the file on in order; fails at the end if the whole is not what the backup says.
    async fn read(&self, entry: &Entry, mut take: impl AsyncFnMut(Bytes) -> Result<()>) -> Result<()> {
        let Self { repository, opened, cache, .. } = *self;
        let runs = pieces_of(repository, &opened.index, &entry.pieces);
        let pieces = runs.map_ok(|run| futures::stream::iter(run.into_iter().map(Ok::<_, Error>))).try_flatten();
        let mut chunks = pieces
            .map(|piece| async move {
                let piece = piece?;
                let plain = cache.read(repository, &opened.index, &piece.chunk).await?;
                let start = piece.offset as usize;
                let end = start + piece.len as usize;
                if end > plain.len() {
                    return Err(Error::corrupt("a piece reaches beyond its chunk"));
                }
                Ok(plain.slice(start..end))
            })
            .buffered(CHUNKS_AHEAD);
        let (mut hasher, mut len) = (FileHasher::new(), 0);
        while let Some(part) = chunks.next().await {
            let part = part?;
            hasher.update(&part);
            len += part.len() as u64;
            self.monitor.advance(part.len() as u64, part.len() as u64, 0);
            take(part).await?;
        }
        if len != entry.size || hasher.finish() != entry.hash {
            return Err(Error::corrupt("the bytes are not those of the file's hash"));
        }
        self.monitor.advance(0, 0, 1);
        Ok(())
    }
}
