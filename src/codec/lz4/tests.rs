#![allow(clippy::cast_possible_truncation, reason = "test data are short")]

use proptest::prelude::*;

use super::*;
use crate::codec::gear::splitmix_bytes;

/// Where sequences begin, by the definition; the end of the block is the last entry.
fn sequence_starts(block: &[u8]) -> Vec<usize> {
    let (mut starts, mut pos, end) = (Vec::new(), 0, block.len());
    while pos < end {
        starts.push(pos);
        let token = block[pos];
        pos += 1;
        let mut literals = usize::from(token >> 4);
        if literals == 15 {
            loop {
                let x = block[pos];
                pos += 1;
                literals += usize::from(x);
                if x != 255 {
                    break;
                }
            }
        }
        pos += literals.min(end - pos);
        if pos == end {
            break;
        }
        pos += 2;
        if token & 15 == 15 {
            loop {
                let x = block[pos];
                pos += 1;
                if x != 255 {
                    break;
                }
            }
        }
    }
    starts.push(end);
    starts
}

/// `skip` of the chunk `[start, end)`, by the definition.
fn skip_by_definition(starts: &[usize], start: usize, end: usize) -> usize {
    let next = starts.iter().copied().find(|&next| next >= start).unwrap_or(start);
    (next - start).min(end - start)
}

fn walk(block: &[u8], plain_len: usize) -> Result<(), Lz4Fault> {
    let mut walker = Lz4Walker::new(block.len() as u32, plain_len as u32);
    assert_eq!(walker.feed(block), 0);
    walker.finish()
}

/// Columns of a table, more or less: numbers that climb, names that repeat, noise.
fn plain(seed: u64, len: usize) -> Vec<u8> {
    let noise = splitmix_bytes(seed, len / 4 + 16);
    let mut plain = Vec::with_capacity(len + 64);
    let mut i = 0usize;
    while plain.len() < len {
        plain.extend_from_slice(&(1_000_000 + i as u64 * 3).to_le_bytes());
        plain.extend_from_slice([&b"customer "[..], b"order ", b"line item "][i % 3]);
        if i.is_multiple_of(37) {
            plain.extend_from_slice(&noise[i % noise.len()..(i % noise.len() + i % 400).min(noise.len())]);
        }
        if i.is_multiple_of(101) {
            plain.resize(plain.len() + i * 7 % 3000, b'x');
        }
        i += 1;
    }
    plain.truncate(len);
    plain
}

#[test]
fn skip_is_right_at_every_pair_of_cuts() {
    let plain = plain(5, 9000);
    let block = lz4_flex::block::compress(&plain);
    let starts = sequence_starts(&block);
    assert!(block.len() > 1000 && starts.len() > 50, "a block worth walking");
    for first in 0..=block.len() {
        let second = first + (first * 31 % 97).min(block.len() - first);
        let mut walker = Lz4Walker::new(block.len() as u32, plain.len() as u32);
        for (start, end) in [(0, first), (first, second), (second, block.len())] {
            let skip = walker.feed(&block[start..end]) as usize;
            assert_eq!(skip, skip_by_definition(&starts, start, end), "[{start}, {end})");
        }
        assert_eq!(walker.finish(), Ok(()));
    }
    let mut walker = Lz4Walker::new(block.len() as u32, plain.len() as u32);
    for at in 0..block.len() {
        assert_eq!(walker.feed(&block[at..=at]) as usize, skip_by_definition(&starts, at, at + 1));
    }
    assert_eq!(walker.finish(), Ok(()));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let fault = |block: &[u8], plain_len| walk(block, plain_len).unwrap_err();
    assert_eq!(walk(&[0x00], 0), Ok(()));
    assert_eq!(walk(&[0x10, b'a'], 1), Ok(()));
    assert_eq!(walk(&[0x13, b'a', 1, 0, 0x00], 8), Ok(()));
    assert_eq!(fault(&[], 0), Lz4Fault { at: 0, kind: Lz4FaultKind::End });
    assert_eq!(fault(&[0x10, b'a', 1, 0], 5), Lz4Fault { at: 4, kind: Lz4FaultKind::End });
    let offset = |offset, plain| Lz4FaultKind::Offset { offset, plain };
    assert_eq!(fault(&[0x10, b'a', 0, 0, 0], 5), Lz4Fault { at: 2, kind: offset(0, 1) });
    assert_eq!(fault(&[0x10, b'a', 2, 0, 0], 5), Lz4Fault { at: 2, kind: offset(2, 1) });
    assert_eq!(fault(&[0x00, 1, 0, 0], 4), Lz4Fault { at: 1, kind: offset(1, 0) });
    assert_eq!(fault(&[0x10, b'a'], 2), Lz4Fault { at: 2, kind: Lz4FaultKind::PlainLen { plain: 1, stated: 2 } });
    assert_eq!(fault(&[0x20, b'a'], 2), Lz4Fault { at: 1, kind: Lz4FaultKind::Literals { stated: 2, left: 1 } });
    let long = [0xf0, 255, 255, 0, 1];
    assert_eq!(fault(&long, 2), Lz4Fault { at: 4, kind: Lz4FaultKind::Literals { stated: 525, left: 1 } });
    let text = fault(&[0x10, b'a', 2, 0, 0], 5).to_string();
    assert_eq!(text, "LZ4 block, byte 2: offset 2 with 1 bytes before it");
}

#[test]
fn too_many_and_too_few_bytes_are_faults() {
    let mut walker = Lz4Walker::new(2, 1);
    assert_eq!(walker.feed(&[0x10, b'a', b'b']), 0);
    assert_eq!(walker.finish().unwrap_err().kind, Lz4FaultKind::StoredLen { stated: 2 });
    let mut walker = Lz4Walker::new(2, 1);
    assert_eq!(walker.feed(&[0x10]), 0);
    assert_eq!(walker.clone().finish().unwrap_err(), Lz4Fault { at: 1, kind: Lz4FaultKind::StoredLen { stated: 2 } });
    assert_eq!(walker.feed(b"a"), 1);
    assert_eq!(walker.finish(), Ok(()));
}

#[test]
fn every_truncation_is_a_fault() {
    let plain = plain(9, 3000);
    let block = lz4_flex::block::compress(&plain);
    for len in 0..block.len() {
        assert!(walk(&block[..len], plain.len()).is_err(), "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn blocks_of_an_encoder_are_sound(
        seed in any::<u64>(),
        len in 0usize..20_000,
        cuts in prop::collection::vec(1usize..3000, 0..10),
    ) {
        let plain = plain(seed, len);
        let block = lz4_flex::block::compress(&plain);
        let starts = sequence_starts(&block);
        let mut walker = Lz4Walker::new(block.len() as u32, len as u32);
        let mut start = 0;
        for cut in cuts.into_iter().chain([block.len()]) {
            let end = (start + cut).min(block.len());
            prop_assert_eq!(walker.feed(&block[start..end]) as usize, skip_by_definition(&starts, start, end));
            start = end;
        }
        prop_assert_eq!(walker.finish(), Ok(()));
        prop_assert!(walk(&block, len + 1).is_err());
    }

    /// The walk accepts what decodes to the stated length, and nothing else.
    #[test]
    fn the_verdict_is_that_of_a_decoder(
        seed in any::<u64>(),
        len in 1usize..2000,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut block = lz4_flex::block::compress(&plain(seed, len));
        for (at, byte) in edits {
            let at = at.index(block.len());
            block[at] = byte;
        }
        let mut out = vec![0; len];
        let decodes = lz4_flex::block::decompress_into(&block, &mut out).is_ok_and(|written| written == len);
        let mut walker = Lz4Walker::new(block.len() as u32, len as u32);
        let (head, tail) = block.split_at(cut.index(block.len()));
        walker.feed(head);
        walker.feed(tail);
        let pieces = walker.finish();
        prop_assert_eq!(pieces, walk(&block, len));
        prop_assert_eq!(pieces.is_ok(), decodes, "{:?}", pieces);
    }

    #[test]
    fn any_bytes_get_a_verdict(block in prop::collection::vec(any::<u8>(), 0..300), plain_len in 0usize..2000) {
        let mut bytewise = Lz4Walker::new(block.len() as u32, plain_len as u32);
        for byte in &block {
            bytewise.feed(std::slice::from_ref(byte));
        }
        prop_assert_eq!(bytewise.finish(), walk(&block, plain_len));
    }
}
