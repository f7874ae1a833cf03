//! Packs: many chunks in one stored object.
//!
//! - [`builder`]: chunks in, one sealed object with its name and table out.
//! - [`reader`]: records and tables out of stored bytes, verified.
//!
//! It does not know where a pack goes (that is `repo`) or which chunks are wanted (that is `ops`).

mod builder;
mod reader;

pub(crate) use builder::{PackBuilder, SealedPack};
pub(crate) use reader::{Location, PackScan, parse_table, read_record, salvage, table_range};
