//! ops

pub(crate) mod target;
