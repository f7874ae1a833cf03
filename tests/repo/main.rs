//! Whole repositories: scenarios crossed with damage, crash points and real data.
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod bad_input;
mod basics;
mod bucket;
mod crash;
mod damage;
mod made;
mod model;
mod real_data;
mod requests;
mod support;
mod writers;
