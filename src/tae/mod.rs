//! tae
mod checkpoint;
mod closure;
mod framing;
mod meta;
mod name;
mod object;
mod read_at;
mod reader;
mod stats;
mod types;
mod vector;
#[cfg(test)]
mod tests;
pub use checkpoint::*;
pub use closure::*;
pub use framing::*;
pub use meta::Extent;
pub use name::*;
pub use object::*;
pub use read_at::ReadAt;
pub use stats::*;
pub use types::DataType;
pub use vector::Vector;
