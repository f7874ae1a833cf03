//! The checksum framing of MatrixOne's legacy `DISK` backend.
//!
//! A physical file is a row of blocks of 2048 bytes, the last one may be short: CRC-32C of the content, then up to 2044
//! bytes of content. Nothing else says that a file is framed, so it is found out by testing the first block. Removing
//! the framing verifies every checksum; putting it back gives the same bytes, since writers leave no short block inside.
//! Checksums prove that the disk kept what was written, nothing more.

use crate::error::{Error, Result};

use super::read_at::{ReadAt, beyond_end};

/// A physical block.
const BLOCK: usize = 2048;
/// The checksum in front of it.
const CHECKSUM: usize = 4;
/// What remains for content.
const CONTENT: usize = BLOCK - CHECKSUM;
/// Blocks that random access reads at a time.
const BLOCKS_AT_ONCE: usize = 64;

/// How many bytes of a file's beginning [`looks_framed`] wants to see.
pub const FRAMING_PROBE_LEN: usize = BLOCK;

/// True if a file of `file_len` bytes is framed. `first` is its first `min(2048, file_len)` bytes.
///
/// A file without framing passes by accident once in four billion. An empty file counts as not framed.
pub fn looks_framed(first: &[u8], file_len: u64) -> bool {
    let block_len = usize::try_from(file_len).map_or(BLOCK, |len| len.min(BLOCK));
    match first.get(..block_len) {
        Some(block) => block_len > CHECKSUM && content_of(block).is_ok(),
        None => false,
    }
}

/// True if a whole file bears the framing: its length is one that a framed file can have, and its first block is a good one.
pub fn is_framed(file: &dyn ReadAt) -> Result<bool> {
    let len = file.len();
    let mut first = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(FRAMING_PROBE_LEN)];
    file.read_exact_at(0, &mut first)?;
    Ok(logical_len(len).is_some() && looks_framed(&first, len))
}

/// The logical bytes of a file: where it is framed, the framing is verified and taken off as it is read.
pub fn logical<'a>(file: impl ReadAt + 'a) -> Result<Box<dyn ReadAt + 'a>> {
    Ok(if is_framed(&file)? { Box::new(Unframed::new(file)?) } else { Box::new(file) })
}

/// Length of the content of a framed file; `None` if no framed file has this length.
pub fn logical_len(physical_len: u64) -> Option<u64> {
    let whole = physical_len / BLOCK as u64 * CONTENT as u64;
    match physical_len % BLOCK as u64 {
        0 => Some(whole),
        rest => Some(whole + rest.checked_sub(CHECKSUM as u64).filter(|&content| content > 0)?),
    }
}

/// Length of a file once it is framed.
///
/// Saturates for lengths that no file has.
pub fn physical_len(logical_len: u64) -> u64 {
    logical_len.saturating_add(logical_len.div_ceil(CONTENT as u64).saturating_mul(CHECKSUM as u64))
}

/// Where the content byte at `logical` lies in the framed file.
pub fn physical_offset(logical: u64) -> u64 {
    let (block, within) = (logical / CONTENT as u64, logical % CONTENT as u64);
    block.saturating_mul(BLOCK as u64).saturating_add(CHECKSUM as u64 + within)
}

/// The checksum a block carries and the one its content has.
struct BadChecksum {
    stored: u32,
    computed: u32,
}

/// The content of one block of at least 4 bytes, if its checksum is right.
fn content_of(block: &[u8]) -> Result<&[u8], BadChecksum> {
    let (stored, content) = match block.split_first_chunk::<CHECKSUM>() {
        Some((checksum, content)) => (u32::from_le_bytes(*checksum), content),
        None => (0, block),
    };
    let computed = crc32c::crc32c(content);
    if stored == computed { Ok(content) } else { Err(BadChecksum { stored, computed }) }
}

/// The same with an error that says where.
fn verified(block: &[u8], number: u64) -> Result<&[u8]> {
    content_of(block).map_err(|bad| {
        let offset = number.saturating_mul(BLOCK as u64);
        let BadChecksum { stored, computed } = bad;
        Error::corrupt(format!(
            "disk framing: block {number} at offset {offset}: checksum is {stored:08x}, content has {computed:08x}"
        ))
    })
}

fn bad_length(physical_len: u64) -> Error {
    Error::corrupt(format!(
        "disk framing: the last block, at offset {}, has {} bytes, too few for a checksum and content",
        physical_len / BLOCK as u64 * BLOCK as u64,
        physical_len % BLOCK as u64
    ))
}

/// Removes the framing from a stream and verifies every block.
#[derive(Debug, Default)]
pub struct Unframer {
    /// The beginning of a block whose rest is still to come; shorter than a block between calls.
    partial: Vec<u8>,
    /// Blocks verified so far.
    block_count: u64,
}

impl Unframer {
    /// At the beginning of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next physical bytes and appends the content of every block that is complete now.
    ///
    /// After an error the content before the bad block has been appended.
    pub fn feed(&mut self, mut physical: &[u8], logical: &mut Vec<u8>) -> Result<()> {
        if !self.partial.is_empty() {
            let (head, rest) = physical.split_at(physical.len().min(BLOCK - self.partial.len()));
            self.partial.extend_from_slice(head);
            physical = rest;
            if self.partial.len() < BLOCK {
                return Ok(());
            }
            logical.extend_from_slice(verified(&self.partial, self.block_count)?);
            self.block_count += 1;
            self.partial.clear();
        }
        let blocks = physical.chunks_exact(BLOCK);
        self.partial.extend_from_slice(blocks.remainder());
        logical.reserve(blocks.len() * CONTENT);
        for block in blocks {
            logical.extend_from_slice(verified(block, self.block_count)?);
            self.block_count += 1;
        }
        Ok(())
    }

    /// Ends the file: appends the content of the short last block and returns the length of all content.
    pub fn finish(self, logical: &mut Vec<u8>) -> Result<u64> {
        let whole = self.block_count * CONTENT as u64;
        if self.partial.is_empty() {
            return Ok(whole);
        }
        if self.partial.len() <= CHECKSUM {
            return Err(bad_length(self.block_count * BLOCK as u64 + self.partial.len() as u64));
        }
        let content = verified(&self.partial, self.block_count)?;
        logical.extend_from_slice(content);
        Ok(whole + content.len() as u64)
    }
}

/// Puts the framing into a stream.
#[derive(Debug, Default)]
pub struct Framer {
    /// Content of a block whose rest is still to come; shorter than a block's content between calls.
    partial: Vec<u8>,
}

impl Framer {
    /// At the beginning of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next content and appends every physical block that is complete now.
    pub fn feed(&mut self, mut logical: &[u8], physical: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            let (head, rest) = logical.split_at(logical.len().min(CONTENT - self.partial.len()));
            self.partial.extend_from_slice(head);
            logical = rest;
            if self.partial.len() < CONTENT {
                return;
            }
            push_block(&self.partial, physical);
            self.partial.clear();
        }
        let blocks = logical.chunks_exact(CONTENT);
        self.partial.extend_from_slice(blocks.remainder());
        physical.reserve(blocks.len() * BLOCK);
        for content in blocks {
            push_block(content, physical);
        }
    }

    /// Ends the file: appends the short last block.
    pub fn finish(self, physical: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            push_block(&self.partial, physical);
        }
    }
}

fn push_block(content: &[u8], physical: &mut Vec<u8>) {
    physical.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
    physical.extend_from_slice(content);
}

/// The content of a framed file, at any offset, every block that is touched verified.
#[derive(Debug)]
pub struct Unframed<R> {
    physical: R,
    len: u64,
}

impl<R: ReadAt> Unframed<R> {
    /// Lays the framing over a physical file. Fails if no framed file has its length.
    pub fn new(physical: R) -> Result<Self> {
        let len = logical_len(physical.len()).ok_or_else(|| bad_length(physical.len()))?;
        Ok(Self { physical, len })
    }

    /// The physical file.
    pub fn into_inner(self) -> R {
        self.physical
    }
}

impl<R: ReadAt> ReadAt for Unframed<R> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.len);
        let Some(end) = end else { return Err(beyond_end(offset, buffer.len(), self.len)) };
        if buffer.is_empty() {
            return Ok(());
        }
        let last_block = (end - 1) / CONTENT as u64;
        let mut number = offset / CONTENT as u64;
        let mut skip = usize::try_from(offset % CONTENT as u64).expect("less than a block");
        let block_count = usize::try_from(last_block - number + 1).map_or(BLOCKS_AT_ONCE, |n| n.min(BLOCKS_AT_ONCE));
        let mut blocks = vec![0; block_count * BLOCK];
        let mut rest = buffer;
        while number <= last_block {
            let at = number * BLOCK as u64;
            let wanted = (last_block + 1 - number).saturating_mul(BLOCK as u64).min(self.physical.len() - at);
            let wanted = usize::try_from(wanted).map_or(blocks.len(), |wanted| wanted.min(blocks.len()));
            self.physical.read_exact_at(at, &mut blocks[..wanted])?;
            for block in blocks[..wanted].chunks(BLOCK) {
                let content = verified(block, number)?;
                let content = &content[skip..];
                let taken = content.len().min(rest.len());
                let (head, tail) = rest.split_at_mut(taken);
                head.copy_from_slice(&content[..taken]);
                rest = tail;
                skip = 0;
                number += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn frame(logical: &[u8]) -> Vec<u8> {
        let (mut framer, mut physical) = (Framer::new(), Vec::new());
        framer.feed(logical, &mut physical);
        framer.finish(&mut physical);
        physical
    }

    fn unframe(physical: &[u8]) -> Result<Vec<u8>> {
        let (mut unframer, mut logical) = (Unframer::new(), Vec::new());
        unframer.feed(physical, &mut logical)?;
        assert_eq!(unframer.finish(&mut logical)?, logical.len() as u64);
        Ok(logical)
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
    }

    /// These bytes are on people's disks. If this fails, the format changed.
    #[test]
    fn known_bytes() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(frame(&[1]), [0x52, 0xd0, 0x16, 0xa0, 0x01]);
        assert!(looks_framed(&[0x52, 0xd0, 0x16, 0xa0, 0x01], 5));
        assert!(frame(&[]).is_empty());
        assert!(!looks_framed(&[], 0));
        assert!(!looks_framed(&[0; 4], 4), "a checksum without content");
        assert!(!looks_framed(&[0x52, 0xd0], 5), "too little was read");
    }

    #[test]
    fn lengths_and_offsets() {
        for (logical, physical) in [(0, 0), (1, 5), (2044, 2048), (2045, 2053), (4088, 4096), (4089, 4101)] {
            assert_eq!(physical_len(logical), physical);
            assert_eq!(logical_len(physical), Some(logical));
        }
        for physical in [1, 4, 2049, 2052] {
            assert_eq!(logical_len(physical), None);
        }
        assert_eq!(physical_offset(0), 4);
        assert_eq!(physical_offset(2043), 2047);
        assert_eq!(physical_offset(2044), 2052);
    }

    #[test]
    fn a_bad_block_is_named() {
        let mut physical = frame(&pattern(10_000));
        physical[2 * 2048 + 77] ^= 4;
        let error = unframe(&physical).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("block 2 at offset 4096"), "{error}");
        let unframed = Unframed::new(physical).unwrap();
        let mut buffer = [0; 10];
        unframed.read_exact_at(0, &mut buffer).unwrap();
        assert!(unframed.read_exact_at(2 * 2044 + 5, &mut buffer).unwrap_err().message().contains("block 2"));
        assert!(unframed.read_exact_at(9_995, &mut buffer).is_err(), "beyond the end");
    }

    #[test]
    fn a_cut_file_is_noticed() {
        let physical = frame(&pattern(5_000));
        for len in 0..physical.len() {
            let at_border = len % 2048 == 0;
            assert_eq!(unframe(&physical[..len]).is_ok(), at_border, "{len}");
        }
    }

    proptest! {
        #[test]
        fn framing_goes_both_ways_in_any_slices(len in 0usize..9000, cuts in prop::collection::vec(0usize..5000, 0..8)) {
            let logical = pattern(len);
            let (mut framer, mut physical, mut rest) = (Framer::new(), Vec::new(), logical.as_slice());
            for cut in &cuts {
                let (head, tail) = rest.split_at(rest.len().min(*cut));
                framer.feed(head, &mut physical);
                rest = tail;
            }
            framer.feed(rest, &mut physical);
            framer.finish(&mut physical);
            prop_assert_eq!(&physical, &frame(&logical));
            prop_assert_eq!(physical_len(len as u64), physical.len() as u64);
            prop_assert_eq!(looks_framed(&physical[..physical.len().min(2048)], physical.len() as u64), len > 0);

            let (mut unframer, mut back, mut rest) = (Unframer::new(), Vec::new(), physical.as_slice());
            for cut in &cuts {
                let (head, tail) = rest.split_at(rest.len().min(*cut));
                unframer.feed(head, &mut back).unwrap();
                rest = tail;
            }
            unframer.feed(rest, &mut back).unwrap();
            prop_assert_eq!(unframer.finish(&mut back).unwrap(), len as u64);
            prop_assert_eq!(back, logical);
        }

        #[test]
        fn any_range_of_a_framed_file_reads_right(len in 1usize..400_000, from in 0usize..400_000, to in 0usize..400_000) {
            let logical = pattern(len);
            let unframed = Unframed::new(frame(&logical)).unwrap();
            let (from, to) = (from.min(to) % len, from.max(to) % len);
            let range = from.min(to)..from.max(to) + 1;
            let mut buffer = vec![0; range.len()];
            unframed.read_exact_at(range.start as u64, &mut buffer).unwrap();
            prop_assert_eq!(&buffer, &logical[range]);
        }
    }
}
