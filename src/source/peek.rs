//! A source whose first entries were looked at before it is read from the beginning.

use std::sync::Arc;

use super::{OpenFile, Skipped, Source, SourceDescription, SourceEntry};
use crate::error::Result;

/// Gives the entries looked at first, then the rest.
pub(crate) struct Peeked {
    source: Box<dyn Source>,
    first: std::collections::VecDeque<SourceEntry>,
}

impl Peeked {
    /// Takes up to `count` entries off the source, and gives a copy of them.
    pub(crate) fn new(mut source: Box<dyn Source>, count: usize) -> Result<(Self, Vec<SourceEntry>)> {
        let mut first = Vec::new();
        while first.len() < count {
            let batch = source.next_batch(count - first.len())?;
            if batch.is_empty() {
                break;
            }
            first.extend(batch);
        }
        Ok((Self { source, first: first.clone().into() }, first))
    }
}

impl Source for Peeked {
    fn describe(&self) -> SourceDescription {
        self.source.describe()
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        if self.first.is_empty() {
            return self.source.next_batch(max);
        }
        let take = self.first.len().min(max);
        Ok(self.first.drain(..take).collect())
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        self.source.reader()
    }

    fn skipped(&self) -> Skipped {
        self.source.skipped()
    }
}
