//! Manifest segments: runs of file entries, and the piece lists of very large files. Page: docs/format/manifest.md.
//!
//! A segment is the plain content of a chunk in a meta pack. Names and pieces are separate streams, so that an encrypted repository can seal
//! them under different keys: whoever maintains a repository needs the pieces, never the names.

use super::bytes::{FLAG_SEALED, Fields, Put};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, FileHash, SourceIdentity};

const MAGIC: [u8; 4] = *b"EvSg";
const LIST_MAGIC: [u8; 4] = *b"EvPl";
const VERSION: u16 = 1;
const PIECE_LEN: usize = 40;

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
}

impl Entry {
    /// The key by which entries are sorted: the path, with a `/` behind a directory's.
    pub fn sort_key(&self) -> impl Iterator<Item = u8> + '_ {
        let slash = (self.kind == EntryKind::Directory).then_some(b'/');
        self.path.iter().copied().chain(slash)
    }
}

mod bits {
    pub(super) const KIND: u16 = 0x0003;
    pub(super) const DISK_CRC: u16 = 0x0010;
    pub(super) const STABLE: u16 = 0x0020;
    pub(super) const SPARSE: u16 = 0x0040;
    pub(super) const LISTS: u16 = 0x0080;
    pub(super) const FORMAT_SHIFT: u32 = 8;
    pub(super) const FORMAT: u16 = 0x0300;
    /// A reader of this release has no meaning for these and refuses them.
    pub(super) const UNKNOWN: u16 = !(KIND | DISK_CRC | STABLE | SPARSE | LISTS | FORMAT);
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
}

impl SegmentBuilder {
    pub(crate) fn entry_count(&self) -> u32 {
        self.entries
    }

    /// Bytes that `finish` would give now.
    pub(crate) fn len(&self) -> usize {
        28 + self.names.len() + self.counts.len() + self.chunks.len() + self.offsets.len() + self.lens.len()
    }

    pub(crate) fn push(&mut self, entry: &Entry) {
        let shared =
            entry.path.iter().zip(&self.last_path).take_while(|(a, b)| a == b).count().min(usize::from(u16::MAX));
        let names = &mut self.names;
        names.put_u16(flags_of(entry));
        names.put_u16(u16::try_from(shared).expect("at most u16::MAX by the line above"));
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
        // Room for what later releases know of an entry: extended attributes, ACLs.
        names.put_u16(0);
        let pieces = entry.pieces.as_slice();
        self.counts.put_count(pieces.len());
        for piece in pieces {
            self.chunks.put(piece.chunk.as_bytes());
            self.offsets.put_u32(piece.offset);
            self.lens.put_u32(piece.len);
        }
        self.entries += 1;
        self.last_path.clear();
        self.last_path.extend_from_slice(&entry.path);
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
    };
    let mut flags = kind | format << bits::FORMAT_SHIFT;
    for (set, bit) in [
        (entry.transform == Transform::DiskCrc, bits::DISK_CRC),
        (entry.stable, bits::STABLE),
        (entry.sparse, bits::SPARSE),
        (matches!(entry.pieces, Pieces::Lists(_)), bits::LISTS),
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
    counts: Fields<'a>,
    chunks: Fields<'a>,
    offsets: Fields<'a>,
    lens: Fields<'a>,
    left: u32,
    last_path: Vec<u8>,
}

impl<'a> SegmentReader<'a> {
    pub(crate) fn new(plain: &'a [u8]) -> Result<Self> {
        let (entries, names, pieces) = take_streams(plain)?;
        let mut counts = Fields::new(pieces);
        let count_bytes = counts.bytes("piece counts", entries as usize * 4)?;
        let rest = counts.rest();
        let total = rest.len() / PIECE_LEN;
        if total * PIECE_LEN != rest.len() {
            return Err(Error::corrupt(format!(
                "manifest segment: {} bytes are no whole number of pieces",
                rest.len()
            )));
        }
        let (chunks, rest) = rest.split_at(total * 32);
        let (offsets, lens) = rest.split_at(total * 4);
        Ok(Self {
            names: Fields::new(names),
            counts: Fields::new(count_bytes),
            chunks: Fields::new(chunks),
            offsets: Fields::new(offsets),
            lens: Fields::new(lens),
            left: entries,
            last_path: Vec::new(),
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
            _ => return Err(Error::corrupt("manifest segment: an entry is of no kind")),
        };
        let format = match (flags & bits::FORMAT) >> bits::FORMAT_SHIFT {
            0 => FileFormat::Opaque,
            1 => FileFormat::Tae,
            2 => FileFormat::InnoDb,
            _ => return Err(Error::new(ErrorKind::Unsupported, "manifest segment: an entry is of an unknown format")),
        };
        let shared = usize::from(names.u16("shared path")?);
        if shared > self.last_path.len() {
            return Err(Error::corrupt("manifest segment: a path shares more than the path before it has"));
        }
        self.last_path.truncate(shared);
        self.last_path.extend_from_slice(names.blob("path")?);
        let mode = names.u32("mode")?;
        let uid = names.u32("owner")?;
        let gid = names.u32("group")?;
        let mtime = Timestamp::from_nanos(names.i64("mtime")?);
        let size = names.u64("size")?;
        let identity = SourceIdentity::from_bytes(names.array("identity")?);
        let hash = if kind == EntryKind::File { names.array("file hash")? } else { [0; 32] };
        let link_target = if kind == EntryKind::Symlink { names.blob("link target")?.to_vec() } else { Vec::new() };
        let extension = usize::from(names.u16("extension length")?);
        names.bytes("extension", extension)?;
        let pieces = self.take_pieces()?;
        Ok(Entry {
            path: self.last_path.clone(),
            kind,
            transform: if flags & bits::DISK_CRC != 0 { Transform::DiskCrc } else { Transform::None },
            format,
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
            pieces: if flags & bits::LISTS != 0 { Pieces::Lists(pieces) } else { Pieces::Direct(pieces) },
        })
    }

    fn take_pieces(&mut self) -> Result<Vec<Piece>> {
        let count = self.counts.u32("piece count")? as usize;
        if count > self.chunks.rest().len() / 32 {
            return Err(Error::corrupt(format!("manifest segment: an entry of {count} pieces, fewer are left")));
        }
        (0..count).map(|_| take_piece(&mut self.chunks, &mut self.offsets, &mut self.lens)).collect()
    }

    fn check_end(&self) -> Result<()> {
        self.names.end("manifest segment names")?;
        self.chunks.end("manifest segment pieces")
    }
}

impl Iterator for SegmentReader<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return self.check_end().err().map(Err);
        }
        self.left -= 1;
        let entry = self.take_entry();
        if entry.is_err() {
            // One error, then the end: what follows has no place any more.
            self.left = 0;
            self.names = Fields::new(&[]);
            self.chunks = Fields::new(&[]);
        }
        Some(entry)
    }
}

fn take_piece(chunks: &mut Fields<'_>, offsets: &mut Fields<'_>, lens: &mut Fields<'_>) -> Result<Piece> {
    Ok(Piece {
        chunk: ChunkId::from_bytes(chunks.array("piece chunk")?),
        offset: offsets.u32("piece offset")?,
        len: lens.u32("piece length")?,
    })
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

fn take_head(fields: &mut Fields<'_>, what: &str, magic: [u8; 4]) -> Result<()> {
    if fields.array("magic")? != magic {
        return Err(Error::corrupt(format!("{what}: does not begin with its magic")));
    }
    let version = fields.u16("version")?;
    let flags = fields.u16("flags")?;
    if version != VERSION || flags != 0 {
        let sealed = if flags & FLAG_SEALED != 0 { " (encrypted)" } else { "" };
        let message = format!(
            "{what}: version {version}, flags {flags:#06x}{sealed}: this everpack reads version {VERSION} without flags"
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(())
}

/// Only the pieces of a segment: (are they lists?, pieces) for every entry that has any. For maintenance, which needs no names.
pub(crate) fn for_each_chunk(plain: &[u8], mut visit: impl FnMut(Piece, bool)) -> Result<()> {
    for entry in SegmentReader::new(plain)? {
        let entry = entry?;
        let lists = matches!(entry.pieces, Pieces::Lists(_));
        entry.pieces.as_slice().iter().for_each(|piece| visit(*piece, lists));
    }
    Ok(())
}

/// Writes a piece list.
pub(crate) fn encode_piece_list(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + pieces.len() * PIECE_LEN);
    out.put(&LIST_MAGIC);
    out.put_u16(VERSION);
    out.put_u16(0);
    out.put_count(pieces.len());
    pieces.iter().for_each(|piece| out.put(piece.chunk.as_bytes()));
    pieces.iter().for_each(|piece| out.put_u32(piece.offset));
    pieces.iter().for_each(|piece| out.put_u32(piece.len));
    out
}

/// Reads a piece list.
pub(crate) fn decode_piece_list(plain: &[u8]) -> Result<Vec<Piece>> {
    let mut fields = Fields::new(plain);
    take_head(&mut fields, "piece list", LIST_MAGIC)?;
    let count = fields.count("piece count", PIECE_LEN)?;
    let mut chunks = Fields::new(fields.bytes("chunks", count * 32)?);
    let mut offsets = Fields::new(fields.bytes("offsets", count * 4)?);
    let mut lens = Fields::new(fields.bytes("lengths", count * 4)?);
    fields.end("piece list")?;
    (0..count).map(|_| take_piece(&mut chunks, &mut offsets, &mut lens)).collect()
}
