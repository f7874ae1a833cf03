//! Takes the LZ4 data of a chunk apart into five streams, and puts them together again.
//!
//! Tokens, length bytes, low and high offset bytes and literals compress far better apart than as they lie. Nothing is
//! decoded, and no validity of LZ4 is assumed: [`Splitter::split`] and [`merge`] take the same decisions from the same
//! bytes, so they are exact inverses whatever the segments and `skip` say. The order of bytes in the streams is part of the
//! repository format (reference/tae-chunks.md, "Definition").

use crate::codec::Segment;
use crate::error::{Error, Result};

/// The streams of a chunk. Their lengths add up to the chunk's; `low` and `high` are equally long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Streams<'a> {
    /// T: what begins each sequence.
    pub(crate) tokens: &'a [u8],
    /// LO: the low bytes of offsets.
    pub(crate) low: &'a [u8],
    /// HI: the high bytes of offsets.
    pub(crate) high: &'a [u8],
    /// LE: bytes that lengthen literals and matches.
    pub(crate) lengths: &'a [u8],
    /// LI: literals, and all that is no LZ4.
    pub(crate) literals: &'a [u8],
}

/// Literals are copied in blocks of this many bytes, more than a token without length bytes asks for.
const BLOCK: usize = 16;
/// A token and [`BLOCK`]: where so many bytes of a segment are left, a sequence without length bytes lies within it.
const SEQUENCE: usize = 1 + BLOCK;

/// The buffers of [`split`](Self::split), kept for the next chunk. They grow to about three times the largest chunk.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    tokens: Vec<u8>,
    low: Vec<u8>,
    high: Vec<u8>,
    lengths: Vec<u8>,
    literals: Vec<u8>,
}

/// How much of each stream is written or read.
#[derive(Clone, Copy, Default)]
struct Marks {
    tokens: usize,
    offsets: usize,
    lengths: usize,
    literals: usize,
}

impl Splitter {
    /// Splits `chunk`, whose first `skip` bytes finish a sequence that began before it.
    ///
    /// # Errors
    /// `Invalid`, if the segments do not add up to the chunk.
    pub(crate) fn split(&mut self, chunk: &[u8], skip: u32, segments: &[Segment]) -> Result<Streams<'_>> {
        let total: u64 = segments.iter().map(|segment| u64::from(segment.len)).sum();
        if total != chunk.len() as u64 {
            let message = format!("split chunk: segments of {total} bytes for a chunk of {}", chunk.len());
            return Err(Error::invalid(message));
        }
        // A sequence takes three bytes at least, but for the last of a segment.
        let sequences = chunk.len() / 3 + segments.len();
        for stream in [&mut self.tokens, &mut self.low, &mut self.high] {
            grow(stream, sequences);
        }
        grow(&mut self.literals, chunk.len() + BLOCK);
        self.lengths.clear();
        let (mut marks, mut rest, mut skip) = (Marks::default(), chunk, skip as usize);
        for &Segment { len, lz4 } in segments {
            let (segment, behind) = rest.split_at(len as usize);
            let raw = if lz4 { skip.min(segment.len()) } else { segment.len() };
            skip = skip.saturating_sub(raw);
            let (raw, sequences) = segment.split_at(raw);
            self.literals[marks.literals..][..raw.len()].copy_from_slice(raw);
            marks.literals += raw.len();
            marks = self.split_sequences(sequences, marks);
            rest = behind;
        }
        Ok(Streams {
            tokens: &self.tokens[..marks.tokens],
            low: &self.low[..marks.offsets],
            high: &self.high[..marks.offsets],
            lengths: &self.lengths,
            literals: &self.literals[..marks.literals],
        })
    }

    fn split_sequences(&mut self, segment: &[u8], mut marks: Marks) -> Marks {
        let mut at = 0;
        while at < segment.len() {
            let sequence = match segment[at..].first_chunk::<SEQUENCE>() {
                Some(sequence) if sequence[0] >> 4 != 15 => sequence,
                _ => {
                    (at, marks) = self.split_one(segment, at, marks);
                    continue;
                }
            };
            let token = sequence[0];
            let literals = usize::from(token >> 4);
            self.tokens[marks.tokens] = token;
            self.literals[marks.literals..][..BLOCK].copy_from_slice(&sequence[1..]);
            self.low[marks.offsets] = sequence[literals + 1];
            self.high[marks.offsets] = sequence[literals + 2];
            marks.tokens += 1;
            marks.literals += literals;
            marks.offsets += 1;
            at += literals + 3;
            if token & 15 == 15 {
                (at, _) = self.split_lengths(segment, at);
            }
        }
        marks
    }

    /// One sequence, of any shape, cut short anywhere.
    fn split_one(&mut self, segment: &[u8], at: usize, mut marks: Marks) -> (usize, Marks) {
        let token = segment[at];
        let mut at = at + 1;
        self.tokens[marks.tokens] = token;
        marks.tokens += 1;
        let mut literals = usize::from(token >> 4);
        if literals == 15 {
            let sum;
            (at, sum) = self.split_lengths(segment, at);
            literals = literals.saturating_add(sum);
        }
        literals = literals.min(segment.len() - at);
        self.literals[marks.literals..][..literals].copy_from_slice(&segment[at..][..literals]);
        marks.literals += literals;
        at += literals;
        match &segment[at..] {
            [] => {}
            // Half an offset.
            &[half] => {
                self.literals[marks.literals] = half;
                marks.literals += 1;
                at += 1;
            }
            &[low, high, ..] => {
                self.low[marks.offsets] = low;
                self.high[marks.offsets] = high;
                marks.offsets += 1;
                at += 2;
                if token & 15 == 15 {
                    (at, _) = self.split_lengths(segment, at);
                }
            }
        }
        (at, marks)
    }

    /// Length bytes up to one that is not 255. Returns where they end, and their sum.
    fn split_lengths(&mut self, segment: &[u8], start: usize) -> (usize, usize) {
        let (mut at, mut sum) = (start, 0usize);
        while let Some(&byte) = segment.get(at) {
            at += 1;
            sum = sum.saturating_add(usize::from(byte));
            if byte != 255 {
                break;
            }
        }
        self.lengths.extend_from_slice(&segment[start..at]);
        (at, sum)
    }
}

/// Makes a buffer at least so long. What it holds does not matter.
pub(super) fn grow(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
}

/// Puts a chunk together: the inverse of [`Splitter::split`].
///
/// # Errors
/// `Corrupt`, if a stream is short, something is left over, or the segments do not add up to `chunk`. What `chunk` holds
/// then has no meaning.
pub(crate) fn merge(
    streams: &Streams<'_>,
    skip: u32,
    segments: impl IntoIterator<Item = Segment>,
    chunk: &mut [u8],
) -> Result<()> {
    let mut merger = Merger { streams, marks: Marks::default() };
    let (mut rest, mut skip) = (chunk, skip as usize);
    for Segment { len, lz4 } in segments {
        let Some((segment, behind)) = rest.split_at_mut_checked(len as usize) else {
            return Err(Error::corrupt("merge chunk: segments are longer than the chunk"));
        };
        let raw = if lz4 { skip.min(segment.len()) } else { segment.len() };
        skip = skip.saturating_sub(raw);
        let (raw, sequences) = segment.split_at_mut(raw);
        raw.copy_from_slice(merger.literals(raw.len())?);
        merger.merge_sequences(sequences)?;
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(Error::corrupt("merge chunk: segments are shorter than the chunk"));
    }
    merger.finish()
}

struct Merger<'a> {
    streams: &'a Streams<'a>,
    marks: Marks,
}

impl<'a> Merger<'a> {
    fn merge_sequences(&mut self, segment: &mut [u8]) -> Result<()> {
        let streams = self.streams;
        let mut marks = self.marks;
        let mut at = 0;
        while at < segment.len() {
            let (Some((token, block, [low, high])), Some(sequence)) =
                (streams.short_sequence(marks), segment[at..].first_chunk_mut::<SEQUENCE>())
            else {
                self.marks = marks;
                at = self.merge_one(segment, at)?;
                marks = self.marks;
                continue;
            };
            let literals = usize::from(token >> 4);
            sequence[0] = token;
            sequence[1..].copy_from_slice(block);
            // Literals are 14 at most. What was written behind them is written again.
            sequence[literals + 1] = low;
            sequence[literals + 2] = high;
            marks.tokens += 1;
            marks.literals += literals;
            marks.offsets += 1;
            at += literals + 3;
            if token & 15 == 15 {
                (at, _) = streams.merge_lengths(segment, at, &mut marks)?;
            }
        }
        self.marks = marks;
        Ok(())
    }

    /// One sequence, of any shape, cut short anywhere.
    fn merge_one(&mut self, segment: &mut [u8], at: usize) -> Result<usize> {
        let token = *self.streams.tokens.get(self.marks.tokens).ok_or_else(|| short("tokens"))?;
        self.marks.tokens += 1;
        segment[at] = token;
        let mut at = at + 1;
        let mut literals = usize::from(token >> 4);
        if literals == 15 {
            let sum;
            (at, sum) = self.streams.merge_lengths(segment, at, &mut self.marks)?;
            literals = literals.saturating_add(sum);
        }
        literals = literals.min(segment.len() - at);
        segment[at..][..literals].copy_from_slice(self.literals(literals)?);
        at += literals;
        match &mut segment[at..] {
            [] => {}
            [half] => {
                *half = self.literals(1)?[0];
                at += 1;
            }
            [low, high, ..] => {
                *low = *self.streams.low.get(self.marks.offsets).ok_or_else(|| short("low offset bytes"))?;
                *high = *self.streams.high.get(self.marks.offsets).ok_or_else(|| short("high offset bytes"))?;
                self.marks.offsets += 1;
                at += 2;
                if token & 15 == 15 {
                    (at, _) = self.streams.merge_lengths(segment, at, &mut self.marks)?;
                }
            }
        }
        Ok(at)
    }

    /// The next `len` literals.
    fn literals(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = &self.streams.literals[self.marks.literals..];
        let literals = rest.get(..len).ok_or_else(|| short("literals"))?;
        self.marks.literals += len;
        Ok(literals)
    }

    /// Proves that every stream is used up.
    fn finish(self) -> Result<()> {
        let Self { streams, marks } = self;
        let left = [
            ("tokens", streams.tokens.len() - marks.tokens),
            ("low offset bytes", streams.low.len() - marks.offsets),
            ("high offset bytes", streams.high.len() - marks.offsets),
            ("length bytes", streams.lengths.len() - marks.lengths),
            ("literals", streams.literals.len() - marks.literals),
        ];
        match left.into_iter().find(|&(_, count)| count > 0) {
            None => Ok(()),
            Some((stream, count)) => Err(Error::corrupt(format!("merge chunk: {count} {stream} left over"))),
        }
    }
}

impl Streams<'_> {
    /// Token, literals and more, and offset of the next sequence, if it has no length bytes before its literals and the
    /// streams do not end soon.
    #[inline]
    fn short_sequence(&self, marks: Marks) -> Option<(u8, &[u8; BLOCK], [u8; 2])> {
        let token = *self.tokens.get(marks.tokens).filter(|&&token| token >> 4 != 15)?;
        let block = self.literals.get(marks.literals..)?.first_chunk()?;
        Some((token, block, [*self.low.get(marks.offsets)?, *self.high.get(marks.offsets)?]))
    }

    /// Length bytes up to one that is not 255. Returns where they end, and their sum.
    fn merge_lengths(&self, segment: &mut [u8], start: usize, marks: &mut Marks) -> Result<(usize, usize)> {
        let (mut at, mut sum) = (start, 0usize);
        while let Some(place) = segment.get_mut(at) {
            let byte = *self.lengths.get(marks.lengths).ok_or_else(|| short("length bytes"))?;
            marks.lengths += 1;
            *place = byte;
            at += 1;
            sum = sum.saturating_add(usize::from(byte));
            if byte != 255 {
                break;
            }
        }
        Ok((at, sum))
    }
}

#[cold]
fn short(stream: &str) -> Error {
    Error::corrupt(format!("merge chunk: {stream} run out"))
}

#[cfg(test)]
mod tests;
