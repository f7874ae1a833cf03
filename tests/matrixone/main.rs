//! A server: how it is spoken to. Against a recorded one, and where it is there against a real MariaDB.
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

mod client;
mod live;
mod mariadb;
mod played;
mod real;
mod scale;
mod statements;
