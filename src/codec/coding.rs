//! A chunk's plain bytes to what a pack keeps of them, and back: the only home of zstd.
//!
//! Three methods: raw, one zstd frame, and `split`: the LZ4 data taken apart into streams that are compressed one by one.
//! The coding byte holds the method and, for `split`, how many segments there are; it and the plain length stand in the
//! record's header, the payload holds the rest. A reader keeps every method for ever (reference/tae-chunks.md,
//! "Definition").
//!
//! Deliberately absent: a test whether opaque bytes will compress before trying (zstd 1 gives up on noise quickly enough),
//! and a try of both methods on one chunk (gains 0.1 %).

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, ParamSwitch};

use crate::codec::Segment;
use crate::codec::header::{self, Header};
use crate::codec::split::{Splitter, Streams, grow, merge};
use crate::error::{Error, ErrorKind, Result};

/// No chunk is longer: a decoder allocates no more than this for one, whatever a record says.
pub(crate) const PLAIN_LEN_MAX: u32 = 64 << 20;

const RAW: u8 = 0;
const ZSTD: u8 = 1;
const SPLIT: u8 = 2;

/// For tokens and offset bytes, where matches are hardly worth a look.
const LEVEL_SPARSE: i32 = -7;
/// For length bytes and literals.
const LEVEL_DENSE: i32 = -1;

/// How hard zstd tries on bytes that nothing is known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(i32);

impl Level {
    /// From 1 to 19, or from -7 to -1 for more speed.
    pub(crate) fn new(level: i32) -> Result<Self> {
        match level {
            -7..=-1 | 1..=19 => Ok(Self(level)),
            _ => Err(Error::invalid(format!("compression level {level}: need 1 to 19, or -7 to -1"))),
        }
    }
}

impl Default for Level {
    fn default() -> Self {
        Self(1)
    }
}

/// What is known of a chunk. If it is wrong, that costs compression only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hint {
    /// How many leading bytes finish an LZ4 sequence begun before the chunk.
    pub(crate) skip: u32,
    /// What the chunk consists of. A hint whose segments do not add up to the chunk is ignored.
    pub(crate) segments: Vec<Segment>,
}

/// A coded chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoded<'a> {
    /// For the record's header.
    pub(crate) coding: u8,
    /// What the record holds. Never longer than the chunk.
    pub(crate) payload: &'a [u8],
}

/// Codes chunks. One per thread: it keeps its contexts and buffers, a few times the largest chunk.
pub(crate) struct Encoder {
    whole: CCtx<'static>,
    sparse: CCtx<'static>,
    dense: CCtx<'static>,
    splitter: Splitter,
    header: Vec<u8>,
    /// Where frames are written; its length is its capacity.
    payload: Vec<u8>,
}

impl Encoder {
    /// For bytes that nothing is known of, zstd works at `level`; the levels of split streams are fixed.
    pub(crate) fn new(level: Level) -> Result<Self> {
        let mut dense = compressor(LEVEL_DENSE)?;
        let mut sparse = compressor(LEVEL_SPARSE)?;
        for context in [&mut dense, &mut sparse] {
            // Negative levels leave literals as they are; Huffman is most of the gain here.
            set(context, CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
        }
        let whole = compressor(level.0)?;
        Ok(Self { whole, sparse, dense, splitter: Splitter::default(), header: Vec::new(), payload: Vec::new() })
    }

    /// Codes a chunk of at most [`PLAIN_LEN_MAX`] bytes. A chunk that does not become shorter stays raw.
    pub(crate) fn encode<'a>(&'a mut self, plain: &'a [u8], hint: Option<&Hint>) -> Encoded<'a> {
        debug_assert!(plain.len() <= PLAIN_LEN_MAX as usize, "chunks are shorter");
        let hint = hint.filter(|hint| hint.segments.iter().any(|segment| segment.lz4));
        let coded = hint.and_then(|hint| self.encode_split(plain, hint)).or_else(|| self.encode_whole(plain));
        match coded {
            Some((coding, len)) if len < plain.len() => Encoded { coding, payload: &self.payload[..len] },
            _ => Encoded { coding: RAW, payload: plain },
        }
    }

    /// `None` if zstd has no memory.
    fn encode_whole(&mut self, plain: &[u8]) -> Option<(u8, usize)> {
        grow(&mut self.payload, zstd_safe::compress_bound(plain.len()));
        let len = self.whole.compress2(&mut self.payload[..], plain).ok()?;
        Some((ZSTD, len))
    }

    /// `None` if the hint does not fit, or zstd has no memory.
    fn encode_split(&mut self, plain: &[u8], hint: &Hint) -> Option<(u8, usize)> {
        let Streams { tokens, low, high, lengths, literals } =
            self.splitter.split(plain, hint.skip, &hint.segments).ok()?;
        self.header.clear();
        let lens = [tokens.len(), low.len(), lengths.len()];
        let nibble = header::encode(hint.skip, &hint.segments, lens, &mut self.header);
        let streams = [tokens, low, high, lengths, literals];
        let bound: usize = streams.iter().map(|stream| zstd_safe::compress_bound(stream.len())).sum();
        let bound = self.header.len() + bound;
        grow(&mut self.payload, bound);
        let mut len = self.header.len();
        self.payload[..len].copy_from_slice(&self.header);
        for (i, stream) in streams.into_iter().enumerate().filter(|(_, stream)| !stream.is_empty()) {
            let context = if i < 3 { &mut self.sparse } else { &mut self.dense };
            len += context.compress2(&mut self.payload[len..], stream).ok()?;
        }
        Some((SPLIT | nibble << 4, len))
    }
}

fn compressor(level: i32) -> Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or_else(no_memory)?;
    set(&mut context, CParameter::CompressionLevel(level))?;
    set(&mut context, CParameter::ContentSizeFlag(true))?;
    set(&mut context, CParameter::ChecksumFlag(false))?;
    Ok(context)
}

fn set(context: &mut CCtx<'static>, parameter: CParameter) -> Result<()> {
    context.set_parameter(parameter).map(drop).map_err(|code| {
        let name = zstd_safe::get_error_name(code);
        Error::new(ErrorKind::Unsupported, format!("set up zstd: {parameter:?}: {name}"))
    })
}

fn no_memory() -> Error {
    Error::new(ErrorKind::Unavailable, "set up zstd: no memory")
}

/// Decodes chunks. One per thread: it keeps its context, and a buffer as long as the largest split chunk.
pub(crate) struct Decoder {
    context: DCtx<'static>,
    streams: Vec<u8>,
}

impl Decoder {
    /// A decoder for all methods.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { context: DCtx::try_create().ok_or_else(no_memory)?, streams: Vec::new() })
    }

    /// Replaces what `plain` holds by the chunk: exactly `plain_len` bytes, or none if it fails.
    ///
    /// Nothing is believed, and at most `plain_len` bytes are allocated twice. Whether it is the right chunk, only its id
    /// tells.
    ///
    /// # Errors
    /// `Unsupported` for a method of a newer release, `Corrupt` for anything else that was not written by an encoder.
    pub(crate) fn decode_into(
        &mut self,
        coding: u8,
        payload: &[u8],
        plain_len: u32,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        let decoded = self.decode(coding, payload, plain_len, plain);
        if decoded.is_err() {
            plain.clear();
        }
        decoded
    }

    fn decode(&mut self, coding: u8, payload: &[u8], plain_len: u32, plain: &mut Vec<u8>) -> Result<()> {
        let (method, nibble) = (coding & 15, coding >> 4);
        if method > SPLIT {
            let message = format!("decode chunk: coding method {method} is not known");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if plain_len > PLAIN_LEN_MAX {
            return Err(Error::corrupt(format!("decode chunk: length {plain_len}, limit {PLAIN_LEN_MAX}")));
        }
        if method == SPLIT {
            return self.decode_split(nibble, payload, plain_len, plain);
        }
        if nibble != 0 {
            return Err(Error::corrupt(format!("decode chunk: {nibble} segments with method {method}")));
        }
        if method == RAW {
            if payload.len() != plain_len as usize {
                let message = format!("decode chunk: {} raw bytes instead of {plain_len}", payload.len());
                return Err(Error::corrupt(message));
            }
            plain.clear();
            plain.extend_from_slice(payload);
            return Ok(());
        }
        check_frame(payload, plain_len as usize)?;
        plain.resize(plain_len as usize, 0);
        let rest = self.decode_frame(payload, plain)?;
        expect_end(rest)
    }

    fn decode_split(&mut self, nibble: u8, payload: &[u8], plain_len: u32, plain: &mut Vec<u8>) -> Result<()> {
        let (header, frames) = Header::decode(nibble, plain_len, payload)?;
        // All frames are there and state the right lengths: only now is memory spent on them.
        let mut rest = frames;
        for &len in header.streams.iter().filter(|&&len| len > 0) {
            rest = &rest[check_frame(rest, len)?..];
        }
        expect_end(rest)?;
        grow(&mut self.streams, plain_len as usize);
        let mut buffer = std::mem::take(&mut self.streams);
        let decoded = self.decode_streams(frames, &header, &mut buffer);
        let merged = decoded.and_then(|streams| {
            plain.resize(plain_len as usize, 0);
            merge(&streams, header.skip, header.segments, plain)
        });
        self.streams = buffer;
        merged
    }

    fn decode_streams<'a>(&mut self, frames: &[u8], header: &Header<'_>, buffer: &'a mut [u8]) -> Result<Streams<'a>> {
        let (mut rest, mut free) = (frames, buffer);
        let mut streams: [&[u8]; 5] = [&[]; 5];
        for (stream, &len) in streams.iter_mut().zip(&header.streams).filter(|&(_, &len)| len > 0) {
            let (decoded, behind) = free.split_at_mut(len);
            rest = self.decode_frame(rest, decoded)?;
            *stream = decoded;
            free = behind;
        }
        let [tokens, low, high, lengths, literals] = streams;
        Ok(Streams { tokens, low, high, lengths, literals })
    }

    /// Decodes the frame in front of `frames`, which must fill `plain`. Returns what follows it.
    fn decode_frame<'a>(&mut self, frames: &'a [u8], plain: &mut [u8]) -> Result<&'a [u8]> {
        let (frame, rest) = frames.split_at(check_frame(frames, plain.len())?);
        match self.context.decompress(plain, frame) {
            Ok(len) if len == plain.len() => Ok(rest),
            Ok(len) => {
                Err(Error::corrupt(format!("decode chunk: zstd frame of {len} bytes instead of {}", plain.len())))
            }
            Err(code) => Err(zstd_fault(code)),
        }
    }
}

/// Proves that a frame stands in front of `frames` and states this length. Returns how long the frame is.
fn check_frame(frames: &[u8], plain_len: usize) -> Result<usize> {
    let stated = zstd_safe::get_frame_content_size(frames).ok().flatten();
    if stated != Some(plain_len as u64) {
        let stated = stated.map_or("no length".to_owned(), |stated| format!("{stated} bytes"));
        return Err(Error::corrupt(format!("decode chunk: zstd frame states {stated} instead of {plain_len}")));
    }
    let len = zstd_safe::find_frame_compressed_size(frames).map_err(zstd_fault)?;
    if len > frames.len() {
        return Err(Error::corrupt("decode chunk: zstd frame is cut short"));
    }
    Ok(len)
}

fn expect_end(rest: &[u8]) -> Result<()> {
    match rest.len() {
        0 => Ok(()),
        len => Err(Error::corrupt(format!("decode chunk: {len} bytes behind the last zstd frame"))),
    }
}

#[cold]
fn zstd_fault(code: usize) -> Error {
    Error::corrupt(format!("decode chunk: zstd: {}", zstd_safe::get_error_name(code)))
}

#[cfg(test)]
mod tests;
