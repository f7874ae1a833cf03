//! Support for tests and benchmarks: not part of the public surface.

pub mod scale;
pub mod scale_source;
pub mod tae_writer;
