//! The entries of a backup, streamed segment by segment: memory does not depend on their number.

use std::collections::HashSet;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};

use super::{Entry, Manifest, Piece, Pieces, Repository};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::manifest::SegmentRef;
use crate::format::segment::{SegmentReader, decode_piece_list};
use crate::index::Index;

/// Segments fetched ahead.
const AHEAD: usize = 3;

/// A backup's entries in order.
pub(crate) struct EntryStream {
    segments: BoxStream<'static, Result<Vec<Entry>>>,
}

impl EntryStream {
    /// All entries of a manifest.
    pub(crate) fn new(repository: &Repository, index: &Arc<Index>, manifest: &Manifest) -> Self {
        Self::of_segments(repository, index, manifest.segments.clone())
    }

    /// The entries of some segments of one manifest, in the order given.
    pub(crate) fn of_segments(repository: &Repository, index: &Arc<Index>, segments: Vec<SegmentRef>) -> Self {
        let repository = repository.clone();
        let index = Arc::clone(index);
        let segments = stream::iter(segments)
            .map(move |segment| {
                let repository = repository.clone();
                let index = Arc::clone(&index);
                async move { repository.read_segment(&index, &segment).await }
            })
            .buffered(AHEAD);
        Self { segments: segments.boxed() }
    }

    /// The next segment's entries; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<Entry>>> {
        self.segments.next().await
    }
}

impl Repository {
    /// Reads one segment of a manifest.
    pub(crate) async fn read_segment(&self, index: &Index, segment: &SegmentRef) -> Result<Vec<Entry>> {
        let plain = self.read_chunk(index, &segment.chunk).await.context(|| "read a manifest segment")?;
        let entries = SegmentReader::new(&plain)?.collect::<Result<Vec<_>>>()?;
        if entries.len() != segment.entry_count as usize {
            let message = format!(
                "manifest segment {}: {} entries, {} expected",
                segment.chunk,
                entries.len(),
                segment.entry_count
            );
            return Err(Error::corrupt(message));
        }
        Ok(entries)
    }
}

impl Repository {
    /// Finds the packs in which segments of a manifest are damaged, and stops the index from counting them: a backup whose parent has them
    /// must not rely on them.
    pub(crate) async fn leave_out_damaged_segments(&self, index: &Index, manifest: &Manifest) -> Result<()> {
        let mut damaged = HashSet::new();
        for segment in &manifest.segments {
            for location in index.locations(&segment.chunk)? {
                let Some(pack) = index.pack(location.pack) else { continue };
                match self.read_at(&segment.chunk, &pack, &location).await {
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                        damaged.insert(location.pack);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        index.leave_out(&damaged);
        Ok(())
    }
}

/// The pieces of a file in order, in runs of bounded size: for a very large file, list by list.
pub(crate) fn pieces_of<'a>(
    repository: &'a Repository,
    index: &'a Arc<Index>,
    pieces: &'a Pieces,
) -> BoxStream<'a, Result<Vec<Piece>>> {
    match pieces {
        Pieces::Direct(pieces) => stream::iter([Ok(pieces.clone())]).boxed(),
        Pieces::Lists(lists) => stream::iter(lists)
            .map(move |list| async move {
                let plain = repository.read_chunk(index, &list.chunk).await.context(|| "read a piece list")?;
                decode_piece_list(&plain)
            })
            .buffered(2)
            .boxed(),
    }
}
