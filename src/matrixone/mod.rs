//! MatrixOne as a server: which release can do what, how it is spoken to, what its `BACKUP` leaves in a directory.
//!
//! - [`config`]: its toml files: where each service keeps what.
//! - [`release`]: releases, and what each can do.
//! - [`login`]: who logs in, where, with which password.
//! - [`client`]: one connection, statements as text.
//! - [`tree`]: the lists and sums that a `BACKUP` writes beside the data.
//!
//! Not here: the files that hold the data ([`crate::tae`]); what is done with all of it ([`crate::ops`]).

pub mod client;
pub mod config;
pub mod login;
pub(crate) mod redact;
pub mod release;
pub mod sql;
pub mod tree;
