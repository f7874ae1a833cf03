//! Fuzz targets: one for every decoder of untrusted bytes, and for what must give back what it was given.
//!
//! A target is a function of bytes that panics if a promise is broken: nothing panics, what decodes encodes to the same thing again, what is
//! refused is refused as `Corrupt`, `Unsupported` or `Invalid`. It says whether the bytes were accepted, so that a test can tell a target
//! that refuses everything. Targets of objects with checksums also try a copy whose checksums fit ([`repair`]), since no mutation would
//! guess them.
//!
//! The same targets run under libFuzzer (`fuzz/fuzz_targets`) and, on [`mutate`]d seeds, as plain tests (`tests/fuzz`): see fuzz/README.md.

mod codec;
mod mutate;
mod paths;
mod repair;
mod script;
mod seeds;
mod stored;
mod tae;

pub use codec::{codec_cut, codec_decode, codec_split, lz4_walk};
pub use mutate::Mutator;
pub use paths::{parse_bytes, restore_path};
pub use seeds::{captured, seeds};
pub use stored::{config, fragment, log_entry, log_state, manifest, pack, piece_list, scrub, segment};
pub use tae::{framing, tae_checkpoint, tae_names, tae_object};

use crate::error::{ErrorKind, Result};

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Of its function here, of its file in `fuzz/fuzz_targets` and of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Panics if a promise is broken; true if the bytes were accepted.
    pub run: fn(&[u8]) -> bool,
    /// How many mutations a plain test tries: about a second and a half.
    pub rounds: u32,
    /// How much it may hold at any time.
    pub memory: Memory,
}

/// A bound on memory: so much, and so many bytes for each byte of input.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Whatever the input.
    pub base: usize,
    /// For each byte of input.
    pub factor: usize,
}

/// Structs are larger than the fields they were read from, and a target holds a few copies.
const DECODER: Memory = Memory { base: 64 << 10, factor: 64 };
/// A byte of LZ4 stands for up to 255; the content and what was understood of it.
const TAE: Memory = Memory { base: 256 << 10, factor: 4 * 255 };
/// The same, and as many rows as are taken from a file of few bytes whose columns are constants.
const CHECKPOINT: Memory = Memory { base: 16 << 20, ..TAE };
/// Inputs are stretched, and coders keep buffers.
const CODEC: Memory = Memory { base: 16 << 20, factor: 64 };

macro_rules! targets {
    ($($name:ident: $rounds:literal, $memory:expr;)*) => {
        /// All targets.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $name, rounds: $rounds, memory: $memory }),*];
    };
}

targets! {
    config: 200_000, DECODER;
    pack: 150_000, DECODER;
    fragment: 250_000, DECODER;
    segment: 400_000, DECODER;
    piece_list: 400_000, DECODER;
    manifest: 250_000, DECODER;
    log_entry: 150_000, DECODER;
    log_state: 4_000, DECODER;
    scrub: 250_000, DECODER;
    tae_object: 60_000, TAE;
    tae_checkpoint: 2_500, CHECKPOINT;
    tae_names: 400_000, DECODER;
    framing: 120_000, DECODER;
    codec_decode: 300_000, CODEC;
    codec_split: 6_000, CODEC;
    codec_cut: 400, CODEC;
    lz4_walk: 300_000, CODEC;
    restore_path: 400_000, DECODER;
    parse_bytes: 500_000, DECODER;
}

/// The value, or nothing if it was refused as hostile bytes may be: any other kind of error would mislead whoever reads it.
#[track_caller]
fn accepted<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let kind = error.kind();
            let fits = matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Invalid);
            assert!(fits && !error.message().is_empty(), "refused as {kind}: {error}");
            None
        }
    }
}

/// Inputs are far below 4 GiB.
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("an input is shorter than 4 GiB")
}

/// Takes choices off the front of an input; zeros when it is used up.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }
}
