//! The entry that makes a backup exist, and the proof that everything it names is live.
//!
//! Between a backup's first lookup and its commit, others may have retired packs that it relied on (rule *revalidate-commit*) or forgotten the
//! parent whose entries it took over (rule *revalidate-parent*). Then every chunk that the backup names is looked up in the newest state, and
//! what is found only in a retired pack, which is still there while our session is open, is copied into a pack of our own.
//!
//! If we crash here: before the entry is created there is no backup; from then on there is one, whole.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::session::Session;
use super::writer::Finished;
use super::{BackupSummary, Manifest, PackSink, Reach, Repository, Rule};
use crate::codec::{Encoder, Level, object_hash};
use crate::error::{Error, Result};
use crate::format::fragment::Fragment;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{ChunkId, ObjectHash, ObjectKind, ObjectName};
use crate::index::{Index, catch_up};
use crate::store::StoredObject;

/// A backup that is complete but for its entry in the log.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) manifest: Manifest,
    pub(crate) summary: BackupSummary,
    /// What the writer left unpublished.
    pub(crate) finished: Finished,
    /// Packs (numbers in the index) that lookups answered from.
    pub(crate) relied: HashSet<u32>,
    /// The backup whose entries were taken over unread.
    pub(crate) parent: Option<ObjectHash>,
}

impl Repository {
    /// Commits and closes the session; gives the backup's id. The index holds the backup's chunks afterwards.
    pub(crate) async fn commit(&self, session: &Session, index: &Arc<Index>, mut commit: Commit) -> Result<ObjectHash> {
        let mut fragments: Vec<(ObjectName, Fragment)> = Vec::new();
        if !commit.finished.fragment.packs.is_empty() {
            let mut fragment = std::mem::take(&mut commit.finished.fragment);
            let name = self.store_fragment(session, &mut fragment).await?;
            fragments.push((name, fragment));
        }
        let stored = Bytes::from(commit.manifest.encode());
        let manifest = ObjectName { kind: ObjectKind::Manifest, hash: object_hash(&stored), session: session.suffix() };
        self.store().put_new(StoredObject::Named(manifest), vec![stored]).await?;

        // Our own chunks are looked up like any others from here on.
        index.insert(&fragments)?;
        session
            .say(async |state: &LogState| {
                let ours: Vec<ObjectName> = fragments.iter().map(|(name, _)| *name).collect();
                let saved = self.relive(session, index, &commit, state, &ours).await?;
                index.insert(&saved)?;
                fragments.extend(saved);
                let names = fragments.iter().map(|(name, _)| *name).collect();
                let mut records =
                    vec![Record::BackupCommitted { manifest, fragments: names, summary: commit.summary.clone() }];
                records.extend(session.closing_records(state).await?);
                Ok(records)
            })
            .await?;
        session.unlock().await;
        catch_up(index, self.store(), &self.state(), &[]).await?;
        Ok(manifest.hash)
    }

    /// Proves that all that the backup names is live in `state`; what is only in retired packs is copied out of them.
    async fn relive(
        &self,
        session: &Session,
        index: &Arc<Index>,
        commit: &Commit,
        state: &LogState,
        ours: &[ObjectName],
    ) -> Result<Vec<(ObjectName, Fragment)>> {
        let pack_lost = self.keeps(Rule::RevalidateCommit)
            && commit.relied.iter().any(|number| index.pack(*number).is_none_or(|pack| state.is_dead(&pack.name)));
        let parent_lost =
            self.keeps(Rule::RevalidateParent) && commit.parent.is_some_and(|parent| !state.is_listed(&parent));
        if !pack_lost && !parent_lost {
            return Ok(Vec::new());
        }
        catch_up(index, self.store(), state, ours).await?;
        let lost = self.chunks_without_live_pack(index, &commit.manifest).await?;
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        self.copy_out(session, index, &lost, state).await
    }

    /// Every chunk that a manifest names and no live pack holds.
    async fn chunks_without_live_pack(&self, index: &Arc<Index>, manifest: &Manifest) -> Result<Vec<ChunkId>> {
        let mut lost = HashSet::new();
        let mut reach = Reach::new(self, index);
        let look = async |ids: &mut Vec<ChunkId>| {
            let found = index.lookup(ids)?;
            lost.extend(ids.iter().zip(found).filter(|(_, location)| location.is_none()).map(|(id, _)| *id));
            Ok(())
        };
        reach.visit(manifest, look).await?;
        Ok(lost.into_iter().collect())
    }

    /// Copies chunks out of retired packs into packs of our own. Rule *wait-for-sessions* keeps those objects while our session is open.
    async fn copy_out(
        &self,
        session: &Session,
        index: &Index,
        lost: &[ChunkId],
        state: &LogState,
    ) -> Result<Vec<(ObjectName, Fragment)>> {
        let mut sink = PackSink::new(self, session);
        let mut encoder = Encoder::new(Level::new(self.config().level)?)?;
        for id in lost {
            let location = index.last_resort(id, |name| state.retired.contains_key(name))?;
            let Some((location, pack)) = location.and_then(|location| Some((location, index.pack(location.pack)?)))
            else {
                let message = format!(
                    "chunk {id}: its pack was retired and is gone; nothing was committed, run the backup again"
                );
                return Err(Error::new(crate::error::ErrorKind::Busy, message));
            };
            let plain = self.read_at(id, &pack, &location).await?;
            let encoded = encoder.encode(&plain, None);
            sink.push(pack.name.kind, *id, location.plain_len, encoded.coding, encoded.payload).await?;
        }
        Ok(sink.finish().await?.fragments)
    }
}
