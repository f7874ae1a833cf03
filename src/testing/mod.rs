//! Support for tests and benchmarks: not part of the public surface.

pub mod data;
pub mod s3;
pub mod store_suite;
pub mod tae_writer;
