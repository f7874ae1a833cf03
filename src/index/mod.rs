//! The local index: which live pack holds a chunk. A disposable cache of the repository's index fragments.
//!
//! - [`db`]: the index itself: look-ups, folding, merging.
//! - [`catalogue`]: packs, folded fragments and runs, in redb.
//! - [`marks`]: which locations are of chunks that somebody needs, for prune.
//! - [`run`]: chunk locations in sorted files.
//! - [`home`]: the directory they are in, or none.
//! - [`mod@catch_up`]: brings it to a state of the log.
//!
//! Invariant: what it says is valid for the log state it was caught up to, and for packs that are live in it. It keeps all locations of a
//! chunk; the first in log order counts, the others are spares. It is thrown away and rebuilt at the slightest doubt. It never decides alone
//! that a chunk exists: a writer checks at its commit that the packs it relied on are still live.

mod catalogue;
mod catch_up;
mod db;
mod home;
mod marks;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use catalogue::PackInfo;
pub(crate) use catch_up::{CatchUp, catch_up, fetch_fragment, read_table};
pub(crate) use db::{Index, sizes};
pub(crate) use marks::{Marked, Marks};
