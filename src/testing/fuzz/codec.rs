//! Targets of cutting, coding and walking.

use std::cell::RefCell;

use super::{Choices, accepted, len_u32};
use crate::codec::{
    CutParameters, Cutter, Decoder, Encoder, FastCdc, FastCdcParameters, Gear, Hint, Level, Lz4Walker, Segment,
    SegmentCursor, units,
};

/// Longest chunk that is asked for here: decoders allocate what a record states.
const PLAIN_LEN_MAX: u32 = 1 << 20;

struct Coders {
    encoder: Encoder,
    decoder: Decoder,
    plain: Vec<u8>,
}

/// Coders are kept between inputs, as they are between chunks: what one leaves behind must not change the next.
fn with_coders<T>(run: impl FnOnce(&mut Coders) -> T) -> T {
    thread_local! {
        static CODERS: RefCell<Option<Coders>> = const { RefCell::new(None) };
    }
    CODERS.with_borrow_mut(|coders| {
        run(coders.get_or_insert_with(|| Coders {
            encoder: Encoder::new(Level::default()).expect("zstd has memory"),
            decoder: Decoder::new().expect("zstd has memory"),
            plain: Vec::new(),
        }))
    })
}

/// Coding byte, plain length, payload: gives exactly that length or nothing.
pub fn codec_decode(bytes: &[u8]) -> bool {
    let mut choices = Choices(bytes);
    let coding = choices.byte();
    let plain_len = choices.u32() % PLAIN_LEN_MAX;
    let payload = choices.0;
    with_coders(|coders| {
        let Coders { encoder, decoder, plain } = coders;
        let Some(()) = accepted(decoder.decode_into(coding, payload, plain_len, plain)) else {
            assert!(plain.is_empty(), "nothing is left of a chunk that failed");
            return false;
        };
        assert_eq!(plain.len(), plain_len as usize);
        let encoded = encoder.encode(plain, None);
        let mut again = Vec::new();
        let decoded = decoder.decode_into(encoded.coding, encoded.payload, plain_len, &mut again);
        decoded.expect("what was encoded decodes");
        assert!(again == *plain, "encoded and decoded");
        true
    })
}

/// Any hint on any bytes: nothing is lost.
///
/// Input: number of segments; for each, length in the low 15 bits and whether it is LZ4; bytes to skip, plain bytes.
pub fn codec_split(bytes: &[u8]) -> bool {
    let mut choices = Choices(bytes);
    let count = choices.byte() % 32;
    let mut segments: Vec<Segment> = (0..count)
        .map(|_| {
            let field = u16::from_le_bytes([choices.byte(), choices.byte()]);
            Segment { len: u32::from(field & 0x7fff), lz4: field & 0x8000 != 0 }
        })
        .collect();
    let skip = u16::from_le_bytes([choices.byte(), choices.byte()]);
    let plain = choices.0;
    let mut any = round_trip(plain, &Hint { skip: skip.into(), segments: segments.clone() });
    // The same with segments that add up, of which the encoder takes more.
    let mut left = len_u32(plain.len());
    for segment in &mut segments {
        segment.len = segment.len.min(left);
        left -= segment.len;
    }
    if let Some(last) = segments.last_mut() {
        last.len += left;
    }
    let skip = u32::from(skip) % len_u32(plain.len() + 1);
    any |= round_trip(plain, &Hint { skip, segments });
    any
}

/// True if the chunk was split.
fn round_trip(plain: &[u8], hint: &Hint) -> bool {
    with_coders(|coders| {
        let Coders { encoder, decoder, plain: decoded } = coders;
        let encoded = encoder.encode(plain, Some(hint));
        assert!(encoded.payload.len() <= plain.len(), "a coded chunk is never longer");
        let result = decoder.decode_into(encoded.coding, encoded.payload, len_u32(plain.len()), decoded);
        result.expect("what was encoded decodes");
        assert!(decoded == plain, "encoded as {:#04x} with {hint:?} and decoded", encoded.coding);
        encoded.coding & 15 == 2
    })
}

/// Chunks add up, are as long as they may be, and depend on nothing but what follows.
///
/// Input: which cutter, how often the rest is repeated with a change, the rest.
pub fn codec_cut(bytes: &[u8]) -> bool {
    let mut choices = Choices(bytes);
    let cutter = cutter(choices.byte());
    let last = choices.byte();
    let salt = choices.byte();
    let mut unit = Vec::new();
    for repeat in 0..=last {
        let change = salt.wrapping_mul(repeat);
        unit.extend(choices.0.iter().map(|byte| byte ^ change));
        if unit.len() > 256 << 10 {
            break;
        }
    }
    let (most, mut at) = (cutter.most() as usize, 0);
    let mut cuts = Vec::new();
    while at < unit.len() {
        let rest = &unit[at..];
        let len = cutter.next_cut(rest);
        assert!((1..=most).contains(&len) && len <= rest.len(), "{len} of {} bytes", rest.len());
        let needed = &rest[..rest.len().min(most)];
        assert_eq!(cutter.next_cut(needed), len, "what lies behind the longest chunk does not matter");
        let elsewhere = [&[salt; 3][..], needed].concat();
        assert_eq!(cutter.next_cut(&elsewhere[3..]), len, "where it lies does not matter");
        at += len;
        cuts.push(len_u32(len));
    }
    assert_eq!(cutter.next_cut(&[]), 0);
    check_units(&mut choices, &cuts);
    cuts.len() > 1
}

fn cutter(choice: u8) -> Cutter {
    let exponent = choice / 3 % 4;
    match choice % 3 {
        0 => Cutter::Gear(Gear::new(CutParameters::new(4096 << exponent).expect("4 KiB to 32 KiB are allowed"))),
        1 => {
            let parameters = FastCdcParameters::new(64 << exponent, 256 << exponent, 1024 << exponent);
            Cutter::FastCdc(FastCdc::new(parameters.expect("they ascend")))
        }
        _ => Cutter::Fixed(u32::from(choice / 3)),
    }
}

/// Units and clipped segments of any segments add up, and none is empty.
fn check_units(choices: &mut Choices<'_>, cuts: &[u32]) {
    let segments: Vec<Segment> = (0..choices.byte() % 64)
        .map(|_| {
            let field = u16::from_le_bytes([choices.byte(), choices.byte()]);
            Segment { len: u32::from(field & 0x3fff), lz4: field & 0x8000 != 0 }
        })
        .collect();
    let total: u64 = segments.iter().map(|segment| u64::from(segment.len)).sum();
    assert_eq!(units(&segments).sum::<u64>(), total);
    assert!(units(&segments).all(|unit| unit > 0));
    let (mut cursor, mut clipped, mut left) = (SegmentCursor::new(&segments), Vec::new(), total);
    for &len in cuts {
        cursor.take(len, &mut clipped);
        let taken: u64 = clipped.iter().map(|segment| u64::from(segment.len)).sum();
        assert_eq!(taken, left.min(u64::from(len)));
        assert!(clipped.iter().all(|segment| segment.len > 0));
        left -= taken;
    }
}

/// A block walked in any pieces gets the verdict that it gets whole, and what is found sound decodes.
///
/// Input: stated plain length, lengths of eight pieces, the block.
pub fn lz4_walk(bytes: &[u8]) -> bool {
    let mut choices = Choices(bytes);
    let plain_len = choices.u32() % PLAIN_LEN_MAX;
    let cuts: Vec<usize> = (0..8).map(|_| usize::from(choices.byte())).collect();
    let block = choices.0;
    let mut whole = Lz4Walker::new(len_u32(block.len()), plain_len);
    assert_eq!(whole.feed(block), 0, "a block begins with a sequence");
    let verdict = whole.finish();

    let mut walker = Lz4Walker::new(len_u32(block.len()), plain_len);
    let mut rest = Choices(block);
    for len in cuts {
        let piece = rest.bytes(len);
        assert!(walker.feed(piece) as usize <= piece.len());
    }
    walker.feed(rest.0);
    assert_eq!(walker.finish(), verdict, "in pieces");

    let mut long = Lz4Walker::new(len_u32(block.len()), plain_len);
    long.feed(block);
    long.feed(&[0]);
    assert!(long.finish().is_err(), "a byte too many");

    let mut plain = vec![0; plain_len as usize];
    let decoded = lz4_flex::block::decompress_into(block, &mut plain);
    match &verdict {
        Ok(()) => assert_eq!(decoded.ok(), Some(plain.len()), "a sound block decodes to its length"),
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
    verdict.is_ok()
}
