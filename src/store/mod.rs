//! Objects somewhere.
mod all;
pub use all::*;
