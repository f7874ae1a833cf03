//! Support for tests and benchmarks: not part of the public surface.

pub mod data;
pub mod fragments;
pub mod fuzz;
pub mod later;
pub mod log;
pub mod s3;
pub mod scale;
pub mod scale_repository;
pub mod scale_source;
pub mod store_suite;
pub mod tae_writer;
