//! Taking fields off untrusted bytes, and putting them on.
//!
//! Everything stored is little-endian with fixed widths. A reader names the field that was cut short, so that a damaged object is
//! described and not only refused.

use crate::error::{Error, ErrorKind, Result};

/// Takes fields off the front of untrusted bytes, and says which one was cut short.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    /// What was not taken yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.short(field, N));
        };
        self.rest = rest;
        self.at += N;
        Ok(*head)
    }

    pub(crate) fn bytes(&mut self, field: &str, len: usize) -> Result<&'a [u8]> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.short(field, len));
        };
        self.rest = rest;
        self.at += len;
        Ok(head)
    }

    fn short(&self, field: &str, need: usize) -> Error {
        Error::corrupt(format!("{field}: need {need} bytes at {}, have {}", self.at, self.rest.len()))
    }

    pub(crate) fn u8(&mut self, field: &str) -> Result<u8> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn u16(&mut self, field: &str) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn i64(&mut self, field: &str) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array(field)?))
    }

    /// A count of things of at least `least` bytes each, so that a hostile count cannot make us allocate.
    pub(crate) fn count(&mut self, field: &str, least: usize) -> Result<usize> {
        let count = self.u32(field)? as usize;
        if count.checked_mul(least.max(1)).is_none_or(|bytes| bytes > self.rest.len()) {
            let message =
                format!("{field}: {count} of at least {least} bytes each, but {} bytes left", self.rest.len());
            return Err(Error::corrupt(message));
        }
        Ok(count)
    }

    /// u32 length, then that many bytes.
    pub(crate) fn blob(&mut self, field: &str) -> Result<&'a [u8]> {
        let len = self.u32(field)? as usize;
        self.bytes(field, len)
    }

    /// A blob that is UTF-8.
    pub(crate) fn text(&mut self, field: &str) -> Result<String> {
        let blob = self.blob(field)?;
        match std::str::from_utf8(blob) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Error::corrupt(format!("{field}: not UTF-8"))),
        }
    }

    /// Fails unless everything was taken.
    pub(crate) fn end(&self, what: &str) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(format!("{what}: {} bytes too many", self.rest.len())))
    }
}

/// Puts fields on the end of a buffer.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_le_bytes());
    }

    fn put_count(&mut self, count: usize) {
        self.put_u32(u32::try_from(count).expect("a stored list has fewer than 2^32 items"));
    }

    fn put_blob(&mut self, blob: &[u8]) {
        self.put_count(blob.len());
        self.put(blob);
    }

    fn put_text(&mut self, text: &str) {
        self.put_blob(text.as_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// CRC-32C, the checksum of every header.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Appends the checksum of everything in the buffer from `start`.
pub(crate) fn seal(out: &mut Vec<u8>, start: usize) {
    let sum = checksum(&out[start..]);
    out.put_u32(sum);
}

/// What every stored object begins with: magic, version, flags.
pub(crate) fn put_magic(out: &mut Vec<u8>, magic: [u8; 8], version: u16, flags: u16) {
    out.put(&magic);
    out.put_u16(version);
    out.put_u16(flags);
}

/// Flag of every object's header: the body is sealed by encryption. No reader of this release knows how.
pub(crate) const FLAG_SEALED: u16 = 1;

/// Checks magic, version and flags of a stored object.
pub(crate) fn take_magic(fields: &mut Fields<'_>, what: &str, magic: [u8; 8], version: u16) -> Result<()> {
    let found: [u8; 8] = fields.array("magic")?;
    if found != magic {
        let found = String::from_utf8_lossy(&found).into_owned();
        return Err(Error::corrupt(format!("{what}: does not begin with its magic but with {found:?}")));
    }
    let found = fields.u16("version")?;
    let flags = fields.u16("flags")?;
    check_version(what, found, version)?;
    check_flags(what, flags)
}

/// Refuses another version by name. Comes before any checksum: another version may have its checksums elsewhere.
pub(crate) fn check_version(what: &str, found: u16, known: u16) -> Result<()> {
    if found == known {
        return Ok(());
    }
    let message = format!("{what}: format version {found}, this everpack reads version {known}");
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// Refuses sealed bodies and every other flag by name: this release knows none.
pub(crate) fn check_flags(what: &str, flags: u16) -> Result<()> {
    if flags & FLAG_SEALED != 0 {
        let message = format!("{what}: encrypted, and this everpack has no feature \"encryption\"");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    if flags != 0 {
        let message = format!("{what}: uses flags {flags:#06x} that this everpack does not know");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(())
}

/// Compares a stored checksum.
pub(crate) fn check_sum(what: &str, stored: u32, bytes: &[u8]) -> Result<()> {
    if stored == checksum(bytes) {
        return Ok(());
    }
    Err(Error::corrupt(format!("{what}: checksum does not match")))
}
