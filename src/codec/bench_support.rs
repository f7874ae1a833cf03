//! What benches/codec.rs may see of this module. Not an interface: it changes without notice.

use crate::codec::coding::{Decoder, Encoder, Hint, Level};
use crate::codec::split::{Splitter, merge};
use crate::codec::{CutParameters, Cutter, FastCdc, FastCdcParameters, Gear, Lz4Walker, Segment, chunk_id};
use crate::error::{Error, Result};

/// A coded chunk with what decoding it needs.
#[derive(Clone, Debug)]
pub struct Record {
    /// The coding byte.
    pub coding: u8,
    /// What a pack would keep.
    pub payload: Vec<u8>,
    /// How long the chunk is.
    pub plain_len: u32,
}

/// A chunk of one LZ4 segment.
#[derive(Clone, Copy, Debug)]
pub struct Lz4Chunk<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// How many of them finish a sequence begun before.
    pub skip: u32,
}

impl Lz4Chunk<'_> {
    fn segments(&self) -> Result<[Segment; 1]> {
        let len = u32::try_from(self.bytes.len()).map_err(|_| Error::invalid("chunk is longer than 4 GiB"))?;
        Ok([Segment { len, lz4: true }])
    }
}

/// Cuts a unit as TAE objects are cut; chunk lengths.
pub fn cut_gear(unit: &[u8], average: u32) -> Result<Vec<usize>> {
    Ok(cut(unit, &Cutter::Gear(Gear::new(CutParameters::new(average)?))))
}

/// Cuts a file that nothing is known of; chunk lengths.
pub fn cut_fast_cdc(file: &[u8]) -> Vec<usize> {
    cut(file, &Cutter::FastCdc(FastCdc::new(FastCdcParameters::default())))
}

fn cut(mut rest: &[u8], cutter: &Cutter) -> Vec<usize> {
    let mut lens = Vec::new();
    while !rest.is_empty() {
        let len = cutter.next_cut(rest);
        lens.push(len);
        rest = &rest[len..];
    }
    lens
}

/// Names a chunk; the first byte of the name.
pub fn hash(chunk: &[u8]) -> u8 {
    chunk_id(chunk).as_bytes()[0]
}

/// Walks one block in chunks of these lengths; what each has to skip.
pub fn walk(block: &[u8], plain_len: u32, chunk_lens: &[usize]) -> Result<Vec<u32>> {
    let stored_len = u32::try_from(block.len()).map_err(|_| Error::invalid("block is longer than 4 GiB"))?;
    let mut walker = Lz4Walker::new(stored_len, plain_len);
    let (mut skips, mut rest) = (Vec::with_capacity(chunk_lens.len()), block);
    for &len in chunk_lens {
        let (chunk, behind) = rest.split_at(len.min(rest.len()));
        skips.push(walker.feed(chunk));
        rest = behind;
    }
    walker.finish().map_err(|fault| Error::corrupt(fault.to_string()))?;
    Ok(skips)
}

/// Everything that is kept between chunks.
pub struct Coder {
    encoder: Encoder,
    decoder: Decoder,
    splitter: Splitter,
    hint: Hint,
    plain: Vec<u8>,
}

impl Coder {
    /// At the default level.
    pub fn new() -> Result<Self> {
        let (encoder, decoder) = (Encoder::new(Level::default())?, Decoder::new()?);
        Ok(Self { encoder, decoder, splitter: Splitter::default(), hint: Hint::default(), plain: Vec::new() })
    }

    /// Splits; how many tokens there are.
    pub fn split(&mut self, chunk: Lz4Chunk<'_>) -> Result<usize> {
        Ok(self.splitter.split(chunk.bytes, chunk.skip, &chunk.segments()?)?.tokens.len())
    }

    /// Splits and merges; the difference to [`split`](Self::split) is what merging costs.
    pub fn split_and_merge(&mut self, chunk: Lz4Chunk<'_>) -> Result<()> {
        let segments = chunk.segments()?;
        let streams = self.splitter.split(chunk.bytes, chunk.skip, &segments)?;
        self.plain.resize(chunk.bytes.len(), 0);
        merge(&streams, chunk.skip, segments, &mut self.plain)
    }

    /// Codes a chunk as LZ4 data.
    pub fn encode_split(&mut self, chunk: Lz4Chunk<'_>) -> Result<(u8, &[u8])> {
        self.hint.skip = chunk.skip;
        self.hint.segments.clear();
        self.hint.segments.extend(chunk.segments()?);
        self.plain.clear();
        self.plain.extend_from_slice(chunk.bytes);
        let encoded = self.encoder.encode(&self.plain, Some(&self.hint));
        Ok((encoded.coding, encoded.payload))
    }

    /// Codes a chunk that nothing is known of.
    pub fn encode_opaque<'a>(&'a mut self, chunk: &'a [u8]) -> (u8, &'a [u8]) {
        let encoded = self.encoder.encode(chunk, None);
        (encoded.coding, encoded.payload)
    }

    /// Decodes a chunk; how long it is.
    pub fn decode(&mut self, record: &Record) -> Result<usize> {
        self.decoder.decode_into(record.coding, &record.payload, record.plain_len, &mut self.plain)?;
        Ok(self.plain.len())
    }
}
