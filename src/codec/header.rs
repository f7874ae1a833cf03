//! What stands before the streams of a split chunk: skip, segments, stream lengths.
//!
//! ```text
//! varint skip · [varint number of segments, if the nibble is 15] · per segment but the last varint (len << 1 | raw)
//! · last segment: one byte, raw 0 or 1 (its length is the rest) · varint |T| · varint |T|+1-|LO| · varint |LE|
//! ```
//! The nibble is the high half of the record's coding byte; varints are LEB128. Segments are not kept in memory when read:
//! a hostile header may state millions.

use crate::codec::Segment;
use crate::error::{Error, Result};

/// From this number of segments on, the nibble says only that.
const NIBBLE_MAX: u8 = 15;

/// Appends a header; returns the nibble. `streams` are |T|, |LO| and |LE|; `segments` are those of the chunk, at least one.
pub(super) fn encode(skip: u32, segments: &[Segment], streams: [usize; 3], header: &mut Vec<u8>) -> u8 {
    let nibble = u8::try_from(segments.len()).map_or(NIBBLE_MAX, |count| count.min(NIBBLE_MAX));
    push_varint(header, u64::from(skip));
    if nibble == NIBBLE_MAX {
        push_varint(header, segments.len() as u64);
    }
    if let Some((last, before)) = segments.split_last() {
        for segment in before {
            push_varint(header, u64::from(segment.len) << 1 | u64::from(!segment.lz4));
        }
        header.push(u8::from(!last.lz4));
    }
    let [tokens, low, lengths] = streams;
    push_varint(header, tokens as u64);
    push_varint(header, (tokens + 1 - low) as u64);
    push_varint(header, lengths as u64);
    nibble
}

/// A header that was checked: the segments add up to the chunk, and so do the streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    pub(super) skip: u32,
    pub(super) segments: Segments<'a>,
    /// |T|, |LO|, |HI|, |LE|, |LI|: they add up to the chunk.
    pub(super) streams: [usize; 5],
}

impl<'a> Header<'a> {
    /// Reads the header in front of `payload`, of a chunk of `plain_len` bytes; also returns what follows it.
    pub(super) fn decode(nibble: u8, plain_len: u32, payload: &'a [u8]) -> Result<(Self, &'a [u8])> {
        let mut fields = Fields { rest: payload };
        let skip = fields.varint32("skip")?;
        let count = match nibble {
            0 => return Err(corrupt("no segments")),
            NIBBLE_MAX => match fields.varint32("number of segments")? {
                count if count < u32::from(NIBBLE_MAX) => {
                    return Err(corrupt(format!("{count} segments, but not where so few are stated")));
                }
                count => count,
            },
            count => u32::from(count),
        };
        let segments = Segments { fields, left: count, left_len: plain_len };
        // Reading them is checking them; the iterator will read the same once more.
        let mut reader = segments;
        while reader.left > 0 {
            reader.read()?;
        }
        let mut fields = reader.fields;
        let tokens = fields.varint32("number of tokens")?;
        let below = fields.varint32("number of offsets")?;
        let lengths = fields.varint32("number of length bytes")?;
        let low = u64::from(tokens) + 1;
        let low = low.checked_sub(u64::from(below)).filter(|&low| low <= u64::from(tokens));
        let low = low.and_then(|low| u32::try_from(low).ok());
        let low = low.ok_or_else(|| corrupt(format!("{tokens} tokens with {below} offsets less one below them")))?;
        let others = u64::from(tokens) + 2 * u64::from(low) + u64::from(lengths);
        let literals = u64::from(plain_len).checked_sub(others).and_then(|literals| u32::try_from(literals).ok());
        let literals = literals
            .ok_or_else(|| corrupt(format!("streams of {others} bytes and literals for a chunk of {plain_len}")))?;
        let streams = [tokens, low, low, lengths, literals].map(|len| len as usize);
        Ok((Self { skip, segments, streams }, fields.rest))
    }
}

/// Reads segments off a header, once they were checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segments<'a> {
    fields: Fields<'a>,
    left: u32,
    /// How much of the chunk is left.
    left_len: u32,
}

impl Segments<'_> {
    fn read(&mut self) -> Result<Segment> {
        let segment = if self.left > 1 {
            let field = self.fields.varint("segment")?;
            let len = u32::try_from(field >> 1).ok().filter(|&len| len <= self.left_len);
            let len = len.ok_or_else(|| corrupt("segments are longer than the chunk"))?;
            Segment { len, lz4: field & 1 == 0 }
        } else {
            match self.fields.byte("last segment")? {
                raw @ (0 | 1) => Segment { len: self.left_len, lz4: raw == 0 },
                raw => return Err(corrupt(format!("last segment is of kind {raw}"))),
            }
        };
        self.left -= 1;
        self.left_len -= segment.len;
        Ok(segment)
    }
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        if self.left == 0 {
            return None;
        }
        self.read().ok()
    }
}

/// Takes fields off the front of untrusted bytes.
#[derive(Clone, Copy, Debug)]
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn byte(&mut self, field: &str) -> Result<u8> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| corrupt(format!("ends before its {field}")))?;
        self.rest = rest;
        Ok(byte)
    }

    fn varint(&mut self, field: &str) -> Result<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(field)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(corrupt(format!("{field} is no number below 2^64")))
    }

    fn varint32(&mut self, field: &str) -> Result<u32> {
        let value = self.varint(field)?;
        u32::try_from(value).map_err(|_| corrupt(format!("{field} is {value}")))
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while let Ok(low) = u8::try_from(value & 0x7f) {
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cold]
fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("decode split chunk: header: {what}"))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "test data are short")]
mod tests {
    use super::*;

    fn segment(len: u32, lz4: bool) -> Segment {
        Segment { len, lz4 }
    }

    /// These bytes are on people's disks. If this fails, the format changed.
    #[test]
    fn stored_bytes_have_not_changed() {
        let mut header = Vec::new();
        let nibble =
            encode(300, &[segment(100, false), segment(5, true), segment(895, true)], [40, 38, 7], &mut header);
        assert_eq!((nibble, &header[..]), (3, &[0xac, 0x02, 0xc9, 0x01, 0x0a, 0x00, 40, 3, 7][..]));
        header.clear();
        let many = [segment(1, false); 15];
        assert_eq!(encode(0, &many, [0, 0, 0], &mut header), 15);
        assert_eq!(header, [&[0, 15][..], &[3; 14], &[1, 0, 1, 0]].concat());
    }

    #[test]
    fn what_was_written_is_read() {
        for count in [1usize, 2, 14, 15, 16, 300] {
            let segments: Vec<_> = (1..=count as u32).map(|i| segment(i * 7, i % 3 == 0)).collect();
            let plain_len: u32 = segments.iter().map(|s| s.len).sum();
            let mut bytes = Vec::new();
            let nibble = encode(5, &segments, [2, 1, 1], &mut bytes);
            bytes.extend_from_slice(b"rest");
            let (header, rest) = Header::decode(nibble, plain_len, &bytes).unwrap();
            assert_eq!((header.skip, rest), (5, &b"rest"[..]));
            assert_eq!(header.segments.collect::<Vec<_>>(), segments);
            assert_eq!(header.streams, [2, 1, 1, 1, plain_len as usize - 5]);
            for len in 0..bytes.len() - 4 {
                assert!(Header::decode(nibble, plain_len, &bytes[..len]).is_err(), "{len} of {count}");
            }
        }
    }

    #[test]
    fn sums_that_do_not_fit_are_refused() {
        let refused = |nibble, plain_len, bytes: &[u8]| {
            Header::decode(nibble, plain_len, bytes).expect_err("refused").message().to_owned()
        };
        assert!(refused(0, 9, &[0, 0, 0, 1, 0]).contains("no segments"));
        assert!(refused(15, 9, &[0, 14, 2, 2]).contains("14 segments"));
        assert!(refused(2, 9, &[0, 20, 0, 0, 1, 0]).contains("longer than the chunk"));
        assert!(refused(1, 9, &[0, 2, 0, 1, 0]).contains("of kind 2"));
        assert!(refused(1, 9, &[0, 0, 0, 0, 0]).contains("offsets"));
        assert!(refused(1, 9, &[0, 0, 2, 4, 0]).contains("offsets"));
        assert!(refused(1, 9, &[0, 0, 3, 1, 1]).contains("streams of 10 bytes"));
        let most = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(refused(1, 9, &[&[0, 0][..], &most, &[1], &most].concat()).contains("streams of 17179869180 bytes"));
        assert!(refused(1, 9, &[0xff; 12]).contains("skip is no number"));
        assert!(refused(1, 9, &[0xff, 0xff, 0xff, 0xff, 0x1f]).contains("skip is 8589934591"));
        // Millions of segments are refused before anything is kept of them.
        assert!(refused(15, 9, &[&[0][..], &most, &[0; 40]].concat()).contains("ends before"));
    }
}
