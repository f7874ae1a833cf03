//! Coded chunks into packs and fragments of a session, in the order in which they come. For who copies what is stored already: prune, and a
//! commit that saves chunks out of retired packs. A backup's own chunks go through [`super::writer`].
//!
//! If we crash here: packs and fragments that no log entry names. They bear the session's name, and a later prune sweeps them.

use tokio::task::JoinSet;

use super::Repository;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::format::fragment::Fragment;
use crate::id::{ChunkId, ObjectKind, ObjectName};
use crate::pack::{PackBuilder, SealedPack};
use crate::store::StoredObject;

/// Packs on their way at once; with the two in the making that is how many are in memory.
const UPLOADS: usize = 2;
/// Entries of a fragment.
pub(crate) const FRAGMENT_ENTRIES: usize = 1 << 18;
/// Packs of a fragment.
pub(crate) const FRAGMENT_PACKS: usize = 60_000;

/// Takes coded chunks.
pub(crate) struct PackSink<'a> {
    repository: &'a Repository,
    session: &'a Session,
    builders: [PackBuilder; 2],
    uploads: JoinSet<Result<SealedPack>>,
    fragment: Fragment,
    fragments: Vec<(ObjectName, Fragment)>,
    stored: Vec<(ObjectName, u64)>,
}

/// Packs and fragments, durable but not named by the log.
#[derive(Debug, Default)]
pub(crate) struct Sunk {
    pub(crate) fragments: Vec<(ObjectName, Fragment)>,
    /// With their bytes.
    pub(crate) packs: Vec<(ObjectName, u64)>,
}

impl<'a> PackSink<'a> {
    pub(crate) fn new(repository: &'a Repository, session: &'a Session) -> Self {
        let config = repository.config();
        let builder = |kind| PackBuilder::new(kind, config.family, config.pack_target as usize);
        Self {
            repository,
            session,
            builders: [builder(ObjectKind::DataPack), builder(ObjectKind::MetaPack)],
            uploads: JoinSet::new(),
            fragment: Fragment::default(),
            fragments: Vec::new(),
            stored: Vec::new(),
        }
    }

    /// Appends a chunk to the pack of its kind.
    pub(crate) async fn push(
        &mut self,
        kind: ObjectKind,
        id: ChunkId,
        plain_len: u32,
        coding: u8,
        payload: &[u8],
    ) -> Result<()> {
        let at = usize::from(kind == ObjectKind::MetaPack);
        if self.builders[at].is_full_for(payload.len()) {
            self.seal(at).await?;
        }
        self.builders[at].push(id, plain_len, coding, payload);
        Ok(())
    }

    async fn seal(&mut self, at: usize) -> Result<()> {
        let Some(unnamed) = self.builders[at].seal() else { return Ok(()) };
        while self.uploads.len() >= UPLOADS {
            self.reap().await?;
        }
        let (store, suffix) = (self.repository.store().clone(), self.session.suffix());
        self.uploads.spawn(async move {
            let sealed = tokio::task::spawn_blocking(move || unnamed.name(suffix)).await;
            let sealed = sealed.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
            store.put_new(StoredObject::Named(sealed.name), vec![sealed.stored.clone()]).await?;
            Ok(sealed)
        });
        Ok(())
    }

    /// Takes note of one pack that is durable now.
    async fn reap(&mut self) -> Result<()> {
        let Some(joined) = self.uploads.join_next().await else { return Ok(()) };
        let sealed = joined.map_err(|error| Error::new(ErrorKind::Unavailable, format!("store a pack: {error}")))??;
        let size = sealed.stored.len() as u64;
        self.stored.push((sealed.name, size));
        self.fragment.push_pack(sealed.name, size, &sealed.table)?;
        if self.fragment.entries.len() >= FRAGMENT_ENTRIES || self.fragment.packs.len() >= FRAGMENT_PACKS {
            self.end_fragment().await?;
        }
        Ok(())
    }

    async fn end_fragment(&mut self) -> Result<()> {
        if self.fragment.packs.is_empty() {
            return Ok(());
        }
        let mut fragment = std::mem::take(&mut self.fragment);
        let name = self.repository.store_fragment(self.session, &mut fragment).await?;
        self.fragments.push((name, fragment));
        Ok(())
    }

    /// Stores what is left.
    pub(crate) async fn finish(&mut self) -> Result<Sunk> {
        for at in 0..self.builders.len() {
            self.seal(at).await?;
        }
        while !self.uploads.is_empty() {
            self.reap().await?;
        }
        self.end_fragment().await?;
        Ok(Sunk { fragments: std::mem::take(&mut self.fragments), packs: std::mem::take(&mut self.stored) })
    }

    /// Gives everything up, and the room it took: nobody relies on what no entry names.
    pub(crate) async fn discard(mut self) {
        while let Some(joined) = self.uploads.join_next().await {
            if let Ok(Ok(sealed)) = joined {
                self.stored.push((sealed.name, 0));
            }
        }
        let fragments = std::mem::take(&mut self.fragments);
        Sunk { fragments, packs: std::mem::take(&mut self.stored) }.discard(self.repository).await;
    }
}

impl Sunk {
    /// Bytes of the packs.
    pub(crate) fn bytes(&self) -> u64 {
        self.packs.iter().map(|(_, size)| size).sum()
    }

    /// Deletes what was stored and is named nowhere.
    pub(crate) async fn discard(self, repository: &Repository) {
        let names = self.packs.iter().map(|(name, _)| *name).chain(self.fragments.iter().map(|(name, _)| *name));
        let paths = names.map(crate::store::ObjectPath::from).collect();
        // What stays is swept by a later prune.
        let _deleted = repository.store().delete_many(paths).await;
    }
}
