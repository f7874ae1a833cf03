//! MatrixOne's file formats: what its files are called, how they are framed, where everything lies in them.
//!
//! Pure: nothing here opens a file or knows of a repository. Everything is read through [`ReadAt`], of *logical* bytes;
//! [`Unframed`] makes them of the physical ones of the legacy `DISK` backend.
//!
//! | question | answered by |
//! |---|---|
//! | what is this file, judged by its path? | [`classify`], [`TaeName`], [`MetaName`], [`Ts`] |
//! | is it framed, and what is inside? | [`looks_framed`], [`Unframer`], [`Framer`], [`Unframed`] |
//! | where do its regions and extents lie? | [`ObjectLayout`] |
//! | are its extents sound? | [`mod@validate`] |
//! | what does it hold? | [`mod@describe`], [`list_extents`] |
//! | what do checkpoints name? | [`read_checkpoint_rows`], [`read_index`], [`read_object_rows`] |
//! | is a tree complete? | [`mod@closure`] |
//! | will a server restored from it survive a restart? | [`zero_lsns`] |
//!
//! Rules of this folder:
//! * All bytes are hostile. No length is believed before it is compared with what is there; nothing panics.
//! * Three outcomes are kept apart. *Failing to read* is an error. *Not being an object* is [`NotTae`], and such a file
//!   is backed up as opaque bytes. *Damage* is a finding.
//! * Formats: releases 1.0 to 4.2. Rows of checkpoints are followed for version 13, release 2.1 and later.
//! * Nothing is ever encoded again from what was decoded: vectors keep stale bytes that no value shows. [`zero_lsns`] overwrites cells.

mod checkpoint;
mod closure;
mod describe;
mod framing;
mod lsn;
mod meta;
mod name;
mod object;
mod parts;
mod read_at;
mod reader;
#[cfg(test)]
mod real_data;
#[cfg(test)]
mod sample;
mod stats;
#[cfg(test)]
mod tests;
mod types;
mod validate;
mod vector;
mod zonemap;

pub use checkpoint::{
    CHECKPOINT_VERSION, CheckpointKind, CheckpointRow, ObjectRow, read_checkpoint_rows, read_index, read_object_rows,
};
pub use closure::{ClosureReport, MissingObject, Need, TreeView, Unreadable, closure};
pub use describe::{BlockDescription, ColumnDescription, ObjectDescription, ObjectKind, describe, list_extents};
pub use framing::{
    FRAMING_PROBE_LEN, Framer, Unframed, Unframer, is_framed, logical, logical_len, looks_framed, physical_len,
    physical_offset,
};
pub use lsn::zero_lsns;
pub use meta::Extent;
pub use name::{FileClass, MetaKind, MetaName, TaeName, Ts, classify};
pub use object::{DataExtent, NotTae, ObjectLayout, Owner};
pub use parts::{ExtentContent, ExtentDescription};
pub use read_at::ReadAt;
pub use stats::{Location, ObjectStats};
pub use types::DataType;
pub use validate::{Finding, ProveExtent, Severity, Validation, ValidationReport, validate};
pub use vector::Vector;
pub use zonemap::Bounds;
