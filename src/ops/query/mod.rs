//! What a repository and its backups hold: questions that change nothing.
//!
//! - [`mod@show`]: everything known of one backup.
//! - [`mod@ls`]: the entries of a backup, as directories.
//! - [`mod@find`]: which backups hold a name, in which versions.
//! - [`mod@diff`]: what differs between two backups.
//! - [`mod@stats`]: the repository in numbers.
//!
//! Answers are streamed: memory does not depend on how many entries there are. A part of a list that cannot be read is an error, since an
//! answer with a hole in it would look like another answer.

mod diff;
mod find;
mod ls;
mod show;
mod stats;
#[cfg(test)]
mod tests;

pub use diff::{Change, Difference, diff};
pub use find::find;
pub use ls::ls;
pub use show::{Shown, show};
pub use stats::{LineageStats, PackStats, Stats, stats};

/// A path as people give it: without `./`, leading and trailing slashes; empty for the root.
fn normal(path: &[u8]) -> &[u8] {
    let mut path = path;
    while let Some(rest) = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")) {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    if path == b"." { b"" } else { path }
}
