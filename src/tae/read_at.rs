//! How this module reads: exact ranges of something whose length is known.
//!
//! `tae` does no I/O of its own. A memory map, a cached range of a bucket object or a plain slice implements this one
//! trait, and [`super::Unframed`] lays MatrixOne's checksum framing over any of them.

use bytes::Bytes;

use crate::error::{Error, Result};

/// Bytes of known length that can be read at any offset, from several threads at once.
pub trait ReadAt: Send + Sync {
    /// Length in bytes. It does not change while this is open.
    fn len(&self) -> u64;

    /// Fills `buffer` from `offset`. Fails if that reaches beyond the end, and if the bytes cannot be read.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// All bytes of a file that must be small. `Corrupt`, and nothing is read, if there are more than `len_max`.
    fn read_all(&self, len_max: u64) -> Result<Vec<u8>> {
        let len = self.len();
        if len > len_max {
            return Err(Error::corrupt(format!("its {len} bytes are more than such a file has")));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// True if there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(buffer.len())?))
            .and_then(|range| self.get(range));
        match found {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(beyond_end(offset, buffer.len(), ReadAt::len(self))),
        }
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        ReadAt::len(self.as_slice())
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.as_slice().read_exact_at(offset, buffer)
    }
}

impl ReadAt for Bytes {
    fn len(&self) -> u64 {
        ReadAt::len(self.as_ref())
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.as_ref().read_exact_at(offset, buffer)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        (**self).read_exact_at(offset, buffer)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Box<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        (**self).read_exact_at(offset, buffer)
    }
}

/// The error of a read that reaches beyond the end.
pub(super) fn beyond_end(offset: u64, wanted: usize, len: u64) -> Error {
    Error::corrupt(format!("read {wanted} bytes at {offset}: only {len} bytes are there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stay_inside() {
        let bytes: &[u8] = b"0123456789";
        let mut buffer = [0; 4];
        bytes.read_exact_at(6, &mut buffer).unwrap();
        assert_eq!(&buffer, b"6789");
        assert!(bytes.read_exact_at(7, &mut buffer).is_err());
        assert!(bytes.read_exact_at(u64::MAX, &mut buffer).is_err());
        bytes.read_exact_at(10, &mut []).unwrap();
        assert_eq!(ReadAt::len(&Bytes::from_static(b"abc")), 3);
    }
}
