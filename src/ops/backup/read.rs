//! One file into groups of chunks: unframed, understood, cut, hashed as a whole. Runs on reader threads.
//!
//! Bytes are read into buffers, not mapped: a file that is cut short while it is read must be a message, not a signal.

use std::sync::Arc;

use super::BackupOptions;
use super::code::{Coded, Coder, Group, GroupChunk};
use super::plan::{Job, Problem, Stop, is_stable, problem, stopped};
use crate::buffers::Buffers;
use crate::codec::{
    CutParameters, Cutter, FastCdc, FastCdcParameters, FileHasher, Gear, Hint, Lz4Walker, Segment, units,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SourceIdentity;
use crate::manifest::{PIECES_DIRECT_MAX, PieceListCutter};
use crate::progress::Monitor;
use crate::repo::{Entry, EntryKind, FileFormat, Piece, Pieces, Transform};
use crate::source::{OpenFile, SourceEntry, SourceFile};
use crate::tae::{
    DataExtent, ObjectLayout, ReadAt, Unframed, Unframer, Validation, logical_len, looks_framed, validate,
};

/// A group is sent to the workers when it has this many bytes.
const GROUP_BYTES: usize = 1 << 20;
/// Bytes asked of a file at once.
const READ_BYTES: usize = 1 << 20;
/// Room for a group and what was read behind it; but for large chunks, so much is enough.
const BUFFER_BYTES: u64 = 3 << 20;
/// Groups of one file that may be on their way.
const GROUPS_AHEAD: usize = 8;
/// Filters of at least this many bytes are a region of their own.
const FILTERS_LEAST: u64 = 4096;
/// A file that changes while it is read is read so many times in all.
const TRIES: usize = 3;

/// What came of one file.
pub(super) struct FileOutcome {
    /// `None` if nothing of it could be stored.
    pub(super) entry: Option<Entry>,
    pub(super) problems: Vec<Problem>,
}

/// Reads files, one after the other.
pub(super) struct FileReader {
    opener: Arc<dyn OpenFile>,
    coder: Arc<Coder>,
    monitor: Arc<dyn Monitor>,
    stop: Arc<Stop>,
    options: BackupOptions,
    gear: Cutter,
    opaque: Cutter,
    pages: Cutter,
}

impl FileReader {
    pub(super) fn new(opener: Arc<dyn OpenFile>, coder: Arc<Coder>, job: &Job, stop: Arc<Stop>) -> Result<Self> {
        let chunking = job.repository.chunking();
        let (monitor, options) = (Arc::clone(&job.monitor), job.options.clone());
        let gear = Gear::new(CutParameters::new(chunking.tae_average)?);
        let opaque = FastCdc::new(FastCdcParameters::new(chunking.cdc_least, chunking.cdc_average, chunking.cdc_most)?);
        let (gear, opaque) = (Cutter::Gear(gear), Cutter::FastCdc(opaque));
        let pages = Cutter::Fixed(chunking.page);
        Ok(Self { opener, coder, monitor, stop, options, gear, opaque, pages })
    }

    /// Stores the content of one file. Fails only where the repository, not the file, is the trouble.
    pub(super) fn read(&mut self, mut source: SourceEntry) -> Result<FileOutcome> {
        for attempt in 1..=TRIES {
            match self.try_once(&source) {
                Ok(Tried { entry, damage, unchanged }) if unchanged || attempt == TRIES => {
                    return Ok(self.outcome(&source, entry, damage, unchanged));
                }
                Ok(_) => {}
                Err(Failed::Changed(_)) if attempt < TRIES => {}
                Err(Failed::File(error) | Failed::Changed(error)) => return Ok(self.unreadable(&source, &error)),
                Err(Failed::Repository(error)) => return Err(error),
            }
            // What was listed is no more: the next try is of the file as it is now.
            source = match self.opener.look(&source) {
                Ok(now) => now,
                Err(error) => return Ok(self.unreadable(&source, &error)),
            };
        }
        unreachable!("the last attempt returns")
    }

    fn try_once(&self, source: &SourceEntry) -> Result<Tried, Failed> {
        let file = self.opener.open(source).map_err(|error| match error.kind() {
            ErrorKind::Busy => Failed::Changed(error),
            _ => Failed::File(error),
        })?;
        let mut run = FileRun::new(self, source);
        let stored = run.store(&*file);
        let damage = std::mem::take(&mut run.damage);
        let unchanged = file.verify_unchanged().unwrap_or(false);
        match stored {
            Ok(entry) => Ok(Tried { entry, damage, unchanged }),
            Err(Failed::File(error)) if !unchanged || error.kind() == ErrorKind::Busy => Err(Failed::Changed(error)),
            Err(failed) => Err(failed),
        }
    }

    fn outcome(&self, source: &SourceEntry, mut entry: Entry, damage: Vec<String>, unchanged: bool) -> FileOutcome {
        if !unchanged || !damage.is_empty() {
            // Nobody may take this for what the name or the times say: the next backup reads and tells again.
            entry.stable = false;
            entry.identity = SourceIdentity::UNKNOWN;
        }
        let mut problems: Vec<Problem> =
            damage.into_iter().map(|message| problem(&source.path, message, false)).collect();
        if !unchanged {
            let message = format!("changed while it was read, {TRIES} times; it is stored as it was read");
            problems.push(problem(&source.path, message, true));
        }
        self.monitor.advance(0, 0, 1);
        FileOutcome { entry: Some(entry), problems }
    }

    fn unreadable(&self, source: &SourceEntry, error: &Error) -> FileOutcome {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(below) = cause {
            message = format!("{message}: {below}");
            cause = below.source();
        }
        self.monitor.advance(0, 0, 1);
        FileOutcome { entry: None, problems: vec![problem(&source.path, message, true)] }
    }
}

/// One try to store a file.
struct Tried {
    entry: Entry,
    damage: Vec<String>,
    unchanged: bool,
}

/// Whose fault it is.
enum Failed {
    File(Error),
    /// The file is another than the one that was listed, or became another.
    Changed(Error),
    Repository(Error),
}

/// One pass over one file.
struct FileRun<'a> {
    reader: &'a FileReader,
    source: &'a SourceEntry,
    hasher: FileHasher,
    waiting: std::collections::VecDeque<Coded>,
    pieces: PieceSink<'a>,
    /// What is wrong with the file at its source, although every byte of it was read.
    damage: Vec<String>,
}

impl<'a> FileRun<'a> {
    fn new(reader: &'a FileReader, source: &'a SourceEntry) -> Self {
        Self {
            reader,
            source,
            hasher: FileHasher::new(),
            waiting: std::collections::VecDeque::new(),
            pieces: PieceSink::new(&reader.coder),
            damage: Vec::new(),
        }
    }

    fn store(&mut self, file: &dyn SourceFile) -> Result<Entry, Failed> {
        let transform = self.detect_framing(file).map_err(Failed::File)?;
        match self.store_as(file, transform) {
            Err(Failed::File(error)) if transform == Transform::DiskCrc && error.kind() == ErrorKind::Corrupt => {
                // A block does not match its checksum. Its bytes are still the best there is: keep them as they are, and say so.
                *self = Self::new(self.reader, self.source);
                self.damage.push(format!("damaged at the source: {error}"));
                self.store_as(file, Transform::None)
            }
            outcome => outcome,
        }
    }

    fn store_as(&mut self, file: &dyn SourceFile, transform: Transform) -> Result<Entry, Failed> {
        let (layout, format) = self.understand(file, transform).map_err(Failed::File)?;
        let mut stream = Stream::new(file, transform, self.reader.coder.buffers());
        let size = match &layout {
            Some(layout) => self.store_object(&mut stream, layout)?,
            None => self.store_opaque(&mut stream, format)?,
        };
        self.drain(0)?;
        self.reader.coder.buffers().give_back(stream.group.bytes);
        let pieces = std::mem::replace(&mut self.pieces, PieceSink::new(&self.reader.coder));
        let pieces = pieces.finish().map_err(Failed::Repository)?;
        let source = self.source;
        Ok(Entry {
            path: source.path.clone(),
            kind: EntryKind::File,
            transform,
            format,
            stable: is_stable(source),
            sparse: source.sparse,
            mode: source.mode,
            uid: source.uid,
            gid: source.gid,
            mtime: source.mtime,
            size,
            hash: std::mem::replace(&mut self.hasher, FileHasher::new()).finish(),
            identity: source.identity,
            link_target: Vec::new(),
            pieces,
            extension: Vec::new(),
        })
    }

    fn detect_framing(&self, file: &dyn SourceFile) -> Result<Transform> {
        let len = file.len();
        let mut first = vec![0; usize::try_from(len.min(2048)).unwrap_or(2048)];
        let read = file.read_at(0, &mut first)?;
        first.truncate(read);
        let framed = logical_len(len).is_some() && looks_framed(&first, len);
        Ok(if framed { Transform::DiskCrc } else { Transform::None })
    }

    /// The map of a TAE object, if it is one, and what the file is.
    fn understand(
        &mut self,
        file: &dyn SourceFile,
        transform: Transform,
    ) -> Result<(Option<ObjectLayout>, FileFormat)> {
        let framed;
        let logical: &dyn ReadAt = match transform {
            Transform::None => &file,
            Transform::DiskCrc => {
                framed = Unframed::new(file)?;
                &framed
            }
        };
        match ObjectLayout::read(logical)? {
            Ok(layout) => {
                if self.reader.options.validate_decode
                    && let Ok(report) = validate(logical, Validation::Decode)?
                {
                    self.damage
                        .extend(report.findings.iter().map(|finding| format!("{}: {}", finding.place, finding.what)));
                }
                Ok((Some(layout), FileFormat::Tae))
            }
            Err(not_tae) => {
                if not_tae.begins_like_one {
                    self.damage.push(format!("begins like a TAE object, but: {not_tae}"));
                }
                let mut page = [0; 64];
                let whole = file.len() >= 4 << 14 && file.read_at(0, &mut page)? == page.len();
                let innodb = whole && transform == Transform::None && is_innodb(&page, file.len());
                Ok((None, if innodb { FileFormat::InnoDb } else { FileFormat::Opaque }))
            }
        }
    }

    fn store_opaque(&mut self, stream: &mut Stream<'_>, format: FileFormat) -> Result<u64, Failed> {
        self.pieces.may_spill = true;
        let cutter = match format {
            FileFormat::InnoDb => &self.reader.pages,
            _ => &self.reader.opaque,
        };
        loop {
            self.fill(stream, cutter.most() as usize)?;
            let rest = stream.rest();
            if rest.is_empty() {
                break;
            }
            let len = cutter.next_cut(rest);
            stream.take_chunk(len, None);
            self.flush(stream, GROUP_BYTES)?;
        }
        self.flush(stream, 0)?;
        Ok(stream.logical)
    }

    /// Cuts an object by its map: data, filters and the rest are regions of their own; the first 64 bytes belong to the rest.
    fn store_object(&mut self, stream: &mut Stream<'_>, layout: &ObjectLayout) -> Result<u64, Failed> {
        let header = layout.header();
        let header_len = usize::try_from(header.end).unwrap_or(64);
        self.fill(stream, header_len)?;
        let header_bytes = stream.skip(header_len);

        let mut first = self.pieces.mark();
        self.cut_region(stream, layout.data_extents())?;
        let filters = layout.filters();
        let mut rest: Vec<DataExtent> = vec![DataExtent { offset: 0, stored_len: 64, plain_len: 64, lz4: false }];
        if filters.end - filters.start >= FILTERS_LEAST {
            self.cut_region(stream, layout.filter_extents())?;
        } else {
            rest.extend_from_slice(layout.filter_extents());
        }
        rest.push(layout.meta_extent());
        rest.push(DataExtent { offset: layout.footer().start, stored_len: 64, plain_len: 64, lz4: false });
        // The data is on its way; what follows begins with the header, which was kept back.
        self.flush(stream, 0)?;
        self.drain(0)?;
        let data_end = self.pieces.mark();
        stream.put_back(&header_bytes);
        self.cut_region(stream, &rest)?;
        self.flush(stream, 0)?;
        self.drain(0)?;
        first.end = data_end.end;
        self.pieces.move_header_first(&first, header_len).map_err(Failed::Repository)?;
        Ok(stream.logical)
    }

    /// Cuts one region: units by the extents' lengths, gear cuts inside, an LZ4 walk that proves the blocks and finds the hints.
    fn cut_region(&mut self, stream: &mut Stream<'_>, extents: &[DataExtent]) -> Result<(), Failed> {
        let segments: Vec<Segment> =
            extents.iter().map(|extent| Segment { len: extent.stored_len, lz4: extent.lz4 }).collect();
        let mut walk = RegionWalk::new(extents);
        for unit in units(&segments) {
            let mut left = unit;
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.reader.gear.most() as usize);
                self.fill(stream, want)?;
                let rest = stream.rest();
                let rest = &rest[..usize::try_from(left).unwrap_or(usize::MAX).min(rest.len())];
                if rest.is_empty() {
                    let message = format!("the file ends at {}, while it was read", stream.logical);
                    return Err(Failed::File(Error::new(ErrorKind::Unavailable, message)));
                }
                let len = self.reader.gear.next_cut(rest);
                let hint = walk.feed(&rest[..len], &mut self.damage);
                left -= len as u64;
                stream.take_chunk(len, Some(hint));
                self.flush(stream, GROUP_BYTES)?;
            }
        }
        Ok(())
    }

    /// Makes at least `want` bytes ready, unless the file ends before.
    fn fill(&mut self, stream: &mut Stream<'_>, want: usize) -> Result<(), Failed> {
        while stream.rest().len() < want && !stream.ended {
            if self.reader.stop.is_set() || self.reader.monitor.cancelled() {
                return Err(Failed::Repository(stopped()));
            }
            let (physical, logical) = stream.read_more().map_err(Failed::File)?;
            self.hasher.update(&stream.group.bytes[logical..]);
            self.reader.coder.add_read_bytes(physical);
            self.reader.monitor.advance(physical, 0, 0);
        }
        Ok(())
    }

    /// Sends the chunks taken so far to the workers, once there are enough of them.
    fn flush(&mut self, stream: &mut Stream<'_>, least: usize) -> Result<(), Failed> {
        if stream.taken() <= least || stream.taken() == 0 {
            return Ok(());
        }
        let group = stream.split_group(self.reader.coder.buffers());
        self.drain(GROUPS_AHEAD)?;
        self.waiting.push_back(self.reader.coder.spawn(group));
        Ok(())
    }

    /// Takes the outcomes of groups in order until no more than `left` are on their way.
    fn drain(&mut self, left: usize) -> Result<(), Failed> {
        while self.waiting.len() > left {
            let Some(coded) = self.waiting.pop_front() else { return Ok(()) };
            let gone = || Error::new(ErrorKind::Unavailable, "a worker ended early");
            let pieces = coded.recv().map_err(|_| Failed::Repository(gone()))?.map_err(Failed::Repository)?;
            self.pieces.extend(pieces).map_err(Failed::Repository)?;
        }
        Ok(())
    }
}

/// The head of an InnoDB tablespace: page 0, of type FSP_HDR, its space id written twice, in whole pages.
fn is_innodb(page: &[u8; 64], len: u64) -> bool {
    let word = |at: usize| [page[at], page[at + 1], page[at + 2], page[at + 3]];
    let fsp_header = page[24..26] == [0, 8];
    word(4) == [0; 4] && fsp_header && word(34) == word(38) && len.is_multiple_of(4096)
}

/// A file's logical bytes in order, in the buffer of the group that is being filled.
struct Stream<'a> {
    file: &'a dyn SourceFile,
    offset: u64,
    unframer: Option<Unframer>,
    physical: Vec<u8>,
    group: Group,
    /// Bytes of the buffer that belong to chunks already cut.
    at: usize,
    logical: u64,
    ended: bool,
}

impl<'a> Stream<'a> {
    fn new(file: &'a dyn SourceFile, transform: Transform, buffers: &Buffers) -> Self {
        let unframer = (transform == Transform::DiskCrc).then(Unframer::new);
        Self {
            file,
            offset: 0,
            unframer,
            physical: Vec::new(),
            group: Group { bytes: buffers.take(BUFFER_BYTES), chunks: Vec::new() },
            at: 0,
            logical: 0,
            ended: false,
        }
    }

    /// What was read and not cut yet.
    fn rest(&self) -> &[u8] {
        &self.group.bytes[self.at..]
    }

    /// Bytes cut and not sent yet.
    fn taken(&self) -> usize {
        self.at
    }

    /// Reads on; gives the bytes read from the source, and where in the buffer the new logical bytes begin.
    fn read_more(&mut self) -> Result<(u64, usize)> {
        let start = self.group.bytes.len();
        let left = usize::try_from(self.file.len().saturating_sub(self.offset)).unwrap_or(usize::MAX);
        // One byte more than the file is said to have: growth is noticed.
        let want = READ_BYTES.min(left.saturating_add(1));
        let read = match &mut self.unframer {
            None => {
                self.group.bytes.resize(start + want, 0);
                let read = self.file.read_at(self.offset, &mut self.group.bytes[start..])?;
                self.group.bytes.truncate(start + read);
                read
            }
            Some(unframer) => {
                self.physical.resize(want, 0);
                let read = self.file.read_at(self.offset, &mut self.physical)?;
                unframer.feed(&self.physical[..read], &mut self.group.bytes)?;
                read
            }
        };
        self.offset += read as u64;
        if read < want {
            self.ended = true;
            if let Some(unframer) = self.unframer.take() {
                unframer.finish(&mut self.group.bytes)?;
            }
        }
        self.logical += (self.group.bytes.len() - start) as u64;
        Ok((read as u64, start))
    }

    /// The next `len` bytes are a chunk.
    fn take_chunk(&mut self, len: usize, hint: Option<Hint>) {
        self.group.chunks.push(GroupChunk { range: self.at..self.at + len, hint });
        self.at += len;
    }

    /// Takes bytes out that are to come back later.
    fn skip(&mut self, len: usize) -> Vec<u8> {
        let len = len.min(self.rest().len());
        self.group.bytes.drain(self.at..self.at + len).collect()
    }

    /// Puts bytes before what was not cut yet.
    fn put_back(&mut self, bytes: &[u8]) {
        self.group.bytes.splice(self.at..self.at, bytes.iter().copied());
    }

    /// The chunks cut so far; what was not cut moves to the next group.
    fn split_group(&mut self, buffers: &Buffers) -> Group {
        let mut next = buffers.take(BUFFER_BYTES.max((GROUP_BYTES + READ_BYTES + self.rest().len()) as u64));
        next.extend_from_slice(self.rest());
        self.group.bytes.truncate(self.at);
        self.at = 0;
        let bytes = std::mem::replace(&mut self.group.bytes, next);
        Group { bytes, chunks: std::mem::take(&mut self.group.chunks) }
    }
}

/// Walks the extents of a region as chunks pass by.
struct RegionWalk<'a> {
    extents: std::slice::Iter<'a, DataExtent>,
    current: Option<(DataExtent, Option<Lz4Walker>)>,
    /// Bytes of the current extent still to come.
    left: u32,
}

impl<'a> RegionWalk<'a> {
    fn new(extents: &'a [DataExtent]) -> Self {
        Self { extents: extents.iter(), current: None, left: 0 }
    }

    /// Takes the next chunk; gives what the coder needs to know of it.
    fn feed(&mut self, mut chunk: &[u8], damage: &mut Vec<String>) -> Hint {
        let mut hint = Hint { skip: 0, segments: Vec::new() };
        while !chunk.is_empty() {
            if self.left == 0 && !self.next_extent() {
                // The region's bytes are all accounted for by its units, so this is never reached.
                hint.segments.push(Segment { len: super::code::len_u32(chunk.len()), lz4: false });
                return hint;
            }
            let len = chunk.len().min(self.left as usize);
            let (part, rest) = chunk.split_at(len);
            chunk = rest;
            let Some((extent, walker)) = &mut self.current else { return hint };
            let part_len = super::code::len_u32(len);
            let skip = walker.as_mut().map_or(0, |walker| walker.feed(part));
            if hint.segments.is_empty() {
                hint.skip = skip;
            }
            hint.segments.push(Segment { len: part_len, lz4: extent.lz4 });
            self.left -= part_len;
            if self.left == 0
                && let Some(walker) = walker.take()
                && let Err(fault) = walker.finish()
                && damage.len() < 16
            {
                damage.push(format!("extent at {} is not a valid LZ4 block: {fault}", extent.offset));
            }
        }
        hint
    }

    fn next_extent(&mut self) -> bool {
        let Some(extent) = self.extents.next() else { return false };
        let walker = extent.lz4.then(|| Lz4Walker::new(extent.stored_len, extent.plain_len));
        self.left = extent.stored_len;
        self.current = Some((*extent, walker));
        true
    }
}

/// Collects the pieces of a file; of very large files, in lists that are stored as they fill.
struct PieceSink<'a> {
    coder: &'a Arc<Coder>,
    pieces: Vec<Piece>,
    lists: Option<(PieceListCutter, Vec<Piece>)>,
    /// Pieces may go to lists before the file is complete: not so for objects, whose header's piece comes last.
    may_spill: bool,
}

impl<'a> PieceSink<'a> {
    fn new(coder: &'a Arc<Coder>) -> Self {
        Self { coder, pieces: Vec::new(), lists: None, may_spill: false }
    }

    /// The place reached, in pieces.
    fn mark(&self) -> std::ops::Range<usize> {
        self.pieces.len()..self.pieces.len()
    }

    fn extend(&mut self, pieces: Vec<Piece>) -> Result<()> {
        self.pieces.extend(pieces);
        if self.may_spill && self.pieces.len() > PIECES_DIRECT_MAX { self.spill() } else { Ok(()) }
    }

    /// The header was stored behind the data, in front of the last region: its piece moves to the front.
    fn move_header_first(&mut self, data: &std::ops::Range<usize>, header_len: usize) -> Result<()> {
        let Some(first) = self.pieces.get_mut(data.end) else {
            return Err(Error::corrupt("an object without a last region"));
        };
        let header = Piece { len: super::code::len_u32(header_len), ..*first };
        if first.len < header.len {
            return Err(Error::corrupt("an object whose header is cut"));
        }
        first.offset += header.len;
        first.len -= header.len;
        if first.len == 0 {
            self.pieces.remove(data.end);
        }
        self.pieces.insert(data.start, header);
        Ok(())
    }

    fn finish(mut self) -> Result<Pieces> {
        if self.pieces.len() <= PIECES_DIRECT_MAX && self.lists.is_none() {
            return Ok(Pieces::Direct(self.pieces));
        }
        self.spill()?;
        let (cutter, mut lists) = self.lists.take().unwrap_or_default();
        if let Some(list) = cutter.finish() {
            lists.push(store_list(self.coder, &list)?);
        }
        Ok(Pieces::Lists(lists))
    }

    /// Moves the pieces collected so far into lists.
    fn spill(&mut self) -> Result<()> {
        let (cutter, lists) = self.lists.get_or_insert_default();
        for piece in self.pieces.drain(..) {
            if let Some(list) = cutter.push(piece) {
                lists.push(store_list(self.coder, &list)?);
            }
        }
        Ok(())
    }
}

fn store_list(coder: &Coder, list: &[Piece]) -> Result<Piece> {
    let plain = crate::format::segment::encode_piece_list(list);
    let chunk = coder.store_meta(&plain)?;
    Ok(Piece { chunk, offset: 0, len: super::code::len_u32(plain.len()) })
}
