#![allow(clippy::cast_possible_truncation, reason = "test data are short")]

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

fn segment(len: usize, lz4: bool) -> Segment {
    Segment { len: len as u32, lz4 }
}

/// T, LO, HI, LE, LI.
type Owned = [Vec<u8>; 5];

fn owned(streams: &Streams<'_>) -> Owned {
    [streams.tokens, streams.low, streams.high, streams.lengths, streams.literals].map(<[u8]>::to_vec)
}

fn borrowed(owned: &Owned) -> Streams<'_> {
    let [tokens, low, high, lengths, literals] = owned;
    Streams { tokens, low, high, lengths, literals }
}

/// The definition, word by word.
fn split_by_definition(chunk: &[u8], skip: usize, segments: &[Segment]) -> Owned {
    let [mut t, mut lo, mut hi, mut le, mut li] = Owned::default();
    let mut bytes = chunk.iter().copied();
    let mut take = || bytes.next().unwrap();
    let mut skip = skip;
    for segment in segments {
        let mut r = segment.len as usize;
        let raw = if segment.lz4 { skip.min(r) } else { r };
        skip = skip.saturating_sub(raw);
        for _ in 0..raw {
            li.push(take());
        }
        r -= raw;
        while r > 0 {
            let token = take();
            t.push(token);
            r -= 1;
            let mut n = usize::from(token >> 4);
            if n == 15 {
                while r > 0 {
                    let x = take();
                    le.push(x);
                    r -= 1;
                    n += usize::from(x);
                    if x != 255 {
                        break;
                    }
                }
            }
            n = n.min(r);
            for _ in 0..n {
                li.push(take());
            }
            r -= n;
            if r == 0 {
                break;
            }
            if r == 1 {
                li.push(take());
                break;
            }
            lo.push(take());
            hi.push(take());
            r -= 2;
            if token & 15 == 15 {
                while r > 0 {
                    let x = take();
                    le.push(x);
                    r -= 1;
                    if x != 255 {
                        break;
                    }
                }
            }
        }
    }
    [t, lo, hi, le, li]
}

/// The streams are part of the repository format.
#[test]
fn streams_have_not_changed() {
    let mut chunk = vec![0xaa, 0xbb, 0x23, 0x01, 0x02, 0x10, 0x20, 0xf0, 0x01];
    chunk.extend_from_slice(&[9; 6]);
    let segments = [segment(chunk.len(), true)];
    let mut splitter = Splitter::default();
    let streams = splitter.split(&chunk, 2, &segments).unwrap();
    assert_eq!(streams.tokens, [0x23, 0xf0]);
    assert_eq!(streams.low, [0x10]);
    assert_eq!(streams.high, [0x20]);
    assert_eq!(streams.lengths, [0x01]);
    assert_eq!(streams.literals, [0xaa, 0xbb, 1, 2, 9, 9, 9, 9, 9, 9]);
    let mut merged = vec![0; chunk.len()];
    merge(&streams, 2, segments, &mut merged).unwrap();
    assert_eq!(merged, chunk);
}

#[test]
fn segments_that_do_not_fit_are_refused() {
    let mut splitter = Splitter::default();
    for segments in [vec![], vec![segment(4, true)], vec![segment(5, true), segment(1, false)]] {
        assert_eq!(splitter.split(b"12345", 0, &segments).unwrap_err().kind(), ErrorKind::Invalid);
        let owned = [vec![], vec![], vec![], vec![], b"12345".to_vec()];
        let error = merge(&borrowed(&owned), 9, segments, &mut [0; 5]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_stream_that_is_short_or_long_is_refused() {
    // Every stream is used: a sequence with all length bytes, then one of literals and half an offset.
    let mut chunk = vec![0xff, 0x02];
    chunk.extend_from_slice(&[7; 17]);
    chunk.extend_from_slice(&[0x34, 0x12, 0x05, 0x20, 8, 8, 0x56]);
    let segments = [segment(chunk.len(), true)];
    let mut splitter = Splitter::default();
    let whole = owned(&splitter.split(&chunk, 0, &segments).unwrap());
    let mut merged = vec![0; chunk.len()];
    for stream in 0..5 {
        let mut short = whole.clone();
        assert!(short[stream].pop().is_some(), "stream {stream} is in use");
        let error = merge(&borrowed(&short), 0, segments, &mut merged).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "stream {stream}");
        assert!(error.message().ends_with("run out"), "{error}");
        let mut long = whole.clone();
        long[stream].push(0);
        let error = merge(&borrowed(&long), 0, segments, &mut merged).unwrap_err();
        assert!(error.message().contains("left over"), "{error}");
    }
    merge(&borrowed(&whole), 0, segments, &mut merged).unwrap();
    assert_eq!(merged, chunk);
}

/// Bytes that make tokens of every shape likely.
fn lz4_like() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => any::<u8>(),
        2 => (0u8..16).prop_map(|n| n << 4),
        2 => (0u8..16).prop_map(|n| n << 4 | 15),
        1 => Just(255u8),
        2 => Just(0xf0u8),
    ];
    prop::collection::vec(byte, 0..700)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn split_is_as_defined_and_merge_undoes_it(
        chunk in lz4_like(),
        skip in prop_oneof![Just(0u32), 0u32..40, 0u32..1000, any::<u32>()],
        cuts in prop::collection::vec((0usize..300, any::<bool>()), 0..6),
        last in any::<bool>(),
    ) {
        let mut segments = Vec::new();
        let mut left = chunk.len();
        for (len, lz4) in cuts {
            let len = len.min(left);
            segments.push(segment(len, lz4));
            left -= len;
        }
        segments.push(segment(left, last));
        // What the buffers hold from the chunk before does not matter.
        let mut splitter = Splitter::default();
        splitter.split(&[0xf7; 900], 0, &[segment(900, true)]).unwrap();
        let streams = splitter.split(&chunk, skip, &segments).unwrap();
        prop_assert_eq!(owned(&streams), split_by_definition(&chunk, skip as usize, &segments));
        prop_assert_eq!(streams.low.len(), streams.high.len());
        let mut merged = vec![0xee; chunk.len()];
        merge(&streams, skip, segments, &mut merged).unwrap();
        prop_assert_eq!(merged, chunk);
    }

    #[test]
    fn streams_of_anything_never_panic(
        tokens in lz4_like(), low in lz4_like(), high in lz4_like(), lengths in lz4_like(), literals in lz4_like(),
        len in 0usize..3000,
        skip in 0u32..100,
    ) {
        let streams = Streams { tokens: &tokens, low: &low, high: &high, lengths: &lengths, literals: &literals };
        let mut chunk = vec![0; len];
        let segments = [segment(len, true)];
        if merge(&streams, skip, segments, &mut chunk).is_ok() {
            let mut splitter = Splitter::default();
            prop_assert_eq!(splitter.split(&chunk, skip, &segments).unwrap(), streams);
        }
    }
}
