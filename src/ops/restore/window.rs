//! A bounded run of files, and what must be read for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{RestoreOptions, RestoreReport, attributes};
use crate::codec::{FileHasher, chunk_id};
use crate::error::{Context, Error, Result};
use crate::id::ChunkId;
use crate::ops::target::{ExistingFile, Target, TargetFile, TargetMode};
use crate::repo::{Entry, Piece, Transform};
use crate::source::display_path;
use crate::tae::{ReadAt, Unframed, logical_len, physical_len};

/// A window is worked off when it has this many pieces,
const PIECES_MOST: usize = 100_000;
/// or files: those of two windows are open at once, of the 1024 that a process may have,
const FILES_MOST: usize = 400;
/// or so many bytes: while they are flushed, the next window is decoded.
const BYTES_MOST: u64 = 256 << 20;
/// Bytes compared at once when looking for what is there already.
const COMPARE_BYTES: usize = 1 << 20;

/// A file that is being written under a temporary name.
pub(super) struct OpenedFile {
    pub(super) entry: Entry,
    pub(super) target: TargetFile,
    /// What it will be on disk; while it is written it is without framing.
    pub(super) transform: Transform,
    /// Where its next piece goes.
    at: AtomicU64,
    complete: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl OpenedFile {
    /// The file cannot be restored; the first reason is kept.
    pub(super) fn fail(&self, why: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True once its last piece was planned.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }
}

/// A place that wants a part of a chunk.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) chunk: ChunkId,
    /// Which file of the window.
    pub(super) file: u32,
    /// Where in the file.
    pub(super) at: u64,
    /// Which part of the chunk.
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// Files and what they want.
#[derive(Default)]
pub(super) struct Window {
    pub(super) files: Vec<Arc<OpenedFile>>,
    pub(super) wants: Vec<Want>,
    /// What is wanted in all.
    bytes: u64,
}

/// Fills windows.
pub(super) struct Planner {
    target: Arc<Target>,
    options: RestoreOptions,
    window: Window,
    buffer: Vec<u8>,
    kept: u64,
}

impl Planner {
    pub(super) fn new(target: Arc<Target>, options: RestoreOptions) -> Self {
        Self { target, options, window: Window::default(), buffer: Vec::new(), kept: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        let Window { files, wants, bytes } = &self.window;
        wants.len() >= PIECES_MOST || files.len() >= FILES_MOST || *bytes >= BYTES_MOST
    }

    /// What was planned since the last time.
    pub(super) fn take_window(&mut self) -> Option<Window> {
        let window = std::mem::take(&mut self.window);
        (!window.files.is_empty()).then_some(window)
    }

    /// Opens the temporary file; `None` if the target has the file already.
    pub(super) fn begin_file(&mut self, entry: Entry, report: &mut RestoreReport) -> Result<Option<Arc<OpenedFile>>> {
        let transform = self.options.framing.of(&entry);
        if self.options.mode == TargetMode::Delta && self.is_there(&entry, transform)? {
            if let Some(existing) = self.target.existing(&entry.path)? {
                existing.update(&attributes(&entry))?;
            }
            report.files += 1;
            report.bytes_kept += entry.size;
            return Ok(None);
        }
        let len = match transform {
            Transform::None => entry.size,
            Transform::DiskCrc => physical_len(entry.size),
        };
        let target = self.target.create_file(&entry.path, len, entry.sparse)?;
        let file = Arc::new(OpenedFile {
            entry,
            target,
            transform,
            at: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            failure: Mutex::default(),
        });
        Ok(Some(file))
    }

    /// The next pieces of the file.
    pub(super) fn add_pieces(&mut self, file: &Arc<OpenedFile>, pieces: &[Piece]) -> Result<()> {
        let number = self.number_of(file);
        for piece in pieces {
            let at = file.at.fetch_add(u64::from(piece.len), Ordering::Relaxed);
            if at + u64::from(piece.len) > file.entry.size {
                file.fail("its pieces are longer than the file".to_owned());
                return Ok(());
            }
            if self.options.mode == TargetMode::Delta && self.has_piece(file, piece, at)? {
                self.kept += u64::from(piece.len);
                continue;
            }
            let Piece { chunk, offset, len } = *piece;
            self.window.bytes += u64::from(len);
            self.window.wants.push(Want { chunk, file: number, at, offset, len });
        }
        Ok(())
    }

    /// The file's last piece was added.
    pub(super) fn end_file(&mut self, file: Arc<OpenedFile>) {
        if file.at.load(Ordering::Relaxed) != file.entry.size && file.failure().is_none() {
            file.fail("its pieces are shorter than the file".to_owned());
        }
        self.number_of(&file);
        file.complete.store(true, Ordering::Release);
    }

    fn number_of(&mut self, file: &Arc<OpenedFile>) -> u32 {
        let files = &mut self.window.files;
        if !files.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
            files.push(Arc::clone(file));
        }
        u32::try_from(files.len() - 1).expect("a window holds a few thousand files")
    }

    /// True if the target's file has the entry's bytes.
    fn is_there(&mut self, entry: &Entry, transform: Transform) -> Result<bool> {
        let Some(existing) = self.target.existing(&entry.path)? else { return Ok(false) };
        let expected = match transform {
            Transform::None => Some(existing.len()),
            Transform::DiskCrc => logical_len(existing.len()),
        };
        if expected != Some(entry.size) {
            return Ok(false);
        }
        let hash = match transform {
            Transform::None => hash_of(&There(&existing), &mut self.buffer),
            Transform::DiskCrc => {
                Unframed::new(There(&existing)).and_then(|unframed| hash_of(&unframed, &mut self.buffer))
            }
        };
        // What cannot be read is not what we want.
        Ok(hash.is_ok_and(|hash| hash == entry.hash))
    }

    /// True if these bytes were found in the target: in a temporary file that a killed restore left, or in an older version of the file.
    fn has_piece(&mut self, file: &OpenedFile, piece: &Piece, at: u64) -> Result<bool> {
        if piece.offset != 0 {
            return Ok(false);
        }
        self.buffer.resize(piece.len as usize, 0);
        let whole = self.buffer.len();
        let resumed =
            file.target.resumed() && file.target.read_at(at, &mut self.buffer).is_ok_and(|read| read == whole);
        if resumed && chunk_id(&self.buffer) == piece.chunk {
            return Ok(true);
        }
        if file.transform != Transform::None {
            return Ok(false);
        }
        let Some(existing) = self.target.existing(&file.entry.path)? else { return Ok(false) };
        if There(&existing).read_exact_at(at, &mut self.buffer).is_err() || chunk_id(&self.buffer) != piece.chunk {
            return Ok(false);
        }
        file.target.write_at(at, &self.buffer).context(|| display_path(&file.entry.path))?;
        Ok(true)
    }

    /// Bytes that were found in the target.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }
}

/// `ReadAt` for a file of the target.
struct There<'a>(&'a ExistingFile);

impl ReadAt for There<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.0.read_at(offset, buffer)?;
        if read == buffer.len() {
            Ok(())
        } else {
            Err(Error::corrupt(format!("the file ends at {}", offset + read as u64)))
        }
    }
}

/// BLAKE3 of all that a reader gives.
pub(super) fn hash_of(reader: &dyn ReadAt, buffer: &mut Vec<u8>) -> Result<crate::id::FileHash> {
    let mut hasher = FileHasher::new();
    let len = reader.len();
    let mut at = 0;
    while at < len {
        let take = usize::try_from(len - at).unwrap_or(COMPARE_BYTES).min(COMPARE_BYTES);
        buffer.resize(take, 0);
        reader.read_exact_at(at, buffer)?;
        hasher.update(buffer);
        at += take as u64;
    }
    Ok(hasher.finish())
}

/// A want that is out of its chunk's range is a manifest that lies.
pub(super) fn part<'a>(want: &Want, plain: &'a [u8]) -> Result<&'a [u8]> {
    let start = want.offset as usize;
    plain.get(start..start + want.len as usize).ok_or_else(|| {
        Error::corrupt(format!(
            "chunk {}: {} bytes, but bytes {}+{} are asked for",
            want.chunk,
            plain.len(),
            want.offset,
            want.len
        ))
    })
}
