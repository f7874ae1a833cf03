//! Where whole chunks are packed anew, and the entry that puts the new packs in the place of the bad ones.
//!
//! Invariant: a pack is quarantined by the same entry that publishes what was saved of it, and everything that the entry names is durable.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;

use crate::error::Result;
use crate::format::fragment::Fragment;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::format::pack::TableEntry;
use crate::id::{ChunkId, ObjectHash, ObjectKind, ObjectName};
use crate::pack::PackBuilder;
use crate::repo::{CodedChunk, REFRESH_EVERY, Repository, Session};
use crate::store::StoredObject;

/// What was saved is published at the latest behind so many bytes,
const PUBLISH_BYTES: u64 = 1 << 30;
/// or so many chunks.
const PUBLISH_CHUNKS: usize = 100_000;

/// New packs in the making, and the packs that they replace.
pub(super) struct Workshop<'a> {
    pub(super) repository: &'a Repository,
    /// Without one nothing is written: a dry run.
    pub(super) session: Option<&'a Session>,
    builders: [PackBuilder; 2],
    fragment: Fragment,
    unpublished_bytes: u64,
    /// Chunks packed in this round: none twice.
    have: HashSet<ChunkId>,
    quarantine: Vec<(ObjectName, String)>,
    /// Packs that hold what the quarantined ones held too.
    relied: HashSet<ObjectName>,
    published: bool,
    pub(super) chunks: u64,
    pub(super) stored_bytes: u64,
    last_heard: Instant,
}

impl<'a> Workshop<'a> {
    pub(super) fn new(repository: &'a Repository, session: Option<&'a Session>) -> Result<Self> {
        let config = repository.config();
        let builder = |kind| PackBuilder::new(kind, config.family, config.pack_target as usize);
        Ok(Self {
            repository,
            session,
            builders: [builder(ObjectKind::DataPack), builder(ObjectKind::MetaPack)],
            fragment: Fragment::default(),
            unpublished_bytes: 0,
            have: HashSet::new(),
            quarantine: Vec::new(),
            relied: HashSet::new(),
            published: false,
            chunks: 0,
            stored_bytes: 0,
            last_heard: Instant::now(),
        })
    }

    /// True if an entry was appended.
    pub(super) fn published(&self) -> bool {
        self.published
    }

    pub(super) fn has(&self, id: &ChunkId) -> bool {
        self.have.contains(id)
    }

    /// Forgets what it has: the index knows it.
    pub(super) fn forget(&mut self) {
        self.have.clear();
    }

    /// Takes a chunk that was proved by its id.
    pub(super) async fn push(&mut self, kind: ObjectKind, chunk: &CodedChunk) -> Result<()> {
        if !self.have.insert(chunk.id) {
            return Ok(());
        }
        let at = usize::from(kind == ObjectKind::MetaPack);
        if self.builders[at].is_full_for(chunk.payload.len()) {
            self.seal(at).await?;
        }
        self.builders[at].push(chunk.id, chunk.plain_len, chunk.coding, &chunk.payload);
        self.chunks += 1;
        Ok(())
    }

    /// Takes a whole pack as it is, proved by its hash.
    pub(super) async fn push_pack(
        &mut self,
        kind: ObjectKind,
        hash: ObjectHash,
        stored: Bytes,
        table: &[TableEntry],
    ) -> Result<()> {
        let size = stored.len() as u64;
        if let Some(session) = self.session {
            let name = ObjectName { kind, hash, session: session.suffix() };
            self.repository.store().put_new(StoredObject::Named(name), vec![stored]).await?;
            self.fragment.push_pack(name, size, table)?;
        }
        self.have.extend(table.iter().map(|entry| entry.record.id));
        self.stored_bytes += size;
        self.unpublished_bytes += size;
        Ok(())
    }

    /// The pack stops counting with the next entry.
    pub(super) fn quarantine(&mut self, name: ObjectName, why: String) {
        self.quarantine.push((name, why));
    }

    /// What a quarantined pack held is believed to be in this one too.
    pub(super) fn rely_on(&mut self, name: ObjectName) {
        self.relied.insert(name);
    }

    async fn seal(&mut self, at: usize) -> Result<()> {
        let Some(unnamed) = self.builders[at].seal() else { return Ok(()) };
        let Some(session) = self.session else { return Ok(()) };
        let sealed = unnamed.name(session.suffix());
        let size = sealed.stored.len() as u64;
        self.repository.store().put_new(StoredObject::Named(sealed.name), vec![sealed.stored]).await?;
        self.fragment.push_pack(sealed.name, size, &sealed.table)?;
        self.stored_bytes += size;
        self.unpublished_bytes += size;
        Ok(())
    }

    /// Between two packs: publishes if much was saved, and says from time to time that the session is alive.
    pub(super) async fn tend(&mut self) -> Result<()> {
        if self.unpublished_bytes >= PUBLISH_BYTES || self.fragment.entries.len() >= PUBLISH_CHUNKS {
            self.publish().await?;
        }
        if self.last_heard.elapsed() >= REFRESH_EVERY
            && let Some(session) = self.session
        {
            session.refresh().await?;
            self.last_heard = Instant::now();
        }
        Ok(())
    }

    /// One entry: what was saved counts, what it was saved from does not.
    pub(super) async fn publish(&mut self) -> Result<()> {
        for at in 0..self.builders.len() {
            self.seal(at).await?;
        }
        let quarantine = std::mem::take(&mut self.quarantine);
        let relied = std::mem::take(&mut self.relied);
        self.unpublished_bytes = 0;
        let Some(session) = self.session else { return Ok(()) };
        let mut fragments = Vec::new();
        if !self.fragment.packs.is_empty() {
            let mut fragment = std::mem::take(&mut self.fragment);
            fragments.push(self.repository.store_fragment(session, &mut fragment).await?);
        }
        if fragments.is_empty() && quarantine.is_empty() {
            return Ok(());
        }
        session
            .say(async |state: &LogState| {
                let mut records = Vec::new();
                if !fragments.is_empty() {
                    records.push(Record::FragmentsPublished { fragments: fragments.clone() });
                }
                // A prune, or another repair, may have taken them out of use already.
                let counts = |name: &ObjectName| !state.is_dead(name);
                // Where a copy that we rely on was taken out of use meanwhile, the next round looks again.
                let sound = relied.iter().all(counts);
                let bad = quarantine.iter().filter(|(name, _)| sound && counts(name));
                records
                    .extend(bad.map(|(name, why)| Record::PacksQuarantined { packs: vec![*name], why: why.clone() }));
                if records.is_empty() {
                    records.push(Record::SessionRefreshed);
                }
                Ok(records)
            })
            .await?;
        self.published = true;
        self.last_heard = Instant::now();
        Ok(())
    }
}
