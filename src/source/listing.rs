//! The names of one directory, sorted, in as little memory as that takes.
//!
//! All names lie in one arena, a directory's with the `/` that it sorts with, and eight bytes an entry point into it: a
//! million object names are about 60 MB. Nothing is asked of the files themselves unless the file system keeps no types.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rayon::slice::ParallelSliceMut;
use rustix::fs::{RawDir, RawDirEntry};

use super::stat::{NodeKind, Stat};

/// Directories below this are sorted on one thread.
const PARALLEL_SORT_MIN: usize = 20_000;

#[derive(Clone, Copy)]
struct Item {
    start: u32,
    len: u16,
    kind: NodeKind,
}

/// The sorted entries of one directory.
pub(crate) struct Listing {
    names: Vec<u8>,
    items: Vec<Item>,
}

impl Listing {
    /// Reads an open directory. What was read before an error is kept: the names are there.
    pub(crate) fn read(directory: BorrowedFd<'_>) -> (Self, Option<io::Error>) {
        let mut listing = Self { names: Vec::new(), items: Vec::new() };
        let result = listing.fill(directory);
        listing.sort();
        (listing, result.err())
    }

    /// A listing of one name.
    pub(crate) fn single(name: &[u8], kind: NodeKind) -> io::Result<Self> {
        let mut listing = Self { names: Vec::new(), items: Vec::new() };
        listing.push(name, kind)?;
        Ok(listing)
    }

    /// Name, without the trailing slash, and kind of an entry.
    pub(crate) fn get(&self, index: usize) -> Option<(&[u8], NodeKind)> {
        let item = self.items.get(index)?;
        let key = key(&self.names, *item);
        let name = if item.kind == NodeKind::Directory { &key[..key.len() - 1] } else { key };
        Some((name, item.kind))
    }

    fn fill(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let mut buf = vec![MaybeUninit::<u8>::uninit(); 128 << 10];
        let mut entries = RawDir::new(directory, &mut buf);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => self.add(directory, &entry)?,
                Err(rustix::io::Errno::INTR) => {}
                // The directory was removed after it was opened: it has no entries.
                Err(rustix::io::Errno::NOENT) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn add(&mut self, directory: BorrowedFd<'_>, entry: &RawDirEntry<'_>) -> io::Result<()> {
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            return Ok(());
        }
        let kind = match NodeKind::of(entry.file_type()) {
            Some(kind) => kind,
            // No type in the directory. If the file is gone or hides, whoever looks at it next reports it.
            None => Stat::at(directory, name).ok().and_then(|stat| stat.kind).unwrap_or(NodeKind::File),
        };
        self.push(name, kind)
    }

    fn push(&mut self, name: &[u8], kind: NodeKind) -> io::Result<()> {
        let full = || io::Error::other("the directory holds more than 4 GiB of names");
        let is_directory = kind == NodeKind::Directory;
        let start = u32::try_from(self.names.len()).map_err(|_| full())?;
        let len = u16::try_from(name.len() + usize::from(is_directory)).map_err(|_| full())?;
        self.names.extend_from_slice(name);
        if is_directory {
            self.names.push(b'/');
        }
        self.items.push(Item { start, len, kind });
        Ok(())
    }

    fn sort(&mut self) {
        let Self { names, items } = self;
        if items.len() < PARALLEL_SORT_MIN {
            items.sort_unstable_by(|a, b| key(names, *a).cmp(key(names, *b)));
        } else {
            items.par_sort_unstable_by(|a, b| key(names, *a).cmp(key(names, *b)));
        }
    }
}

fn key(names: &[u8], item: Item) -> &[u8] {
    let start = item.start as usize;
    &names[start..start + usize::from(item.len)]
}
