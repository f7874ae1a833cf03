//! Manifest segments: runs of file entries. Page: docs/format/manifest.md.
//!
//! A segment is the plain content of a chunk in a meta pack. Names and pieces are separate streams, so that an encrypted repository can seal
//! them under different keys: whoever maintains a repository needs the pieces, never the names.

use super::bytes::{Fields, Put};
use super::pieces::{COUNT_LISTS, PieceStreams, VERSION, take_head};
pub(crate) use super::pieces::{decode_piece_list, encode_piece_list};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, FileHash, SourceIdentity};

const MAGIC: [u8; 4] = *b"EvSg";
/// Magic 4, version 2, flags 2, entries 4, names length 8, pieces length 8.
const HEAD_LEN: usize = 28;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, kept as a link.
    Symlink,
}

/// How the bytes at the source differ from the logical bytes that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// Not at all.
    None,
    /// MatrixOne's DISK framing: a CRC-32C before every 2044 bytes. It was verified and taken off.
    DiskCrc,
}

/// What a file was seen to be, which decided how it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileFormat {
    /// Bytes.
    Opaque,
    /// A MatrixOne TAE object whose extents tile it.
    Tae,
    /// An InnoDB tablespace.
    InnoDb,
    /// Something that a later release knows: 3 to 15. Its pieces are read like any other's.
    Other(u8),
}

/// A part of a file: `len` bytes of a chunk, from `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The chunk.
    pub chunk: ChunkId,
    /// Where in the chunk.
    pub offset: u32,
    /// How many bytes. In an indirect entry: the plain length of the piece list.
    pub len: u32,
}

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// Its pieces in file order.
    Direct(Vec<Piece>),
    /// Piece lists in file order, each a chunk in a meta pack: for files of very many pieces.
    Lists(Vec<Piece>),
}

impl Pieces {
    /// No pieces: an empty file, a directory, a link.
    pub const NONE: Self = Self::Direct(Vec::new());

    /// What the entry itself holds: pieces, or pieces that name lists.
    pub fn as_slice(&self) -> &[Piece] {
        match self {
            Self::Direct(pieces) | Self::Lists(pieces) => pieces,
        }
    }
}

/// One file, directory or link of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the source's root, `/`-separated, any bytes.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// How it was stored at the source.
    pub transform: Transform,
    /// How it was cut.
    pub format: FileFormat,
    /// Its identity does not depend on where or when it was copied: a MatrixOne object whose name fixes its content.
    pub stable: bool,
    /// Had fewer blocks than bytes.
    pub sparse: bool,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modified.
    pub mtime: Timestamp,
    /// Logical bytes.
    pub size: u64,
    /// BLAKE3 of the logical bytes; zero for what is not a file.
    pub hash: FileHash,
    /// By which an unchanged file is recognised without opening it.
    pub identity: SourceIdentity,
    /// Where a link points; empty otherwise.
    pub link_target: Vec<u8>,
    /// The content.
    pub pieces: Pieces,
    /// What a later release knows of an entry (extended attributes, ACLs), kept as it is when an entry is taken over. Empty in this one.
    pub extension: Vec<u8>,
}

impl Entry {
    /// The key by which entries are sorted: the path, with a `/` behind a directory's.
    pub fn sort_key(&self) -> impl Iterator<Item = u8> + '_ {
        let slash = (self.kind == EntryKind::Directory).then_some(b'/');
        self.path.iter().copied().chain(slash)
    }

    /// The longest path that can be stored.
    pub const PATH_MAX: usize = 65_535;

    /// Refuses what no reader would take back: a path too long, content where there can be none, pieces that do not add up to the size.
    pub fn check(&self) -> Result<()> {
        let fail = |why: &str| {
            let path = String::from_utf8_lossy(&self.path[..self.path.len().min(200)]).into_owned();
            Err(Error::invalid(format!("entry {path:?}: {why}")))
        };
        if self.path.len() > Self::PATH_MAX {
            return fail("its path is longer than 65535 bytes");
        }
        if self.kind != EntryKind::Symlink && !self.link_target.is_empty() {
            return fail("only a link has a target");
        }
        match &self.pieces {
            Pieces::Direct(pieces) if self.kind == EntryKind::File => {
                let sum: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
                if sum != self.size {
                    return fail(&format!("its pieces have {sum} bytes, its size is {}", self.size));
                }
            }
            Pieces::Lists(_) if self.kind == EntryKind::File => {}
            pieces => {
                if pieces != &Pieces::NONE || self.hash != FileHash::from_bytes([0; 32]) {
                    return fail("only a file has content");
                }
            }
        }
        match self.format {
            FileFormat::Other(0..=2 | 16..) => fail("its format has no number of its own"),
            _ => Ok(()),
        }
    }
}

mod bits {
    pub(super) const KIND: u16 = 0x000f;
    pub(super) const DISK_CRC: u16 = 0x0010;
    pub(super) const STABLE: u16 = 0x0020;
    pub(super) const SPARSE: u16 = 0x0040;
    pub(super) const FORMAT_SHIFT: u32 = 8;
    pub(super) const FORMAT: u16 = 0x0f00;
    /// A reader of this release has no meaning for these and refuses them.
    pub(super) const UNKNOWN: u16 = !(KIND | DISK_CRC | STABLE | SPARSE | FORMAT);
}

/// Writes a segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentBuilder {
    names: Vec<u8>,
    counts: Vec<u8>,
    chunks: Vec<u8>,
    offsets: Vec<u8>,
    lens: Vec<u8>,
    entries: u32,
    last_path: Vec<u8>,
    last_is_directory: bool,
}

impl SegmentBuilder {
    pub(crate) fn entry_count(&self) -> u32 {
        self.entries
    }

    /// Bytes that `finish` would give now.
    pub(crate) fn len(&self) -> usize {
        HEAD_LEN + self.names.len() + self.counts.len() + self.chunks.len() + self.offsets.len() + self.lens.len()
    }

    /// Fails, and takes nothing, if the entry is not fit to be stored ([`Entry::check`]) or does not come after the one before.
    pub(crate) fn push(&mut self, entry: &Entry) -> Result<()> {
        entry.check()?;
        let is_directory = entry.kind == EntryKind::Directory;
        let shared = entry.path.iter().zip(&self.last_path).take_while(|(a, b)| a == b).count();
        if self.entries > 0 && !ascends(&self.last_path, self.last_is_directory, &entry.path, is_directory, shared) {
            let message =
                format!("entry {:?}: does not come after the one before", String::from_utf8_lossy(&entry.path));
            return Err(Error::invalid(message));
        }
        let names = &mut self.names;
        names.put_u16(flags_of(entry));
        names.put_u16(u16::try_from(shared).expect("a path was checked to be no longer"));
        names.put_blob(&entry.path[shared..]);
        names.put_u32(entry.mode);
        names.put_u32(entry.uid);
        names.put_u32(entry.gid);
        names.put_i64(entry.mtime.as_nanos());
        names.put_u64(entry.size);
        names.put(entry.identity.as_bytes());
        if entry.kind == EntryKind::File {
            names.put(entry.hash.as_bytes());
        }
        if entry.kind == EntryKind::Symlink {
            names.put_blob(&entry.link_target);
        }
        names.put_blob(&entry.extension);
        let pieces = entry.pieces.as_slice();
        let lists = if matches!(entry.pieces, Pieces::Lists(_)) { COUNT_LISTS } else { 0 };
        self.counts.put_u32(u32::try_from(pieces.len()).expect("2^31 pieces do not fit in memory") | lists);
        for piece in pieces {
            self.chunks.put(piece.chunk.as_bytes());
            self.offsets.put_u32(piece.offset);
            self.lens.put_u32(piece.len);
        }
        self.entries += 1;
        self.last_path.clear();
        self.last_path.extend_from_slice(&entry.path);
        self.last_is_directory = is_directory;
        Ok(())
    }

    /// The plain bytes of the segment; the builder is empty afterwards.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        out.put(&MAGIC);
        out.put_u16(VERSION);
        out.put_u16(0);
        out.put_u32(self.entries);
        out.put_u64(self.names.len() as u64);
        out.put_u64((self.counts.len() + self.chunks.len() + self.offsets.len() + self.lens.len()) as u64);
        for stream in [&mut self.names, &mut self.counts, &mut self.chunks, &mut self.offsets, &mut self.lens] {
            out.append(stream);
        }
        self.entries = 0;
        self.last_path.clear();
        out
    }
}

fn flags_of(entry: &Entry) -> u16 {
    let kind = match entry.kind {
        EntryKind::File => 1,
        EntryKind::Directory => 2,
        EntryKind::Symlink => 3,
    };
    let format: u16 = match entry.format {
        FileFormat::Opaque => 0,
        FileFormat::Tae => 1,
        FileFormat::InnoDb => 2,
        FileFormat::Other(code) => u16::from(code),
    };
    let mut flags = kind | format << bits::FORMAT_SHIFT;
    for (set, bit) in [
        (entry.transform == Transform::DiskCrc, bits::DISK_CRC),
        (entry.stable, bits::STABLE),
        (entry.sparse, bits::SPARSE),
    ] {
        if set {
            flags |= bit;
        }
    }
    flags
}

/// Reads a segment, entry by entry.
#[derive(Debug)]
pub(crate) struct SegmentReader<'a> {
    names: Fields<'a>,
    pieces: PieceStreams<'a>,
    left: u32,
    first: bool,
    last_path: Vec<u8>,
    last_is_directory: bool,
}

impl<'a> SegmentReader<'a> {
    pub(crate) fn new(plain: &'a [u8]) -> Result<Self> {
        let (entries, names, pieces) = take_streams(plain)?;
        Ok(Self {
            names: Fields::new(names),
            pieces: PieceStreams::new(entries, pieces)?,
            left: entries,
            first: true,
            last_path: Vec::new(),
            last_is_directory: false,
        })
    }

    fn take_entry(&mut self) -> Result<Entry> {
        let names = &mut self.names;
        let flags = names.u16("entry flags")?;
        if flags & bits::UNKNOWN != 0 {
            let message = format!("manifest segment: an entry has flags {flags:#06x} that this everpack does not know");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let kind = match flags & bits::KIND {
            1 => EntryKind::File,
            2 => EntryKind::Directory,
            3 => EntryKind::Symlink,
            code => {
                let message =
                    format!("manifest segment: an entry is of kind {code}, which this everpack does not know");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        let is_directory = kind == EntryKind::Directory;
        let shared = usize::from(names.u16("shared path")?);
        let tail = names.blob("path")?;
        if shared > self.last_path.len() || shared + tail.len() > Entry::PATH_MAX {
            return Err(Error::corrupt("manifest segment: a path shares more than there is, or is too long"));
        }
        let ascends = match (self.last_path.get(shared), tail.first()) {
            // The usual case: the paths part just here.
            (Some(last), Some(next)) if last < next => true,
            _ => {
                let path = [&self.last_path[..shared], tail].concat();
                ascends(&self.last_path, self.last_is_directory, &path, is_directory, 0)
            }
        };
        if !ascends && !self.first {
            return Err(Error::corrupt("manifest segment: entries are not sorted"));
        }
        self.first = false;
        self.last_is_directory = is_directory;
        self.last_path.truncate(shared);
        self.last_path.extend_from_slice(tail);
        let mode = names.u32("mode")?;
        let uid = names.u32("owner")?;
        let gid = names.u32("group")?;
        let mtime = Timestamp::from_nanos(names.i64("mtime")?);
        let size = names.u64("size")?;
        let identity = SourceIdentity::from_bytes(names.array("identity")?);
        let hash = if kind == EntryKind::File { names.array("file hash")? } else { [0; 32] };
        let link_target = if kind == EntryKind::Symlink { names.blob("link target")?.to_vec() } else { Vec::new() };
        let extension = names.blob("extension")?.to_vec();
        let pieces = self.pieces.take_entry()?;
        Ok(Entry {
            path: self.last_path.clone(),
            kind,
            transform: if flags & bits::DISK_CRC != 0 { Transform::DiskCrc } else { Transform::None },
            format: format_of(flags),
            stable: flags & bits::STABLE != 0,
            sparse: flags & bits::SPARSE != 0,
            mode,
            uid,
            gid,
            mtime,
            size,
            hash: FileHash::from_bytes(hash),
            identity,
            link_target,
            pieces,
            extension,
        })
    }

    fn check_end(&self) -> Result<()> {
        self.names.end("manifest segment names")?;
        self.pieces.check_end()
    }
}

impl Iterator for SegmentReader<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(self.take_entry())
            }
            None => self.check_end().err().map(Err),
        };
        if let Some(Err(_)) = next {
            // One error, then the end: what follows has no place any more.
            self.left = 0;
            self.names = Fields::new(&[]);
            self.pieces = PieceStreams::default();
        }
        next
    }
}

/// True if a path stands after the one before it, each with the word whether it is a directory; `from` bytes are known to be equal.
fn ascends(last: &[u8], last_is_directory: bool, next: &[u8], next_is_directory: bool, from: usize) -> bool {
    let slash = |is_directory: bool| is_directory.then_some(b'/');
    let last = last[from..].iter().copied().chain(slash(last_is_directory));
    let next = next[from..].iter().copied().chain(slash(next_is_directory));
    last.lt(next)
}

fn format_of(flags: u16) -> FileFormat {
    match u8::try_from((flags & bits::FORMAT) >> bits::FORMAT_SHIFT).unwrap_or(0) {
        0 => FileFormat::Opaque,
        1 => FileFormat::Tae,
        2 => FileFormat::InnoDb,
        code => FileFormat::Other(code),
    }
}

/// Checks the head of a segment; gives the entry count and the two streams.
fn take_streams(plain: &[u8]) -> Result<(u32, &[u8], &[u8])> {
    let mut fields = Fields::new(plain);
    take_head(&mut fields, "manifest segment", MAGIC)?;
    let entries = fields.u32("entry count")?;
    let names_len = usize::try_from(fields.u64("names length")?).unwrap_or(usize::MAX);
    let pieces_len = usize::try_from(fields.u64("pieces length")?).unwrap_or(usize::MAX);
    let names = fields.bytes("names", names_len)?;
    let pieces = fields.bytes("pieces", pieces_len)?;
    fields.end("manifest segment")?;
    Ok((entries, names, pieces))
}

/// Every piece of a segment, with the word whether it is a list. For maintenance, which needs no names and does not read them.
pub(crate) fn for_each_chunk(plain: &[u8], mut visit: impl FnMut(Piece, bool)) -> Result<()> {
    let (entries, _, stored) = take_streams(plain)?;
    let mut pieces = PieceStreams::new(entries, stored)?;
    for _ in 0..entries {
        let (count, lists) = pieces.take_count()?;
        for _ in 0..count {
            visit(pieces.take_piece()?, lists);
        }
    }
    pieces.check_end()
}
