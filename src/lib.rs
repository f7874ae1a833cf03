//! A content-addressed, deduplicating backup store for databases whose files never change once written, MatrixOne first.
//!
//! Files are cut into chunks, each chunk is stored once under the hash of its bytes, and a backup is a list that names chunks. So a
//! nightly backup costs what is new, every backup restores by itself, and any of them may go without touching another. A backup is listed
//! only after everything it needs is durable and was decoded back once; any number of writers may run at once, on any clock, and be
//! killed anywhere. Damage is found and named, by restore and by check. Nothing but the repository is needed to restore: what is kept on
//! a host is cache.
//!
//! # A backup in six steps
//!
//! 1. The *source* ([`source`]) lists its files in order; each has a cheap identity, and what the parent backup knows by it is taken over
//!    without being opened.
//! 2. What is new is read and understood ([`tae`]): disk framing is verified and taken off, a MatrixOne object is located by its own
//!    map, and its LZ4 blocks are proved.
//! 3. It is cut into chunks at places that its content decides, and each chunk is named by BLAKE3 of its bytes ([`id::ChunkId`]).
//! 4. A chunk that the index does not know is compressed, decoded back to be sure, and put into a *pack*, one stored object of many
//!    chunks ([`store`]).
//! 5. Where the chunks lie is published as an *index fragment*; the list of files becomes the *manifest* ([`repo::Manifest`]).
//! 6. One numbered, create-only entry of the *log* commits the backup ([`ops::backup`]): before it there is no backup, after it there is
//!    one for good.
//!
//! # Where things are
//!
//! | module | what it is |
//! |---|---|
//! | [`ops`] | verbs: backup, import, restore, check, forget, prune, replicate, repair, questions; options in, report out |
//! | [`repo`] | a repository: made, opened, its backups |
//! | [`source`] | what is backed up: directories, files, buckets |
//! | [`store`] | a place that keeps objects by name: a directory, a bucket |
//! | [`tae`] | MatrixOne's file formats, pure |
//! | [`matrixone`] | its server: how it is spoken to, what its `BACKUP` writes, what a data directory needs to start |
//! | [`progress`] | how a long verb tells where it is, and how it is stopped |
//! | [`error`] | the one error type: what was being done, to which object, and what can be done about it |
//! | [`id`], [`units`], [`clock`], [`entropy`] | values |
//! | `log`, `pack`, `index`, `manifest` | the nouns inside a repository; they do not know each other |
//! | `codec` | hash, cut, compress |
//! | `format` | every stored byte, without I/O |
//!
//! Arrows point down only. The library never prints; the program `everpack` is built on what is public here.
//!
//! # An example
//!
//! ```
//! use std::sync::Arc;
//!
//! use everpack::clock::SystemClock;
//! use everpack::entropy::SystemEntropy;
//! use everpack::ops::backup::{BackupOptions, backup};
//! use everpack::ops::restore::{RestoreOptions, restore};
//! use everpack::progress::Silent;
//! use everpack::repo::{Environment, InitOptions, Process, Repository};
//! use everpack::source::{DirectoryOptions, DirectorySource};
//! use everpack::store::{Store, StoreOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let here = scratch.path();
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! std::fs::create_dir(here.join("data"))?;
//! std::fs::write(here.join("data/table"), "row after row")?;
//!
//! // A repository in a directory; `s3://bucket/prefix` goes as well.
//! let place = here.join("repository").display().to_string();
//! let store = Store::create_root(&place, &StoreOptions::default())?;
//! let environment = Environment {
//!     clock: Arc::new(SystemClock),
//!     entropy: Arc::new(SystemEntropy),
//!     process: Process::current(),
//!     cache: None,
//! };
//! let repository = Repository::create(store, &InitOptions::default(), environment).await?;
//!
//! let source = Box::new(DirectorySource::open(&here.join("data"), &DirectoryOptions::default())?);
//! let report = backup(&repository, source, &BackupOptions::default(), Arc::new(Silent)).await?;
//! assert_eq!(report.files_new, 1);
//!
//! let latest = repository.find_backup("latest")?;
//! let target = here.join("restored");
//! restore(&repository, &latest, &target, &RestoreOptions::default(), Arc::new(Silent)).await?;
//! assert_eq!(std::fs::read_to_string(target.join("table"))?, "row after row");
//! # Ok(())
//! # })
//! # }
//! ```

#![cfg_attr(test, allow(clippy::print_stderr, clippy::print_stdout, reason = "a skipped test has to be seen"))]

pub(crate) mod buffers;
pub mod clock;
pub(crate) mod codec;
pub mod entropy;
pub mod error;
pub(crate) mod format;
pub mod id;
pub(crate) mod index;
pub(crate) mod log;
pub(crate) mod manifest;
pub mod matrixone;
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
