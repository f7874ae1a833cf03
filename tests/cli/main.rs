//! The command line, run as a user runs it: what it prints, where, and how it exits.
//!
//! - `advice`: what an error says to do next, and exit codes where the output is lost or somebody stops the work.
//! - `help`: the help texts are committed beside this file and compared.
//! - `json_page`: docs/guide/json.md against what `--json` prints.
//! - `retention`: forget, unforget, hold, release.
//! - `scenarios`: the main job, and what goes wrong in it.
//! - `settings`: everpack.toml, the environment, and which of them wins.
//! - `start`: what a MatrixOne server starts from, and drills.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/recorded/mod.rs"]
mod recorded;

mod advice;
mod help;
mod json_page;
mod repair;
mod retention;
mod scenarios;
mod settings;
mod start;
mod support;
