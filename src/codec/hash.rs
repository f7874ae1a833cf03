//! Names from bytes: the only home of BLAKE3.
//!
//! Every digest type of `id` that is computed is computed here. Chunks, objects and log entries are hashed whole or in
//! pieces with the same result. Keyed hashing, for encrypted repositories, will come in beside these functions.

use crate::id::{ChunkId, EntryHash, FileHash, LineageId, ObjectHash, SourceIdentity};

/// The name of a chunk.
pub(crate) fn chunk_id(plain: &[u8]) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(plain).as_bytes())
}

/// The hash in a stored object's name.
pub(crate) fn object_hash(stored: &[u8]) -> ObjectHash {
    ObjectHash::from_bytes(*blake3::hash(stored).as_bytes())
}

/// What chains a log entry to the one before it.
pub(crate) fn entry_hash(stored: &[u8]) -> EntryHash {
    EntryHash::from_bytes(*blake3::hash(stored).as_bytes())
}

/// The lineage that goes by a name.
pub(crate) fn lineage_id(name: &str) -> LineageId {
    LineageId::from_bytes(first_half(blake3::hash(name.as_bytes())))
}

/// A source identity made of parts. Where one part ends and the next begins counts: `["ab", "c"]` is not `["a", "bc"]`.
pub(crate) fn identity(parts: &[&[u8]]) -> SourceIdentity {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    SourceIdentity::from_bytes(first_half(hasher.finalize()))
}

fn first_half(hash: blake3::Hash) -> [u8; 16] {
    *hash.as_bytes().first_chunk().expect("16 of 32 bytes")
}

macro_rules! hasher {
    ($(#[$doc:meta])* $name:ident, $id:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(crate) struct $name(blake3::Hasher);

        impl $name {
            /// Nothing hashed yet.
            pub(crate) fn new() -> Self {
                Self::default()
            }

            /// Adds bytes, on this thread.
            pub(crate) fn update(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }

            /// The hash of all bytes added.
            pub(crate) fn finish(self) -> $id {
                $id::from_bytes(*self.0.finalize().as_bytes())
            }
        }
    };
}

hasher! {
    /// Hashes a stored object that comes in pieces.
    ObjectHasher, ObjectHash
}
hasher! {
    /// Hashes a whole logical file that comes in pieces.
    FileHasher, FileHash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::gear::splitmix_bytes;

    /// These names are in people's repositories. If this fails, the format changed.
    #[test]
    fn names_have_not_changed() {
        let abc = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(chunk_id(b"abc").to_string(), abc);
        assert_eq!(object_hash(b"abc").to_string(), abc);
        assert_eq!(entry_hash(b"abc").to_string(), abc);
        assert_eq!(lineage_id("abc").to_string(), abc[..32]);
        let mut prefixed = Vec::new();
        prefixed.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, b'a', 0, 0, 0, 0, 0, 0, 0, 0]);
        prefixed.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, b'b', b'c']);
        assert_eq!(identity(&[b"a", b"", b"bc"]).as_bytes(), &chunk_id(&prefixed).as_bytes()[..16]);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(identity(&[b"ab", b"c"]), identity(&[b"a", b"bc"]));
        assert_ne!(identity(&[b"a"]), identity(&[b"a", b""]));
    }

    #[test]
    fn pieces_do_not_change_a_hash() {
        let bytes = splitmix_bytes(7, 700_001);
        let mut objects = ObjectHasher::new();
        let mut files = FileHasher::new();
        for piece in bytes.chunks(200_003) {
            objects.update(piece);
            files.update(piece);
        }
        let whole = object_hash(&bytes);
        assert_eq!(objects.finish(), whole);
        assert_eq!(files.finish().as_bytes(), whole.as_bytes());
    }
}
