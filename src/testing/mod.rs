//! Support for tests and benchmarks: not part of the public surface.

pub mod tae_writer;
