//! Walks a directory tree in path order, in batches, without recursion.
//!
//! A stack holds the listings of the directories on the way to the current one, and a batch is first collected (names
//! only) and then looked at in parallel, relative to open directories. Memory is that of the listings on the stack plus
//! one batch. Open descriptors are bounded too: those of directories high above the current one are closed and opened
//! again, and checked to be the same directory, on the way back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::beneath::open_beneath;
use super::exclude::Excludes;
use super::listing::Listing;
use super::stat::{NodeKind, Stat};
use super::{EntryKind, Skipped, SourceEntry, display_path};
use crate::error::{Error, ErrorKind, Result};

/// Descriptors kept open for the directories nearest to the current one.
const OPEN_LEVELS: usize = 32;

/// A batch ends early when it spans so many directories, each of which is a descriptor.
const BATCH_DIRECTORIES: usize = 64;

/// Files looked at by one task.
const TASK_FILES: usize = 64;

/// What to leave out.
#[derive(Default)]
pub(crate) struct WalkOptions {
    pub(crate) exclude: Option<Excludes>,
    pub(crate) one_file_system: bool,
    /// Leave out the temporary files of MatrixOne.
    pub(crate) skip_temporary: bool,
    /// Device and inode of directories to leave out with all that they hold.
    pub(crate) leave_out: Vec<Node>,
}

/// Device and inode.
pub(crate) type Node = ((u32, u32), u64);

/// A walk over everything below a directory; the directory itself is not an entry.
pub(crate) struct Walker {
    root: Arc<OwnedFd>,
    device: (u32, u32),
    options: WalkOptions,
    stack: Vec<Frame>,
    /// Path of the directory on top of the stack, empty or ending in `/`.
    prefix: Vec<u8>,
    skipped: Skipped,
}

struct Frame {
    /// None while closed to save descriptors.
    fd: Option<Arc<OwnedFd>>,
    listing: Listing,
    next: usize,
    prefix_len: usize,
    /// Device and inode, to recognise the directory when it is opened again.
    node: Node,
}

enum Pending {
    Ready(SourceEntry),
    Look { directory: Arc<OwnedFd>, path: Vec<u8>, name_at: usize, kind: EntryKind },
}

enum Looked {
    Entry(SourceEntry),
    Vanished(Vec<u8>),
    Unreadable(Vec<u8>, io::Error),
}

impl Walker {
    /// Starts at an open directory.
    pub(crate) fn new(root: Arc<OwnedFd>, options: WalkOptions) -> io::Result<Self> {
        let (listing, error) = Listing::read(root.as_fd());
        if let Some(error) = error {
            return Err(error);
        }
        Self::with_listing(root, listing, options)
    }

    /// Starts at an open directory, but takes its entries from `listing`.
    pub(crate) fn with_listing(root: Arc<OwnedFd>, listing: Listing, options: WalkOptions) -> io::Result<Self> {
        let stat = Stat::of(root.as_fd())?;
        let node = (stat.device, stat.inode);
        let frame = Frame { fd: Some(Arc::clone(&root)), listing, next: 0, prefix_len: 0, node };
        Ok(Self {
            root,
            device: stat.device,
            options,
            stack: vec![frame],
            prefix: Vec::new(),
            skipped: Skipped::default(),
        })
    }

    pub(crate) fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// The next entries, at most `max`; none only at the end.
    pub(crate) fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        loop {
            let pending = self.collect(max.max(1))?;
            if pending.is_empty() {
                return Ok(Vec::new());
            }
            let looked: Vec<Looked> = pending.into_par_iter().with_min_len(TASK_FILES).map(look).collect();
            let entries: Vec<SourceEntry> = looked.into_iter().filter_map(|looked| self.account(looked)).collect();
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    fn account(&mut self, looked: Looked) -> Option<SourceEntry> {
        match looked {
            Looked::Entry(entry) => return Some(entry),
            Looked::Vanished(path) => self.skipped.vanished.add(|| display_path(&path)),
            Looked::Unreadable(path, error) => self.unreadable(&path, &error),
        }
        None
    }

    fn unreadable(&mut self, path: &[u8], error: &io::Error) {
        self.skipped.unreadable.add(|| format!("{}: {error}", display_path(path)));
    }

    /// Names of the next entries, in order, with the directories among them already entered.
    fn collect(&mut self, max: usize) -> Result<Vec<Pending>> {
        let mut pending = Vec::with_capacity(max.min(1 << 16));
        let mut directories = 0;
        while pending.len() < max && directories < BATCH_DIRECTORIES {
            let Some(frame) = self.stack.last_mut() else { break };
            self.prefix.truncate(frame.prefix_len);
            let Some((name, kind)) = frame.listing.get(frame.next) else {
                self.stack.pop();
                continue;
            };
            frame.next += 1;
            let name_at = self.prefix.len();
            let mut path = Vec::with_capacity(name_at + name.len());
            path.extend_from_slice(&self.prefix);
            path.extend_from_slice(name);
            if self.is_left_out(&path, name_at, kind) {
                continue;
            }
            let kind = match kind {
                NodeKind::File => EntryKind::File,
                NodeKind::Symlink => EntryKind::Symlink,
                NodeKind::Directory => EntryKind::Directory,
                NodeKind::Fifo | NodeKind::Socket | NodeKind::Device => continue,
            };
            let directory = self.top()?;
            if kind == EntryKind::Directory {
                directories += 1;
                pending.extend(self.enter(&directory, path, name_at));
            } else {
                pending.push(Pending::Look { directory, path, name_at, kind });
            }
        }
        Ok(pending)
    }

    /// Decides by name and kind alone, and counts what is left out.
    fn is_left_out(&mut self, path: &[u8], name_at: usize, kind: NodeKind) -> bool {
        let name = &path[name_at..];
        let skipped = &mut self.skipped;
        let list = if name.is_empty() || name.contains(&b'/') {
            // Only a broken file system has such names; they would leave the tree.
            &mut skipped.unsafe_names
        } else if self.options.exclude.as_ref().is_some_and(|set| set.matches(path, kind == NodeKind::Directory)) {
            &mut skipped.excluded
        } else {
            match kind {
                NodeKind::Fifo => &mut skipped.fifos,
                NodeKind::Socket => &mut skipped.sockets,
                NodeKind::Device => &mut skipped.devices,
                NodeKind::File if self.options.skip_temporary && is_temporary(name) => &mut skipped.temporary,
                NodeKind::File | NodeKind::Directory | NodeKind::Symlink => return false,
            }
        };
        list.add(|| display_path(path));
        true
    }

    /// The directory on top of the stack, opened again if it had to be closed.
    fn top(&mut self) -> Result<Arc<OwnedFd>> {
        let frame = self.stack.last_mut().expect("called with a frame on the stack");
        if let Some(fd) = &frame.fd {
            return Ok(Arc::clone(fd));
        }
        let path = self.prefix.strip_suffix(b"/").unwrap_or(&self.prefix);
        let open = || -> io::Result<(OwnedFd, Stat)> {
            let fd = open_directory(&self.root, path)?;
            let stat = Stat::of(fd.as_fd())?;
            Ok((fd, stat))
        };
        let (fd, stat) = open().map_err(|error| Error::io(format!("return to {}", display_path(path)), error))?;
        if (stat.device, stat.inode) != frame.node {
            let message = format!("return to {}: it was replaced while it was read", display_path(path));
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let fd = Arc::new(fd);
        frame.fd = Some(Arc::clone(&fd));
        Ok(fd)
    }

    /// Opens a directory and puts its listing on the stack; its own entry comes before.
    fn enter(&mut self, parent: &Arc<OwnedFd>, path: Vec<u8>, name_at: usize) -> Option<Pending> {
        let opened = open_directory(parent, &path[name_at..]).and_then(|fd| Ok((Stat::of(fd.as_fd())?, fd)));
        let (stat, fd) = match opened {
            Ok(opened) => opened,
            Err(error) if is_gone(&error) => {
                self.skipped.vanished.add(|| display_path(&path));
                return None;
            }
            Err(error) => {
                // It exists and belongs into the backup, even if nobody can say what it holds.
                self.unreadable(&path, &error);
                let directory = Arc::clone(parent);
                return Some(Pending::Look { directory, path, name_at, kind: EntryKind::Directory });
            }
        };
        let node = (stat.device, stat.inode);
        if self.options.leave_out.contains(&node) {
            self.skipped.repository.add(|| display_path(&path));
            return None;
        }
        if self.options.one_file_system && stat.device != self.device {
            self.skipped.other_file_system.add(|| display_path(&path));
            return Some(Pending::Ready(stat.into_entry(path, EntryKind::Directory, Vec::new())));
        }
        let (listing, error) = Listing::read(fd.as_fd());
        if let Some(error) = error {
            self.unreadable(&path, &error);
        }
        self.prefix.clear();
        self.prefix.extend_from_slice(&path);
        self.prefix.push(b'/');
        self.stack.push(Frame { fd: Some(Arc::new(fd)), listing, next: 0, prefix_len: self.prefix.len(), node });
        // The root stays open: it is how the others are found again.
        if let Some(far) = self.stack.len().checked_sub(OPEN_LEVELS).filter(|far| *far > 0) {
            self.stack[far].fd = None;
        }
        Some(Pending::Ready(stat.into_entry(path, EntryKind::Directory, Vec::new())))
    }
}

fn open_directory(parent: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    open_beneath(parent.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK, Mode::empty())
}

/// Looks at one name. Runs on many threads.
fn look(pending: Pending) -> Looked {
    let (directory, path, name_at, kind) = match pending {
        Pending::Ready(entry) => return Looked::Entry(entry),
        Pending::Look { directory, path, name_at, kind } => (directory, path, name_at, kind),
    };
    let name = &path[name_at..];
    let expected = match kind {
        EntryKind::File => NodeKind::File,
        EntryKind::Directory => NodeKind::Directory,
        EntryKind::Symlink => NodeKind::Symlink,
    };
    let state = || -> io::Result<Option<(Stat, Vec<u8>)>> {
        let stat = Stat::at(directory.as_fd(), name)?;
        if stat.kind != Some(expected) {
            return Ok(None);
        }
        let link_target = match kind {
            EntryKind::Symlink => match rustix::fs::readlinkat(&directory, name, Vec::new()) {
                // No longer a link.
                Err(Errno::INVAL) => return Ok(None),
                link_target => link_target?.into_bytes(),
            },
            EntryKind::File | EntryKind::Directory => Vec::new(),
        };
        Ok(Some((stat, link_target)))
    };
    match state() {
        Ok(Some((stat, link_target))) => Looked::Entry(stat.into_entry(path, kind, link_target)),
        Ok(None) => Looked::Vanished(path),
        Err(error) if is_gone(&error) => Looked::Vanished(path),
        Err(error) => Looked::Unreadable(path, error),
    }
}

/// True if the name no longer is what the listing said.
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Names under which MatrixOne writes before it renames.
fn is_temporary(name: &[u8]) -> bool {
    name.starts_with(b".tmp.") || name.ends_with(b".mofstemp")
}
