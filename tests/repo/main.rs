//! Whole repositories: scenarios crossed with damage, crash points and real data.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

mod basics;
mod bucket;
mod real_data;
mod support;
mod writers;
