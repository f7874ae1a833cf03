//! The log: the only mutable truth of a repository, and its only commit point.
//!
//! - [`chain`]: entries as stored objects: read, verified, created once.
//! - [`examine`]: the whole of it, with everything that is wrong.
//! - [`fold`]: what entries mean: state + entry → state.
//! - [`process`]: who a session is.
//!
//! It does not know packs, chunks or manifests beyond their names; what must hold before something may be said is decided by who says it
//! (`repo`, `ops`), against the state that the entry will follow. See docs/concurrency.md for the ten rules.

pub(crate) mod chain;
pub(crate) mod examine;
pub(crate) mod fold;
pub(crate) mod process;

pub(crate) use chain::{Append, CHECKPOINT_EVERY, Chain};
pub(crate) use examine::{LogFault, says_the_same};
pub(crate) use fold::NO_SESSION;
pub use process::Process;
