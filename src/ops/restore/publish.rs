//! Files that are complete: verified as a whole, framed where asked, made durable, given their names.

use std::sync::Arc;

use rayon::prelude::*;

use super::window::OpenedFile;
use super::{RestoreReport, attributes, blocking};
use crate::codec::FileHasher;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::index::Index;
use crate::manifest::order;
use crate::ops::target::{SealedFile, Target, TargetFile};
use crate::progress::Monitor;
use crate::repo::{Entry, EntryKind, EntryStream, Manifest, Repository, Transform};
use crate::source::display_path;
use crate::tae::Framer;

/// Bytes read back at once. A multiple of the framing's content per block, so that framing can go from the end to the front.
const BLOCK_CONTENT: u64 = 2044;
const BLOCK: u64 = 2048;
const READ_BLOCKS: u64 = 512;

/// What came of a window's complete files.
pub(super) struct Published {
    /// Files that have their names.
    pub(super) files: u64,
    /// Those that cannot be restored: path and reason.
    pub(super) damaged: Vec<(Vec<u8>, String)>,
}

/// What came of one file.
enum Finished {
    /// Ready for its name.
    Sealed(Box<SealedFile>),
    /// Cannot be restored: path and reason.
    Damaged(Vec<u8>, String),
}

/// Publishes complete files that nobody writes any more; throws damaged ones away. Blocks.
pub(super) fn publish(
    files: Vec<Arc<OpenedFile>>,
    target: &Target,
    fast: bool,
    monitor: &dyn Monitor,
) -> Result<Published> {
    let finished: Vec<Result<Finished>> = files.into_par_iter().map(|file| finish_file(file, fast)).collect();
    let mut sealed = Vec::new();
    let mut damaged = Vec::new();
    for file in finished {
        match file? {
            Finished::Sealed(file) => sealed.push(*file),
            Finished::Damaged(path, why) => damaged.push((path, why)),
        }
    }
    let mut files = sealed.len() as u64;
    monitor.advance(0, 0, files);
    for (path, error) in target.publish(sealed)? {
        files -= 1;
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        damaged.push((path, format!("{error}{cause}")));
    }
    Ok(Published { files, damaged })
}

/// Throws the files of a failed window away.
pub(super) fn discard(files: Vec<Arc<OpenedFile>>) {
    for file in files.into_iter().filter_map(Arc::into_inner) {
        // The restore has failed already; a temporary file that stays is swept by the next one.
        let _gone = file.target.discard();
    }
}

fn finish_file(file: Arc<OpenedFile>, fast: bool) -> Result<Finished> {
    let Some(file) = Arc::into_inner(file) else {
        return Err(Error::new(ErrorKind::Unavailable, "a restored file is still being written"));
    };
    let path = file.entry.path.clone();
    let failure = file.failure().or_else(|| verify(&file, fast).err().map(|error| error.to_string()));
    if let Some(why) = failure {
        file.target.discard().context(|| display_path(&path))?;
        return Ok(Finished::Damaged(path, why));
    }
    if file.transform == Transform::DiskCrc {
        frame_in_place(&file.target, file.entry.size).context(|| format!("frame {}", display_path(&path)))?;
    }
    let sealed = file.target.seal(&attributes(&file.entry))?;
    Ok(Finished::Sealed(Box::new(sealed)))
}

/// Reads the file back and compares its BLAKE3: proves that every piece went to its place.
fn verify(file: &OpenedFile, fast: bool) -> Result<()> {
    if fast {
        return Ok(());
    }
    let mut hasher = FileHasher::new();
    let mut buffer = vec![0; usize::try_from(file.entry.size.min(1 << 20)).unwrap_or(1 << 20)];
    let mut at = 0;
    while at < file.entry.size {
        let take = usize::try_from(file.entry.size - at).unwrap_or(buffer.len()).min(buffer.len());
        read_exact(&file.target, at, &mut buffer[..take])?;
        hasher.update(&buffer[..take]);
        at += take as u64;
    }
    if hasher.finish() == file.entry.hash {
        return Ok(());
    }
    Err(Error::corrupt("the restored bytes are not those of the file's hash, although every chunk was whole"))
}

fn read_exact(file: &TargetFile, at: u64, buffer: &mut [u8]) -> Result<()> {
    let read = file.read_at(at, buffer)?;
    if read == buffer.len() {
        return Ok(());
    }
    Err(Error::corrupt(format!("the restored file ends at {}", at + read as u64)))
}

/// Puts MatrixOne's checksum before every 2044 bytes. From the end to the front: a block's place is never before its content's, so nothing is
/// overwritten before it was moved.
fn frame_in_place(file: &TargetFile, size: u64) -> Result<()> {
    let mut logical = Vec::new();
    let mut physical = Vec::new();
    let mut end = size;
    while end > 0 {
        let start = (end - 1) / (READ_BLOCKS * BLOCK_CONTENT) * (READ_BLOCKS * BLOCK_CONTENT);
        logical.resize(usize::try_from(end - start).unwrap_or(0), 0);
        read_exact(file, start, &mut logical)?;
        physical.clear();
        let mut framer = Framer::new();
        framer.feed(&logical, &mut physical);
        framer.finish(&mut physical);
        file.write_at(start / BLOCK_CONTENT * BLOCK, &physical)?;
        end = start;
    }
    Ok(())
}

/// Removes what the backup does not have.
pub(super) async fn remove_extra(
    repository: &Repository,
    index: &Arc<Index>,
    manifest: &Manifest,
    target: &Arc<Target>,
    report: &mut RestoreReport,
) -> Result<()> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut entries = EntryStream::new(repository, index, manifest);
    while let Some(segment) = entries.next().await {
        keys.extend(segment?.iter().map(|entry| entry.sort_key().collect::<Vec<u8>>()));
    }
    let target = Arc::clone(target);
    let (removed, kept) = blocking(move || {
        let plan = target.plan_extra(&mut keys.into_iter().map(Ok))?;
        let kept = target.remove_extra(&plan)?;
        Ok((plan.paths.len() - kept.len(), kept.len()))
    })
    .await?;
    report.remarks.push(format!("{removed} files and directories that the backup does not have were removed"));
    if kept > 0 {
        report.remarks.push(format!("{kept} more could not be removed"));
    }
    Ok(())
}

/// Makes names durable and sets the attributes of directories.
pub(crate) async fn finish(target: Arc<Target>, report: &mut RestoreReport) -> Result<()> {
    let target = Arc::into_inner(target).ok_or_else(|| Error::invalid("the target is still being written"))?;
    let finished = blocking(move || target.finish()).await?;
    if finished.owners_not_restored > 0 {
        report.remarks.push(format!(
            "{} files belong to whoever ran this restore: only root can give them to their owners",
            finished.owners_not_restored
        ));
    }
    if finished.set_id_dropped > 0 {
        report.remarks.push(format!(
            "{} of them lost their set-user-id or set-group-id bit for that reason",
            finished.set_id_dropped
        ));
    }
    if finished.stale_removed > 0 {
        report.remarks.push(format!("{} temporary files of an earlier restore were removed", finished.stale_removed));
    }
    Ok(())
}

/// The entry of a path in a manifest.
pub(crate) async fn find_entry(
    repository: &Repository,
    index: &Arc<Index>,
    manifest: &Manifest,
    path: &[u8],
) -> Result<Option<Entry>> {
    let at = manifest.segments.partition_point(|segment| segment.first_key.as_slice() <= path);
    let Some(segment) = at.checked_sub(1).and_then(|at| manifest.segments.get(at)) else { return Ok(None) };
    let entries = repository.read_segment(index, segment).await?;
    Ok(entries.into_iter().find(|entry| {
        entry.path == path
            && order::compare(&entry.path, false, path, false).is_eq()
            && entry.kind != EntryKind::Directory
    }))
}
