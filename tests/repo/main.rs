//! Whole repositories: scenarios crossed with damage, crash points and real data.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

mod bad_input;
mod basics;
mod bucket;
mod crash;
mod damage;
mod forget;
mod ledger;
mod made;
mod matrix;
mod model;
mod old_formats;
mod prune;
mod real_data;
mod repair;
mod replicate;
mod requests;
mod start;
mod support;
mod writers;
