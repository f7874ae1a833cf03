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
        let mut writer = Writer {
            tokens: &mut self.tokens,
            low: &mut self.low,
            high: &mut self.high,
            lengths: &mut self.lengths,
            literals: &mut self.literals,
            marks: Marks::default(),
        };
        let (mut rest, mut skip) = (chunk, skip as usize);
        for &Segment { len, lz4 } in segments {
            let (segment, behind) = rest.split_at(len as usize);
            let raw = if lz4 { skip.min(segment.len()) } else { segment.len() };
            skip = skip.saturating_sub(raw);
            let (raw, sequences) = segment.split_at(raw);
            writer.literals(raw);
            writer.sequences(sequences);
            rest = behind;
        }
        let marks = writer.marks;
        Ok(Streams {
            tokens: &self.tokens[..marks.tokens],
            low: &self.low[..marks.offsets],
            high: &self.high[..marks.offsets],
            lengths: &self.lengths,
            literals: &self.literals[..marks.literals],
        })
    }
}

/// The buffers of a [`Splitter`] as slices: a loop keeps these in registers, as it could not keep vectors.
struct Writer<'a> {
    tokens: &'a mut [u8],
    low: &'a mut [u8],
    high: &'a mut [u8],
    lengths: &'a mut Vec<u8>,
    literals: &'a mut [u8],
    marks: Marks,
}

impl Writer<'_> {
    fn sequences(&mut self, segment: &[u8]) {
        let mut at = 0;
        while at < segment.len() {
            at = self.short_sequences(segment, at);
            if at < segment.len() {
                at = self.one(segment, at);
            }
        }
    }

    /// Sequences without length bytes before their literals, as far as no segment end is near. Returns where another one
    /// begins.
    fn short_sequences(&mut self, segment: &[u8], mut at: usize) -> usize {
        let marks = &mut self.marks;
        // One length and one index for all three: one bounds check.
        let room = (self.tokens.len() - marks.tokens).min(self.low.len() - marks.offsets);
        let tokens = &mut self.tokens[marks.tokens..][..room];
        let low = &mut self.low[marks.offsets..][..room];
        let high = &mut self.high[marks.offsets..][..room];
        let (mut count, mut literals_end) = (0, marks.literals);
        while let Some(sequence) = segment.get(at..).and_then(|rest| rest.first_chunk::<SEQUENCE>()) {
            let token = sequence[0];
            let literals = usize::from(token >> 4);
            if literals == 15 || count >= room {
                break;
            }
            tokens[count] = token;
            low[count] = sequence[literals + 1];
            high[count] = sequence[literals + 2];
            count += 1;
            self.literals[literals_end..][..BLOCK].copy_from_slice(&sequence[1..]);
            literals_end += literals;
            at += literals + 3;
            if token & 15 == 15 {
                (at, _) = copy_lengths(self.lengths, segment, at);
            }
        }
        marks.tokens += count;
        marks.offsets += count;
        marks.literals = literals_end;
        at
    }

    /// One sequence, of any shape, cut short anywhere. Returns where it ends.
    fn one(&mut self, segment: &[u8], at: usize) -> usize {
        let token = segment[at];
        let mut at = at + 1;
        self.tokens[self.marks.tokens] = token;
        self.marks.tokens += 1;
        let mut literals = usize::from(token >> 4);
        if literals == 15 {
            let sum;
            (at, sum) = copy_lengths(self.lengths, segment, at);
            literals = literals.saturating_add(sum);
        }
        literals = literals.min(segment.len() - at);
        self.literals(&segment[at..][..literals]);
        at += literals;
        match &segment[at..] {
            [] => {}
            // Half an offset.
            half @ [_] => {
                self.literals(half);
                at += 1;
            }
            &[low, high, ..] => {
                self.low[self.marks.offsets] = low;
                self.high[self.marks.offsets] = high;
                self.marks.offsets += 1;
                at += 2;
                if token & 15 == 15 {
                    (at, _) = copy_lengths(self.lengths, segment, at);
                }
            }
        }
        at
    }

    fn literals(&mut self, literals: &[u8]) {
        self.literals[self.marks.literals..][..literals.len()].copy_from_slice(literals);
        self.marks.literals += literals.len();
    }
}

/// Length bytes up to one that is not 255. Returns where they end, and their sum.
fn copy_lengths(lengths: &mut Vec<u8>, segment: &[u8], start: usize) -> (usize, usize) {
    let (mut at, mut sum) = (start, 0usize);
    while let Some(&byte) = segment.get(at) {
        at += 1;
        lengths.push(byte);
        sum = sum.saturating_add(usize::from(byte));
        if byte != 255 {
            break;
        }
    }
    (at, sum)
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
        let mut at = 0;
        while at < segment.len() {
            at = self.merge_short(segment, at)?;
            if at < segment.len() {
                at = self.merge_one(segment, at)?;
            }
        }
        Ok(())
    }

    /// Sequences without length bytes before their literals, as far as no end is near. Returns where another one begins.
    fn merge_short(&mut self, segment: &mut [u8], mut at: usize) -> Result<usize> {
        let Streams { tokens, low, high, literals: all_literals, .. } = *self.streams;
        let mut marks = self.marks;
        let (tokens, low, high) = (&tokens[marks.tokens..], &low[marks.offsets..], &high[marks.offsets..]);
        // One length and one index for all three: one bounds check.
        let room = tokens.len().min(low.len()).min(high.len());
        let (tokens, low, high) = (&tokens[..room], &low[..room], &high[..room]);
        let mut count = 0;
        while count < room
            && let Some(block) = all_literals.get(marks.literals..).and_then(|rest| rest.first_chunk::<BLOCK>())
            && let Some(sequence) = segment.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<SEQUENCE>())
        {
            let token = tokens[count];
            let literals = usize::from(token >> 4);
            if literals == 15 {
                break;
            }
            sequence[0] = token;
            sequence[1..].copy_from_slice(block);
            // Literals are 14 at most. What was written behind them is written again.
            sequence[literals + 1] = low[count];
            sequence[literals + 2] = high[count];
            count += 1;
            marks.literals += literals;
            at += literals + 3;
            if token & 15 == 15 {
                (at, _) = self.streams.merge_lengths(segment, at, &mut marks)?;
            }
        }
        marks.tokens += count;
        marks.offsets += count;
        self.marks = marks;
        Ok(at)
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
