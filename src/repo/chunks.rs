//! Chunks out of packs: read, decoded, verified. A damaged location is no reason to stop while there is a spare.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{CodedChunk, Repository};
use crate::codec::{Decoder, chunk_id};
use crate::error::{Context, Error, Result};
use crate::id::ChunkId;
use crate::index::{Index, PackInfo};
use crate::pack::{Location, read_record};
use crate::store::StoredObject;

/// Decodes a record and proves that it is the chunk asked for.
pub(crate) fn decode_verified(
    id: ChunkId,
    location: &Location,
    record: &[u8],
    decoder: &mut Decoder,
    out: &mut Vec<u8>,
) -> Result<()> {
    let (header, payload) = read_record(id, location, record)?;
    decoder
        .decode_into(header.coding, payload, header.plain_len, out)
        .context(|| format!("chunk {id} at {}", location.offset))?;
    if chunk_id(out) != id {
        return Err(Error::corrupt(format!("chunk {id} at {}: its bytes are not those of its id", location.offset)));
    }
    Ok(())
}

impl Repository {
    /// Reads one chunk, trying every live location in turn, and at last those in packs that do not count but may still be there:
    /// whatever is read is verified.
    pub(crate) async fn read_chunk(&self, index: &Index, id: &ChunkId) -> Result<Bytes> {
        let locations = index.locations(id)?;
        let mut damage: Option<Error> = None;
        for location in &locations {
            let Some(pack) = index.pack(location.pack) else { continue };
            match self.read_at(id, &pack, location).await {
                Ok(plain) => return Ok(plain),
                Err(error) if error.is_damage() => {
                    index.met_damage(location.pack);
                    damage = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(location) = index.last_resort(id, |_| true)?
            && let Some(pack) = index.pack(location.pack)
            && let Ok(plain) = self.read_at(id, &pack, &location).await
        {
            return Ok(plain);
        }
        Err(damage.unwrap_or_else(|| Error::corrupt(format!("chunk {id}: no live pack holds it"))))
    }

    /// Reads one record as it is stored, proved to be the chunk.
    pub(crate) async fn read_coded(&self, id: &ChunkId, pack: &PackInfo, location: &Location) -> Result<CodedChunk> {
        let record = self.store().get_range(StoredObject::Named(pack.name), location.range()).await?;
        let mut plain = Vec::new();
        decode_verified(*id, location, &record, &mut Decoder::new()?, &mut plain)
            .context(|| format!("read {}", pack.name))?;
        let (header, payload) = read_record(*id, location, &record)?;
        Ok(CodedChunk { id: *id, plain_len: header.plain_len, coding: header.coding, payload: payload.to_vec() })
    }

    /// Reads one chunk from one place.
    pub(crate) async fn read_at(&self, id: &ChunkId, pack: &PackInfo, location: &Location) -> Result<Bytes> {
        let record = self.store().get_range(StoredObject::Named(pack.name), location.range()).await?;
        let mut plain = Vec::new();
        decode_verified(*id, location, &record, &mut Decoder::new()?, &mut plain)
            .context(|| format!("read {}", pack.name))?;
        Ok(Bytes::from(plain))
    }
}

/// The newest few plain chunks, for readers that come back to the same one.
#[derive(Debug)]
pub(crate) struct ChunkCache {
    most: usize,
    inner: Mutex<CacheInner>,
}

#[derive(Debug, Default)]
struct CacheInner {
    bytes: usize,
    clock: u64,
    chunks: HashMap<ChunkId, (Bytes, u64)>,
}

impl ChunkCache {
    /// Keeps at most `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, inner: Mutex::default() }
    }

    /// Reads a chunk through the cache.
    pub(crate) async fn read(&self, repository: &Repository, index: &Arc<Index>, id: &ChunkId) -> Result<Bytes> {
        if let Some(plain) = self.get(id) {
            return Ok(plain);
        }
        let plain = repository.read_chunk(index, id).await?;
        self.insert(*id, plain.clone());
        Ok(plain)
    }

    fn get(&self, id: &ChunkId) -> Option<Bytes> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let now = inner.clock;
        inner.chunks.get_mut(id).map(|(plain, used)| {
            *used = now;
            plain.clone()
        })
    }

    fn insert(&self, id: ChunkId, plain: Bytes) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let now = inner.clock;
        inner.bytes += plain.len();
        if let Some((old, _)) = inner.chunks.insert(id, (plain, now)) {
            inner.bytes -= old.len();
        }
        while inner.bytes > self.most && inner.chunks.len() > 1 {
            let Some(oldest) = inner.chunks.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id) else {
                return;
            };
            if let Some((old, _)) = inner.chunks.remove(&oldest) {
                inner.bytes -= old.len();
            }
        }
    }
}
