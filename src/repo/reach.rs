//! What backups reach: every chunk that their manifests name, segments and piece lists included.
//!
//! Streamed: each distinct segment and piece list is read once however many backups share it, and of a chunk nothing is remembered. Memory
//! depends on the number of segments.

use std::collections::HashSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Manifest, Pieces, Repository, pieces_of};
use crate::error::Result;
use crate::format::manifest::SegmentRef;
use crate::id::ChunkId;
use crate::index::Index;

/// Segments read ahead.
const AHEAD: usize = 4;
/// Chunk ids shown at once, about: 2 MiB of them.
const BATCH: usize = 65_536;

/// A walk over backups, one after the other.
#[derive(Debug)]
pub(crate) struct Reach {
    repository: Repository,
    index: Arc<Index>,
    /// Segments and piece lists that were read.
    read: HashSet<ChunkId>,
    batch: Vec<ChunkId>,
}

impl Reach {
    /// Nothing was visited yet. Chunks are read through `index`.
    pub(crate) fn new(repository: &Repository, index: &Arc<Index>) -> Self {
        Self {
            repository: repository.clone(),
            index: Arc::clone(index),
            read: HashSet::new(),
            batch: Vec::with_capacity(BATCH),
        }
    }

    /// Shows `visit` every chunk that the manifest names and that stands in no segment visited before, in batches, neither sorted nor
    /// free of repetitions. A segment's own id comes with its content.
    ///
    /// Fails if a segment or a piece list cannot be read: what it names is then unknown.
    pub(crate) async fn visit(
        &mut self,
        manifest: &Manifest,
        visit: impl AsyncFnMut(&mut Vec<ChunkId>) -> Result<()>,
    ) -> Result<()> {
        self.visit_segments(&manifest.segments, visit).await
    }

    /// The same for some segments of a manifest.
    pub(crate) async fn visit_segments(
        &mut self,
        segments: &[SegmentRef],
        mut visit: impl AsyncFnMut(&mut Vec<ChunkId>) -> Result<()>,
    ) -> Result<()> {
        let new: Vec<_> = segments.iter().filter(|segment| self.read.insert(segment.chunk)).cloned().collect();
        let (repository, index) = (self.repository.clone(), Arc::clone(&self.index));
        let mut segments = stream::iter(new)
            .map(|segment| {
                let (repository, index) = (repository.clone(), Arc::clone(&index));
                async move {
                    let entries = repository.read_segment(&index, &segment).await?;
                    Ok((segment.chunk, entries))
                }
            })
            .buffered(AHEAD)
            .boxed();
        while let Some((segment, entries)) = segments.try_next().await? {
            self.batch.push(segment);
            for entry in entries {
                self.take(&entry.pieces).await?;
                if self.batch.len() >= BATCH {
                    visit(&mut self.batch).await?;
                    self.batch.clear();
                }
            }
        }
        visit(&mut self.batch).await?;
        self.batch.clear();
        Ok(())
    }

    async fn take(&mut self, pieces: &Pieces) -> Result<()> {
        match pieces {
            Pieces::Direct(pieces) => self.batch.extend(pieces.iter().map(|piece| piece.chunk)),
            Pieces::Lists(lists) => {
                // A list that was read for another file is the same list: what it names was shown.
                let new = lists.iter().filter(|list| self.read.insert(list.chunk)).cloned().collect();
                let new = Pieces::Lists(new);
                if let Pieces::Lists(lists) = &new {
                    self.batch.extend(lists.iter().map(|list| list.chunk));
                }
                let mut runs = pieces_of(&self.repository, &self.index, &new);
                while let Some(run) = runs.next().await {
                    self.batch.extend(run?.iter().map(|piece| piece.chunk));
                }
            }
        }
        Ok(())
    }
}
