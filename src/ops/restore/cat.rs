//! One file of a backup to a stream.

use std::io::Write;
use std::sync::Arc;

use futures::StreamExt;

use super::Framing;
use super::publish::find_entry;
use crate::codec::FileHasher;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::ops::listed_manifest;
use crate::repo::{BackupInfo, ChunkCache, EntryKind, Repository, Transform, pieces_of};
use crate::source::display_path;
use crate::tae::Framer;

/// Chunks kept, since a file's header and footer often share one.
const CACHE_BYTES: usize = 32 << 20;

/// Writes one file to `out`, verified chunk by chunk, and as a whole at the end. Gives the bytes written.
///
/// Fails with `Corrupt` if the file is damaged; what was written before is whole chunks, but not the whole file.
pub async fn cat(
    repository: &Repository,
    backup: &BackupInfo,
    path: &[u8],
    framing: Framing,
    out: &mut (dyn Write + Send),
) -> Result<u64> {
    let index = repository.index().await?;
    let manifest = listed_manifest(repository, &backup.id).await?;
    let name = display_path(path);
    let entry = find_entry(repository, &index, &manifest, path).await?;
    let entry = entry.filter(|entry| entry.kind == EntryKind::File).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("cat {name}: backup {} has no file of that path; `everpack ls -R` shows them", backup.id),
        )
    })?;
    let cache = Arc::new(ChunkCache::new(CACHE_BYTES));
    let mut framer = (framing.of(&entry) == Transform::DiskCrc).then(Framer::new);
    let mut hasher = FileHasher::new();
    let mut framed = Vec::new();
    let mut written = 0;
    let mut runs = pieces_of(repository, &index, &entry.pieces);
    while let Some(run) = runs.next().await {
        for piece in run? {
            let plain = cache.read(repository, &index, &piece.chunk).await.context(|| format!("cat {name}"))?;
            let start = piece.offset as usize;
            let bytes = plain.get(start..start + piece.len as usize);
            let bytes = bytes.ok_or_else(|| Error::corrupt(format!("cat {name}: a piece reaches beyond its chunk")))?;
            hasher.update(bytes);
            written += put(out, bytes, framer.as_mut(), &mut framed).context(|| format!("cat {name}"))?;
        }
    }
    if let Some(framer) = framer {
        framed.clear();
        framer.finish(&mut framed);
        out.write_all(&framed).context(|| format!("cat {name}"))?;
        written += framed.len() as u64;
    }
    if hasher.finish() != entry.hash {
        return Err(Error::corrupt(format!("cat {name}: the bytes written are not those of the file's hash")));
    }
    out.flush().context(|| format!("cat {name}"))?;
    Ok(written)
}

fn put(
    out: &mut (dyn Write + Send),
    bytes: &[u8],
    framer: Option<&mut Framer>,
    framed: &mut Vec<u8>,
) -> std::io::Result<u64> {
    let Some(framer) = framer else {
        out.write_all(bytes)?;
        return Ok(bytes.len() as u64);
    };
    framed.clear();
    framer.feed(bytes, framed);
    out.write_all(framed)?;
    Ok(framed.len() as u64)
}
