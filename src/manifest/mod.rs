//! Manifests: how the list of entries is cut into segments, and merged with the parent's.
//!
//! - [`cut`]: where a segment ends, where a piece list ends: decided by content, so that an unchanged region gives the same chunk again.
//! - [`order`]: the one order of entries.
//!
//! It does not know where segments are stored (that is `repo`), nor anything of packs: nothing in a manifest names one.

mod cut;
pub(crate) mod order;

pub(crate) use cut::{FinishedSegment, PIECES_DIRECT_MAX, PieceListCutter, SegmentCutter};
