//! Objects somewhere: a directory, a bucket, or memory in tests. The only home of crate `object_store`.
//!
//! What the layers above may rely on:
//!
//! - *Whole or not at all*: an object is seen complete or not seen, and what a write returned for survives a power cut.
//! - *Create-only is the one compare-and-swap*: of any number of [`Store::create`] of one path exactly one is told
//!   [`Put::Created`], and a lost reply is not a lost race. Stores that cannot keep this are found by [`probe()`] and again by
//!   [`confirm_create_only`].
//! - *Everything else is immutable*: [`Store::put_new`] writes names that are never written twice.
//! - Listings see every finished write, in no promised order, as a stream.
//! - Bytes read have the length that was asked for; whether they are the right bytes is for the caller to verify.
//! - An error names the act, the object and the store, and never a credential.
//!
//! Not done here: updates in place, renames, conditional deletes, copies on the server. Stores differ in them, and nothing
//! above needs them. Retries of requests are `object_store`'s. Paths are built and parsed in [`layout`] alone.
//! A [`StoreReader`] is a store that cannot write or delete.

#[doc(hidden)]
pub mod adapter;
mod fail;
pub mod layout;
mod local;
mod open;
mod probe;
mod reader;
mod single_writer;
mod upload;
mod writer;

pub use layout::{Folder, KeySlot, ObjectPath, StoredObject};
pub use local::Leftover;
pub use open::StoreOptions;
pub use probe::{Ability, StoreAbilities, confirm_create_only, probe};
pub use reader::{OBJECT_LEN_MAX, ObjectInfo, ObjectStream, StoreReader};
pub use single_writer::{Holder, SingleWriter};
pub use upload::Upload;
pub use writer::{Put, Store};

#[cfg(test)]
mod tests;
