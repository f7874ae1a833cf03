//! Whole repositories: scenarios crossed with damage, crash points and real data.
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod basics;
mod bucket;
mod real_data;
mod support;
mod writers;
