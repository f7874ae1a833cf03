//! The program called as `mo_br`, by the scripts that call it: the same words, the same scraping, the same results.
//!
//! - `support`: a directory with the program under that name; a recorded server.
//! - `buckets`: the same with S3.
//! - `callers`: what nightly scripts and operators type and cut out of the answers.
//! - `trees`: backups that another tool wrote: listed, checked, restored, imported.
//! - `server`: snapshots and points in time.
//! - `wrong`: what goes wrong, and what is said then.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "../support/recorded/mod.rs"]
mod recorded;

mod buckets;
mod callers;
mod server;
mod support;
mod trees;
mod wrong;
