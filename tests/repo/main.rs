//! Whole repositories: scenarios crossed with damage, crash points and real data.

mod basics;
mod support;
mod writers;
