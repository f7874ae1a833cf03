#![allow(clippy::cast_possible_truncation, reason = "test data are short")]

use proptest::prelude::*;

use super::*;
use crate::codec::gear::splitmix_bytes;
use crate::codec::{CutParameters, Gear, Lz4Walker, SegmentCursor};

fn segment(len: usize, lz4: bool) -> Segment {
    Segment { len: len as u32, lz4 }
}

fn decode(coding: u8, payload: &[u8], plain_len: usize) -> Result<Vec<u8>> {
    let mut plain = vec![0xee; 77];
    let decoded = Decoder::new().unwrap().decode_into(coding, payload, plain_len as u32, &mut plain);
    assert!(decoded.is_ok() || plain.is_empty(), "a failure leaves nothing behind");
    decoded.map(|()| plain)
}

fn encode(plain: &[u8], hint: Option<&Hint>) -> (u8, Vec<u8>) {
    let mut encoder = Encoder::new(Level::default()).unwrap();
    let encoded = encoder.encode(plain, hint);
    (encoded.coding, encoded.payload.to_vec())
}

/// An LZ4 block with some of everything.
fn block(seed: u64, len: usize) -> Vec<u8> {
    let noise = splitmix_bytes(seed, len);
    let mut plain = Vec::new();
    for (i, word) in noise.chunks(8).enumerate() {
        plain.extend_from_slice(&(i as u64 * 11).to_le_bytes());
        plain.extend_from_slice(if i % 5 == 0 { word } else { &word[..1] });
    }
    lz4_flex::block::compress(&plain)
}

fn lz4_hint(len: usize) -> Hint {
    Hint { skip: 0, segments: vec![segment(len, true)] }
}

/// These bytes are on people's disks, and must decode for ever. Re-coding may give other ones: that is zstd's business.
#[test]
fn stored_records_of_every_method_decode() {
    assert_eq!(decode(0, b"abc", 3).unwrap(), b"abc");
    // Frames of one raw block each: magic, single segment and 1-byte content size, last block, bytes.
    let raw = |bytes: &[u8]| {
        let len = bytes.len() as u8;
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, len];
        frame.extend_from_slice(&[len << 3 | 1, len >> 5, 0]);
        frame.extend_from_slice(bytes);
        frame
    };
    assert_eq!(decode(1, &raw(b"hello"), 5).unwrap(), b"hello");
    let mut chunk = vec![0xaa, 0xbb, 0x23, 0x01, 0x02, 0x10, 0x20, 0xf0, 0x01];
    chunk.extend_from_slice(&[9; 6]);
    let literals = [0xaa, 0xbb, 1, 2, 9, 9, 9, 9, 9, 9];
    let streams = [raw(&[0x23, 0xf0]), raw(&[0x10]), raw(&[0x20]), raw(&[0x01]), raw(&literals)].concat();
    let payload = [&[2, 0, 2, 2, 1][..], &streams].concat();
    assert_eq!(decode(0x12, &payload, 15).unwrap(), chunk);
    let mut two = payload.clone();
    two.splice(1..2, [2 << 1 | 1, 0]);
    two[0] = 0;
    assert_eq!(decode(0x22, &two, 15).unwrap(), chunk, "the raw head as a segment of its own");
}

#[test]
fn lz4_data_takes_split_and_the_rest_zstd_or_raw() {
    let block = block(1, 60_000);
    let (coding, payload) = encode(&block, Some(&lz4_hint(block.len())));
    assert_eq!(coding, 0x12);
    let (whole, whole_payload) = encode(&block, None);
    assert_eq!(whole, 1);
    assert!(payload.len() < whole_payload.len(), "{} {}", payload.len(), whole_payload.len());
    assert_eq!(decode(coding, &payload, block.len()).unwrap(), block);
    assert_eq!(decode(whole, &whole_payload, block.len()).unwrap(), block);
    let opaque = Hint { skip: 0, segments: vec![segment(block.len(), false)] };
    assert_eq!(encode(&block, Some(&opaque)), (1, whole_payload.clone()));
    // A hint that does not fit is no hint.
    assert_eq!(encode(&block, Some(&lz4_hint(block.len() + 1))), (1, whole_payload));
    let noise = splitmix_bytes(1, 5000);
    assert_eq!(encode(&noise, None), (0, noise.clone()));
    assert_eq!(encode(&noise, Some(&lz4_hint(5000))), (0, noise));
    assert_eq!(encode(&[], None), (0, vec![]));
    assert_eq!(decode(0, &[], 0).unwrap(), b"");
}

#[test]
fn the_number_of_segments_is_in_the_coding_byte() {
    let block = block(2, 20_000);
    for count in [1usize, 2, 14, 15, 16, 200] {
        let mut segments = vec![segment(3, false); count - 1];
        segments.push(segment(block.len() - 3 * (count - 1), true));
        let (coding, payload) = encode(&block, Some(&Hint { skip: 9, segments }));
        assert_eq!(coding, 2 | (count.min(15) as u8) << 4);
        assert_eq!(decode(coding, &payload, block.len()).unwrap(), block);
    }
}

#[test]
fn frames_are_as_defined() {
    let block = block(3, 60_000);
    let (_, payload) = encode(&block, Some(&lz4_hint(block.len())));
    let (header, frames) = Header::decode(1, block.len() as u32, &payload).unwrap();
    let mut rest = frames;
    for len in header.streams.into_iter().filter(|&len| len > 0) {
        // Descriptor: bit 2 is a checksum, bit 5 a single segment (so the size is there), low bits a dictionary.
        assert_eq!(rest[..4], [0x28, 0xb5, 0x2f, 0xfd]);
        assert_eq!(rest[4] & 0b0010_0111, 0b0010_0000);
        rest = &rest[check_frame(rest, len).unwrap()..];
    }
    assert!(rest.is_empty());
    // Tokens are noise to a match finder: only forced Huffman makes them shorter.
    let [tokens, ..] = header.streams;
    assert!(check_frame(frames, tokens).unwrap() < tokens * 9 / 10);
}

#[test]
fn what_is_unknown_or_too_long_is_named() {
    let error = decode(0x13, b"abc", 3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("method 3"), "{error}");
    assert_eq!(decode(0x1f, b"abc", 3).unwrap_err().kind(), ErrorKind::Unsupported);
    for (coding, payload, plain_len) in [
        (0, &b"abc"[..], 2),
        (0, b"abc", 4),
        (0x10, b"abc", 3),
        (0x11, b"abc", 3),
        (1, b"abc", 3),
        (1, b"", 3),
        (2, b"", 0),
        (0x12, b"", 0),
        (0, b"", PLAIN_LEN_MAX as usize + 1),
        (1, b"", u32::MAX as usize),
    ] {
        let error = decode(coding, payload, plain_len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{coding} {payload:?} {plain_len}: {error}");
    }
}

#[test]
fn every_truncation_and_every_addition_is_corrupt() {
    let block = block(4, 4000);
    for hint in [None, Some(lz4_hint(block.len()))] {
        let (coding, mut payload) = encode(&block, hint.as_ref());
        assert_ne!(coding, 0);
        for len in 0..payload.len() {
            assert_eq!(decode(coding, &payload[..len], block.len()).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        assert!(decode(coding, &payload, block.len() - 1).is_err());
        assert!(decode(coding, &payload, block.len() + 1).is_err());
        payload.push(0);
        assert!(decode(coding, &payload, block.len()).unwrap_err().message().contains("1 bytes behind"));
        // A skippable frame is garbage as well.
        payload.pop();
        payload.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
        assert!(decode(coding, &payload, block.len()).is_err());
    }
}

#[test]
fn levels_are_checked() {
    for level in [-8, 0, 20, 22, i32::MIN] {
        assert_eq!(Level::new(level).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let block = block(5, 30_000);
    let mut lens = Vec::new();
    for level in [-7, 1, 9, 19] {
        let mut encoder = Encoder::new(Level::new(level).unwrap()).unwrap();
        let encoded = encoder.encode(&block, None);
        assert_eq!(decode(encoded.coding, encoded.payload, block.len()).unwrap(), block);
        lens.push(encoded.payload.len());
    }
    assert!(lens[0] > lens[1] && lens[1] > lens[3], "{lens:?}");
}

/// The whole way of a TAE region: walk, cut, clip, encode, decode, rejoin; with contexts and buffers used again.
#[test]
fn a_region_goes_there_and_back() {
    let blocks: Vec<_> = (0..6).map(|i| block(i, [300, 90_000, 700, 900, 200_000, 50_000][i as usize])).collect();
    let region = blocks.concat();
    let segments: Vec<_> = blocks.iter().map(|block| segment(block.len(), true)).collect();
    let gear = Gear::new(CutParameters::new(4096).unwrap());
    let (mut encoder, mut decoder) = (Encoder::new(Level::default()).unwrap(), Decoder::new().unwrap());
    let (mut hint, mut plain, mut cursor) = (Hint::default(), Vec::new(), SegmentCursor::new(&segments));
    let (mut rejoined, mut at, mut stored) = (Vec::new(), 0, 0);
    for unit_len in crate::codec::units(&segments) {
        let unit = &region[at..at + unit_len as usize];
        at += unit.len();
        let alone = blocks.iter().any(|block| block == unit);
        let mut walker = Lz4Walker::new(unit.len() as u32, 0);
        let mut rest = unit;
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(gear.next_cut(rest));
            hint.skip = if alone { walker.feed(chunk) } else { 0 };
            cursor.take(chunk.len() as u32, &mut hint.segments);
            let encoded = encoder.encode(chunk, Some(&hint));
            stored += encoded.payload.len();
            decoder.decode_into(encoded.coding, encoded.payload, chunk.len() as u32, &mut plain).unwrap();
            rejoined.extend_from_slice(&plain);
            rest = behind;
        }
    }
    assert!(rejoined == region);
    assert!(stored < region.len() * 8 / 10, "{stored} of {}", region.len());
}

fn mixed(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = block(seed, len);
    bytes.extend_from_slice(&splitmix_bytes(seed, len / 8));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_chunk_comes_back(
        seed in any::<u64>(),
        len in 0usize..3000,
        skip in prop_oneof![Just(0u32), 0u32..300, any::<u32>()],
        cuts in prop::collection::vec((0usize..500, any::<bool>()), 0..20),
        level in prop_oneof![-7i32..0, 1i32..5],
    ) {
        let plain = mixed(seed, len);
        let mut segments = Vec::new();
        let mut left = plain.len();
        for (len, lz4) in cuts {
            segments.push(segment(len.min(left), lz4));
            left -= len.min(left);
        }
        segments.push(segment(left, true));
        let mut encoder = Encoder::new(Level::new(level).unwrap()).unwrap();
        for hint in [None, Some(&Hint { skip, segments })] {
            let encoded = encoder.encode(&plain, hint);
            prop_assert!(encoded.payload.len() <= plain.len());
            prop_assert_eq!(decode(encoded.coding, encoded.payload, plain.len()).unwrap(), &plain[..]);
        }
    }

    #[test]
    fn damaged_records_fail_or_give_the_stated_length(
        seed in any::<u64>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        near_front in any::<bool>(),
        coding in prop_oneof![3 => Just(None), 1 => any::<u8>().prop_map(Some)],
    ) {
        let plain = mixed(seed, 1500);
        let (honest, mut payload) = encode(&plain, Some(&lz4_hint(plain.len())));
        for (at, byte) in edits {
            let at = if near_front { at.index(24.min(payload.len())) } else { at.index(payload.len()) };
            payload[at] = byte;
        }
        if let Ok(decoded) = decode(coding.unwrap_or(honest), &payload, plain.len()) {
            prop_assert_eq!(decoded.len(), plain.len());
        }
    }

    #[test]
    fn any_bytes_are_refused_calmly(
        coding in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        plain_len in prop_oneof![0usize..300, any::<u32>().prop_map(|len| len as usize)],
    ) {
        if let Ok(decoded) = decode(coding, &payload, plain_len) {
            prop_assert_eq!(decoded.len(), plain_len);
        }
    }
}
