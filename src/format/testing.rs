//! What the tests of every stored object share: damage of every kind, and the hex in its page.

use std::fmt::Debug;

use super::bytes::checksum;
use crate::error::{ErrorKind, Result};

/// Every proper beginning of the bytes is refused as damage.
pub(super) fn every_truncation_is_corrupt<T: Debug>(stored: &[u8], decode: impl Fn(&[u8]) -> Result<T>) {
    for len in 0..stored.len() {
        match decode(&stored[..len]) {
            Ok(value) => panic!("{len} of {} bytes were taken for {value:?}", stored.len()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{len} bytes: {error}"),
        }
    }
}

/// Every change of one byte, to any other value of a few, is refused.
pub(super) fn every_flip_is_refused<T: Debug>(stored: &[u8], decode: impl Fn(&[u8]) -> Result<T>) {
    for_each_flip(stored, |at, damaged| {
        if let Ok(value) = decode(damaged) {
            panic!("byte {at} was changed, and it was taken for {value:?}");
        }
    });
}

/// Every change of one byte is refused or gives some value: for what is verified from outside, by the id of its chunk.
pub(super) fn every_flip_is_survived<T: Debug>(stored: &[u8], decode: impl Fn(&[u8]) -> Result<T>) {
    for_each_flip(stored, |_, damaged| {
        // Only a panic fails here.
        std::hint::black_box(decode(damaged).is_ok());
    });
}

fn for_each_flip(stored: &[u8], mut with: impl FnMut(usize, &[u8])) {
    let mut damaged = stored.to_vec();
    for at in 0..stored.len() {
        for change in [0x01, 0x02, 0x10, 0x80, 0xff] {
            damaged[at] ^= change;
            with(at, &damaged);
            damaged[at] = stored[at];
        }
    }
}

/// Writes the checksum of `range` at `at`, as a writer would who knows more fields than we do.
pub(super) fn fix_checksum(stored: &mut [u8], range: std::ops::Range<usize>, at: usize) {
    let sum = checksum(&stored[range]);
    stored[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Puts a u32 at `at`.
pub(super) fn set_u32(stored: &mut [u8], at: usize, value: usize) {
    stored[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
}

/// The bytes of the block that begins with ```` ```hex NAME ```` in a page: lines of an offset, bytes, and a remark behind `#`.
pub(super) fn documented_bytes(page: &str, name: &str) -> Vec<u8> {
    let begin = format!("```hex {name}");
    let mut lines = page.lines().skip_while(|line| *line != begin);
    assert!(lines.next().is_some(), "the page has no block {begin:?}");
    let mut bytes = Vec::new();
    for line in lines.take_while(|line| *line != "```") {
        let fields = line.split('#').next().unwrap();
        let (offset, fields) = fields.split_once(' ').unwrap_or_else(|| panic!("no offset in {line:?}"));
        assert_eq!(usize::from_str_radix(offset, 16), Ok(bytes.len()), "offset in {line:?}");
        for digits in fields.split_whitespace() {
            bytes.push(u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{digits:?} in {line:?}")));
        }
    }
    bytes
}

/// Fails with both sides in hex.
pub(super) fn assert_bytes(actual: &[u8], expected: &[u8], what: &str) {
    let hex = |bytes: &[u8]| bytes.chunks(16).map(|line| crate::id::to_hex(line) + "\n").collect::<String>();
    assert_eq!(hex(actual), hex(expected), "{what}");
}
