//! Names of things: digests, sessions and stored objects, as types that cannot be mixed up.
//!
//! Values only: nothing here computes a hash (that is `codec::hash`) or knows where objects lie (that is `store::layout`).

use std::fmt;

use crate::error::{Error, Result};

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads exactly `N` bytes of lower-case hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// From bytes as stored.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes as stored.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// From full lower-case hexadecimal digits.
            pub fn from_hex(text: &str) -> Option<Self> {
                from_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", &to_hex(&self.0[..4]))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(&to_hex(&self.0))
            }
        }
    };
}

byte_id! {
    /// BLAKE3 of a chunk's plain bytes. Two equal chunks have one id, which is what makes deduplication work.
    ChunkId, 32
}
byte_id! {
    /// BLAKE3 of a stored object's bytes.
    ObjectHash, 32
}
byte_id! {
    /// BLAKE3 of a whole logical file.
    FileHash, 32
}
byte_id! {
    /// BLAKE3 of a log entry's stored bytes; of the config for the entry before the first.
    EntryHash, 32
}
byte_id! {
    /// A writer's registration in the log.
    SessionId, 8
}
byte_id! {
    /// Random bytes by which a writer recognises its own create-only write.
    Token, 16
}
byte_id! {
    /// One repository.
    RepositoryId, 16
}
byte_id! {
    /// A repository and its replicas under the same keys.
    FamilyId, 16
}
byte_id! {
    /// The source identity whose newest backup is the parent of the next: BLAKE3 of its name, cut to 16 bytes.
    LineageId, 16
}
byte_id! {
    /// A cheap identity of a file at its source: equal identities mean equal content.
    SourceIdentity, 16
}

impl SourceIdentity {
    /// Of a file that is not recognised by it: equal to no other, itself included, whatever `==` says.
    pub(crate) const UNKNOWN: Self = Self([0; Self::LEN]);
}

impl ChunkId {
    /// The first four bytes, for hashing into tables and content-defined decisions.
    pub(crate) fn prefix(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

/// What an immutable, hash-named object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A pack of file chunks.
    DataPack,
    /// A pack of manifest segments and piece lists.
    MetaPack,
    /// An index fragment.
    Fragment,
    /// The root object of one backup.
    Manifest,
    /// A parity group (reserved).
    Parity,
    /// A part of the scrub ledger (reserved).
    Scrub,
}

impl ObjectKind {
    /// The number that stands for it in stored bytes.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::DataPack => 1,
            Self::MetaPack => 2,
            Self::Fragment => 3,
            Self::Manifest => 4,
            Self::Parity => 5,
            Self::Scrub => 6,
        }
    }

    /// From stored bytes.
    pub(crate) fn from_code(code: u8) -> Result<Self> {
        Ok(match code {
            1 => Self::DataPack,
            2 => Self::MetaPack,
            3 => Self::Fragment,
            4 => Self::Manifest,
            5 => Self::Parity,
            6 => Self::Scrub,
            _ => return Err(Error::corrupt(format!("object kind {code} is not known"))),
        })
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::DataPack => "pack",
            Self::MetaPack => "meta pack",
            Self::Fragment => "index fragment",
            Self::Manifest => "manifest",
            Self::Parity => "parity group",
            Self::Scrub => "scrub ledger",
        }
    }
}

/// The name of an immutable object: what it is, BLAKE3 of its bytes, and the session that wrote it.
///
/// The session makes a name unique for ever, even when two writers store the same bytes; the deletion rules rest on that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// What it is.
    pub kind: ObjectKind,
    /// BLAKE3 of the stored bytes.
    pub hash: ObjectHash,
    /// Who wrote it.
    pub session: SessionId,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-{}", self.kind.word(), self.hash, self.session)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}-{:?}", self.kind, self.hash, self.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways_and_refuses_what_is_not_hex() {
        let id = SessionId::from_bytes([0, 1, 0xab, 0xff, 4, 5, 6, 7]);
        assert_eq!(id.to_string(), "0001abff04050607");
        assert_eq!(SessionId::from_hex(&id.to_string()), Some(id));
        assert_eq!(SessionId::from_hex("0001ABFF04050607"), None);
        assert_eq!(SessionId::from_hex("0001abff0405060"), None);
        assert_eq!(SessionId::from_hex("0001abff0405060g"), None);
    }
}
