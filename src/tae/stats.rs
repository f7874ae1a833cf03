//! How one object names another: `Location` (79 bytes) and `ObjectStats` (154 bytes).

use crate::error::{Error, Result};

use super::meta::{Extent, array_at, u16_at, u32_at};
use super::name::TaeName;

/// Bytes of a stored name: 18 of identity and the same as 42 characters.
const NAME_LEN: usize = 60;

/// Reads a stored name and compares its two forms.
fn name_at_front(bytes: &[u8]) -> Result<TaeName> {
    let name = TaeName::from_id(&array_at(bytes, 0));
    let text = &bytes[18..NAME_LEN];
    if text != name.to_string().as_bytes() {
        let text = String::from_utf8_lossy(text).into_owned();
        return Err(Error::corrupt(format!("stored object name: says {name} and {text:?}")));
    }
    Ok(name)
}

/// Points to one block of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The object.
    pub name: TaeName,
    /// Where its meta lies.
    pub meta: Extent,
    /// Rows of the block.
    pub rows: u32,
    /// Number of the block.
    pub block: u16,
}

impl Location {
    /// Length as stored.
    pub const LEN: usize = 79;

    /// From its stored bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() != Self::LEN {
            return Err(Error::corrupt(format!("location: has {} bytes, not {}", bytes.len(), Self::LEN)));
        }
        Ok(Self {
            name: name_at_front(bytes)?,
            meta: Extent::from_bytes(&array_at(bytes, NAME_LEN)),
            rows: u32_at(bytes, 73),
            block: u16_at(bytes, 77),
        })
    }

    /// Length of the whole object's file.
    pub fn file_len(&self) -> u64 {
        file_len(&self.meta)
    }
}

/// What a checkpoint knows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectStats {
    /// The object.
    pub name: TaeName,
    /// Where its meta lies; all zero if there is no file.
    pub meta: Extent,
    /// Rows in all blocks.
    pub rows: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// Length of its file, as the server counted it.
    pub stored_len: u32,
    /// Length with all extents decoded.
    pub plain_len: u32,
    /// Bit 0 appendable, 1 sorted, 2 created by a CN, 3 deleted by a CN, 5 to 7 merge level.
    pub flags: u8,
}

impl ObjectStats {
    /// Length as stored.
    pub const LEN: usize = 154;

    /// From its stored bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() != Self::LEN {
            return Err(Error::corrupt(format!("object stats: {} bytes, not {}", bytes.len(), Self::LEN)));
        }
        Ok(Self {
            name: name_at_front(bytes)?,
            meta: Extent::from_bytes(&array_at(bytes, NAME_LEN)),
            rows: u32_at(bytes, 73),
            blocks: u32_at(bytes, 77),
            stored_len: u32_at(bytes, 145),
            plain_len: u32_at(bytes, 149),
            flags: bytes[153],
        })
    }

    /// True if rows are still appended to it; it has a file once it is deleted.
    pub fn is_appendable(&self) -> bool {
        self.flags & 1 != 0
    }

    /// True if there is a file behind it.
    pub fn has_file(&self) -> bool {
        self.meta.end() != 0
    }

    /// Length of the object's file.
    pub fn file_len(&self) -> u64 {
        file_len(&self.meta)
    }
}

/// A file ends 64 bytes behind its meta.
fn file_len(meta: &Extent) -> u64 {
    meta.end() + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored_name(name: &TaeName) -> Vec<u8> {
        [name.to_id().as_slice(), name.to_string().as_bytes()].concat()
    }

    #[test]
    fn stored_bytes_are_understood() {
        let name = TaeName::parse(b"018f7a41-1881-7999-bbd6-858c3d4acc18_00007").unwrap();
        let mut bytes = stored_name(&name);
        bytes.extend_from_slice(&[1, 0, 1, 0, 0, 10, 0, 0, 0, 20, 0, 0, 0, 5, 0, 0, 0, 3, 0]);
        let location = Location::parse(&bytes).unwrap();
        assert_eq!((location.name, location.rows, location.block, location.file_len()), (name, 5, 3, 330));
        assert!(Location::parse(&bytes[1..]).is_err());
        bytes.resize(ObjectStats::LEN, 0);
        bytes[153] = 1;
        let stats = ObjectStats::parse(&bytes).unwrap();
        assert!(stats.is_appendable() && stats.has_file());
        bytes[20] ^= 1;
        assert!(ObjectStats::parse(&bytes).unwrap_err().message().contains("says"));
    }
}
