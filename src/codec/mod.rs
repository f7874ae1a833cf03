//! Pure functions on bytes: name, cut, code.
mod all;
pub(crate) use all::*;
