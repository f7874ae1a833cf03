//! Directories and small files of a server, in its framing and with its rights.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contents::Tree;
use super::places::IdsPlace;
use crate::clock::Timestamp;
use crate::error::{Context, Error, Result};
use crate::ops::restore::{RestoreReport, TargetMode};
use crate::ops::target::{Attributes, Target};
use crate::repo::Transform;
use crate::source::display_path;
use crate::tae::{Framer, MetaName};

/// As a server makes its own.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o755;

pub(super) fn transform(framed: bool) -> Transform {
    if framed { Transform::DiskCrc } else { Transform::None }
}

/// Who is to own what is written: whoever owns the working directory, which is the server's user.
pub(super) struct Owner {
    uid: u32,
    gid: u32,
    pub(super) now: Timestamp,
}

impl Owner {
    /// The owner of the directory, or of the nearest one above that is there.
    pub(super) fn of(directory: &Path, now: Timestamp) -> Result<Self> {
        let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let metadata = std::fs::metadata(there).context(|| format!("look at {}", there.display()))?;
        Ok(Self { uid: metadata.uid(), gid: metadata.gid(), now })
    }

    pub(super) fn of_file(&self, mtime: Timestamp) -> Attributes {
        Attributes { mode: FILE_MODE, uid: self.uid, gid: self.gid, mtime }
    }

    pub(super) fn of_directory(&self) -> Attributes {
        Attributes { mode: DIRECTORY_MODE, uid: self.uid, gid: self.gid, mtime: self.now }
    }

    /// Makes directories, and gives those that it made to the owner.
    pub(super) fn make_directories(&self, directories: &[PathBuf]) -> Result<()> {
        for directory in directories {
            let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
            for path in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
                let act = || format!("make directory {}", path.display());
                std::fs::create_dir(path).context(act)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(DIRECTORY_MODE)).context(act)?;
                if rustix::process::geteuid().is_root() {
                    std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).context(act)?;
                }
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                std::fs::File::open(parent).and_then(|parent| parent.sync_all()).context(act)?;
            }
        }
        Ok(())
    }
}

/// Folders within SHARED, those above first.
pub(super) fn folders(tree: &Tree) -> BTreeSet<Vec<u8>> {
    let mut folders = BTreeSet::from([b"ckp".to_vec()]);
    for path in tree.gc.keys().chain(tree.udf.keys()) {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        folders.extend(ends.map(|end| path[..end].to_vec()));
    }
    folders
}

/// The bytes of a file as they lie on disk.
pub(super) fn physical(bytes: &[u8], framed: bool) -> Vec<u8> {
    if !framed {
        return bytes.to_vec();
    }
    let (mut framer, mut physical) = (Framer::new(), Vec::new());
    framer.feed(bytes, &mut physical);
    framer.finish(&mut physical);
    physical
}

/// Writes a whole file under its name, durable.
pub(super) fn small(target: &Target, path: &[u8], bytes: &[u8], framed: bool, attributes: &Attributes) -> Result<()> {
    let physical = physical(bytes, framed);
    let file = target.create_file(path, physical.len() as u64, false)?;
    file.write_at(0, &physical)?;
    let sealed = file.seal(attributes)?;
    match target.publish(vec![sealed])?.pop() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Writes the ids where a log service looks for them.
pub(super) fn ids(place: &IdsPlace, bytes: &[u8], owner: &Owner) -> Result<()> {
    let (Some(directory), Some(name)) = (place.path.parent(), place.path.file_name()) else {
        return Err(Error::invalid(format!("{}: no file can be of that name", place.path.display())));
    };
    // What else may lie there was looked at by the plan.
    let target = Target::create(directory, TargetMode::Delta)?;
    small(&target, name.as_encoded_bytes(), bytes, place.framed, &owner.of_file(owner.now))?;
    target.finish_unswept().map(drop)
}

/// What SHARED holds and the backup does not: refused, or removed if asked. A server would take its checkpoints for its own.
pub(super) fn remove_extra(
    shared: &Arc<Target>,
    mut keys: BTreeSet<Vec<u8>>,
    checkpoints: &[(MetaName, Vec<u8>)],
    remove: bool,
    report: &mut RestoreReport,
) -> Result<()> {
    keys.extend(checkpoints.iter().map(|(name, _)| name.to_string().into_bytes()));
    let plan = shared.plan_extra(&mut keys.into_iter().map(Ok))?;
    let Some(first) = plan.paths.first() else { return Ok(()) };
    if !remove {
        return Err(Error::invalid(format!(
            "SHARED holds {} files and directories that the backup does not have, {} first; a server would take checkpoints of another state for its \
             own: --delete removes them",
            plan.paths.len(),
            display_path(first)
        )));
    }
    let kept = shared.remove_extra(&plan)?;
    if let Some(first) = kept.first() {
        return Err(Error::invalid(format!("{} cannot be removed from SHARED", display_path(first))));
    }
    report
        .remarks
        .push(format!("{} files and directories that the backup does not have were removed", plan.paths.len()));
    Ok(())
}
