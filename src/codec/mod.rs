//! From a file's bytes to chunks and back: hashing, cutting, splitting and compressing.
//!
//! Contract: pure functions on bytes. Nothing here reads a file, looks at a clock or starts a thread, and nothing here knows packs, manifests or TAE's layout:
//! whoever does passes [`Segment`]s and a [`Hint`].
//!
//! * A chunk is named by [`chunk_id`] of its plain bytes. Its coding never takes part in its identity.
//! * Cut points depend on the bytes of the unit alone, and are part of the repository format: golden vectors guard them.
//! * A hint can be wrong. It then costs compression, never exactness: every coding gives back the bytes it was given.
//! * What [`Decoder`] reads is hostile. It allocates only what was checked, and fails; it never panics.
//!
//! Outside crates at home here: blake3 in `hash`, zstd in `coding`, fastcdc in `cdc`. See design.md §6.

#[doc(hidden)]
pub mod bench_support;
mod cdc;
mod coding;
mod gear;
mod hash;
mod header;
mod lz4;
mod split;
mod unit;

#[cfg(test)]
mod real_data_tests;

pub(crate) use cdc::{Cutter, FastCdc, FastCdcParameters};
pub(crate) use coding::{Decoder, Encoder, Hint, Level};
pub(crate) use gear::{CutParameters, Gear};
pub(crate) use hash::{FileHasher, ObjectHasher, chunk_id, entry_hash, identity, lineage_id, object_hash};
pub(crate) use lz4::Lz4Walker;
pub(crate) use unit::{Segment, SegmentCursor, units};
