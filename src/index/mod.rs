//! The local index: which live pack holds a chunk. A disposable cache of the repository's index fragments (the only home of redb).
//!
//! - [`db`]: the redb file: chunks, packs, fragments.
//! - [`catch_up`]: brings it to a state of the log.
//!
//! Invariant: what it says is valid for the log state it was caught up to, and for packs that are live in it. It keeps all locations of a
//! chunk; the first in log order counts, the others are spares. It is thrown away and rebuilt at the slightest doubt. It never decides alone
//! that a chunk exists: a writer checks at its commit that the packs it relied on are still live.

mod catch_up;
mod db;

pub(crate) use catch_up::{CatchUp, catch_up, fetch_fragment};
pub(crate) use db::{Index, PackInfo, sizes};
