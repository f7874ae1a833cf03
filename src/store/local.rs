//! What `object_store` leaves to its caller on a local disk: directories that must outlive a crash, and leftovers.
//!
//! With fsync on, `LocalFileSystem` syncs a file before it publishes it, then the directory the name is in, and directories
//! it made itself. Not done there, hence here: a directory that *another* writer has just made may not be durable yet
//! when we put a file into it; deletes are not synced; and `name#1` files of writers that were killed are hidden from
//! listings. Everything here blocks; callers run it on the blocking pool.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::layout::{ObjectPath, StoredObject, leftover_target};
use crate::clock::Timestamp;

/// A file that an interrupted write left on a local disk. Its session says whether the writer may still be at it.
#[derive(Clone, Debug)]
pub struct Leftover {
    /// What it would have become.
    pub object: StoredObject,
    /// Bytes written so far.
    pub len: u64,
    /// When it was last written to.
    pub last_modified: Timestamp,
    pub(super) file: PathBuf,
}

/// The directory of a local store.
#[derive(Debug)]
pub(super) struct LocalDisk {
    root: PathBuf,
    /// Held open so that the file system under us cannot be unmounted between two writes.
    _handle: Option<File>,
    /// Directories whose own entry is known to be durable; there are at most a few hundred.
    durable: Mutex<HashSet<PathBuf>>,
}

impl LocalDisk {
    pub(super) fn new(root: PathBuf) -> Self {
        let handle = File::open(&root).ok();
        Self { root, _handle: handle, durable: Mutex::default() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn file(&self, path: &ObjectPath) -> PathBuf {
        let mut file = self.root.clone();
        file.extend(path.as_str().split('/'));
        file
    }

    /// True if an object at `path` can be written without looking at its directory first.
    pub(super) fn is_ready_for(&self, path: &ObjectPath) -> bool {
        let file = self.file(path);
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        file.parent().is_none_or(|parent| parent == self.root || durable.contains(parent))
    }

    /// Makes the directories of `path` and their entries durable, whoever made them.
    pub(super) fn make_ready_for(&self, path: &ObjectPath) -> io::Result<()> {
        let file = self.file(path);
        let Some(parent) = file.parent() else { return Ok(()) };
        let Ok(below) = parent.strip_prefix(&self.root) else { return Ok(()) };
        let mut directory = self.root.clone();
        for part in below {
            let above = directory.clone();
            directory.push(part);
            if self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(&directory) {
                continue;
            }
            // Not `create_dir_all`: if the root is gone (a disk that is no longer mounted), we must not write in its place.
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            sync_directory(&above)?;
            self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.clone());
        }
        Ok(())
    }

    /// Makes an object durable that somebody else wrote, or that we wrote without being told so.
    pub(super) fn sync_object(&self, path: &ObjectPath) -> io::Result<()> {
        let file = self.file(path);
        File::open(&file)?.sync_all()?;
        file.parent().map_or(Ok(()), sync_directory)
    }

    /// Makes it durable that these objects are gone.
    pub(super) fn sync_deleted<'a>(&self, paths: impl IntoIterator<Item = &'a ObjectPath>) -> io::Result<()> {
        let directories: HashSet<PathBuf> =
            paths.into_iter().filter_map(|path| self.file(path).parent().map(Path::to_path_buf)).collect();
        for directory in directories {
            match sync_directory(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All leftovers, in no order. Does not follow symbolic links.
    pub(super) fn leftovers(&self) -> io::Result<Vec<Leftover>> {
        let mut found = Vec::new();
        let mut todo = vec![(self.root.clone(), String::new())];
        while let Some((directory, prefix)) = todo.pop() {
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !prefix.is_empty() => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let text = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    todo.push((entry.path(), text));
                } else if kind.is_file()
                    && let Some(target) = leftover_target(&text)
                {
                    found.extend(describe(&entry, target)?);
                }
            }
        }
        Ok(found)
    }
}

/// A leftover, unless it is none of ours or has just become an object.
fn describe(entry: &fs::DirEntry, target: &str) -> io::Result<Option<Leftover>> {
    let Ok(path) = ObjectPath::parse(target) else { return Ok(None) };
    let object = match StoredObject::parse(&path) {
        StoredObject::Unknown(_) | StoredObject::Leftover(_) => return Ok(None),
        object => object,
    };
    let metadata = match entry.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let last_modified = match metadata.modified()?.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(_) => 0,
    };
    let last_modified = Timestamp::from_nanos(last_modified);
    Ok(Some(Leftover { object, len: metadata.len(), last_modified, file: entry.path() }))
}

/// Deletes a leftover; one that is gone already is fine.
pub(super) fn delete_leftover(leftover: &Leftover) -> io::Result<()> {
    match fs::remove_file(&leftover.file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => leftover.file.parent().map_or(Ok(()), sync_directory),
    }
}

/// Makes a directory with everything above it that is missing, durably; returns its canonical path.
pub(super) fn create_root(root: &Path) -> io::Result<PathBuf> {
    let root = std::path::absolute(root)?;
    let first_existing = root.ancestors().find(|ancestor| ancestor.exists()).map(Path::to_path_buf);
    fs::create_dir_all(&root)?;
    if let Some(first_existing) = first_existing {
        for directory in root.ancestors().skip(1).take_while(|directory| directory.starts_with(&first_existing)) {
            sync_directory(directory)?;
        }
    }
    root.canonicalize()
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_below_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repo");
        let disk = LocalDisk::new(root.clone());
        let path = ObjectPath::parse("packs/ab/x").unwrap();
        assert!(!disk.is_ready_for(&path));
        assert_eq!(disk.make_ready_for(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!root.exists(), "the root was made in place of an unmounted disk");
        fs::create_dir(&root).unwrap();
        disk.make_ready_for(&path).unwrap();
        assert!(root.join("packs/ab").is_dir());
        assert!(disk.is_ready_for(&path));
        assert!(disk.is_ready_for(&ObjectPath::parse("config").unwrap()));
    }

    #[test]
    fn roots_are_made_with_everything_above() {
        let dir = tempfile::tempdir().unwrap();
        let root = create_root(&dir.path().join("a/b/c")).unwrap();
        assert!(root.is_dir());
        assert_eq!(create_root(&root).unwrap(), root);
    }
}
