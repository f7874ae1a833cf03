//! Support for tests and benchmarks: not part of the public surface.

pub mod data;
pub mod fuzz;
pub mod tae_writer;
