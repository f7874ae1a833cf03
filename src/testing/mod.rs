//! What tests of this crate, unit and integration, have in common. Not part of the public interface.

pub mod store_suite;
