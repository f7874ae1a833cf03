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
mod made;
mod model;
mod real_data;
mod replicate;
mod requests;
mod support;
mod writers;
