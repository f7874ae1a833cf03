//! A content-addressed, deduplicating backup store.

pub mod clock;
pub(crate) mod codec;
pub mod entropy;
pub mod error;
pub(crate) mod format;
pub mod id;
pub(crate) mod index;
pub(crate) mod log;
pub(crate) mod manifest;
pub mod ops;
pub(crate) mod pack;
pub mod progress;
pub mod repo;
pub mod source;
pub mod store;
pub mod tae;
#[doc(hidden)]
pub mod testing;
pub mod units;

/// What this program calls itself in what it stores.
pub(crate) const TOOL: &str = concat!("everpack ", env!("CARGO_PKG_VERSION"));

#[doc(hidden)]
pub use codec::bench_support;
