//! Stored bytes ⇄ structs. No I/O, no clock, no threads, no compression.
//!
//! One file per stored object, opposite a page in `docs/format` with its offset table. Decoders take untrusted bytes: they never panic,
//! allocate no more than a small multiple of what they were given, and name what is wrong. Whole objects are verified by their name
//! (BLAKE3) before they come here; the checksums in headers let a piece of an object be trusted on its own.
//!
//! How the format grows: a longer body than known is read by its known beginning, an unknown optional log record is skipped, and everything
//! that an old reader must not ignore is a named mandatory feature in the config or a mandatory record in the log (docs/format/README.md).

mod bytes;
pub(crate) mod config;
pub(crate) mod fragment;
pub(crate) mod log_entry;
pub(crate) mod log_record;
pub(crate) mod log_state;
pub(crate) mod manifest;
pub(crate) mod pack;
mod pieces;
pub(crate) mod scrub;
pub(crate) mod segment;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub(crate) use bytes::{Fields, Put, checksum};
