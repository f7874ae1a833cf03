//! A replica: another repository of the family, or a copy of this one, and what can be had of it. Everything that comes from it is proved here.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use tokio::sync::OnceCell;

use super::RepairReport;
use crate::codec::object_hash;
use crate::error::{Error, Result};
use crate::format::log_record::Purpose;
use crate::id::{ChunkId, ObjectHash, ObjectKind, ObjectName};
use crate::index::Index;
use crate::repo::{CodedChunk, Repository, Session, SessionRequest};
use crate::store::{Folder, StoredObject};

/// Object names by hash: a replica's bear its own sessions.
type Names = HashMap<(ObjectKind, ObjectHash), Vec<ObjectName>>;

/// A replica, open.
pub(super) struct Donor {
    repository: Repository,
    /// Keeps what we read from being deleted, if the replica can be written.
    session: Option<Session>,
    index: Arc<Index>,
    packs: OnceCell<Names>,
    manifests: OnceCell<Names>,
}

impl Donor {
    pub(super) async fn open(repository: &Repository, writes: bool, report: &mut RepairReport) -> Result<Self> {
        let request = SessionRequest::for_work(Purpose::Repair);
        // The lock of a store for one writer is not ours to take for reading.
        let session = if !writes || repository.config().store.single_writer {
            None
        } else {
            match Session::open(repository, request).await {
                Ok(session) => Some(session),
                Err(error) => {
                    let message = format!(
                        "read {} without a session, since it cannot be written: {error}",
                        repository.location()
                    );
                    report.remarks.push(message);
                    None
                }
            }
        };
        let index = repository.index().await.map_err(|error| named(repository, error));
        let index = match index {
            Ok(index) => index,
            Err(error) => {
                if let Some(session) = session {
                    let _closed = session.close().await;
                }
                return Err(error);
            }
        };
        let repository = repository.clone();
        Ok(Self { repository, session, index, packs: OnceCell::new(), manifests: OnceCell::new() })
    }

    pub(super) fn location(&self) -> String {
        self.repository.location()
    }

    pub(super) async fn close(self) {
        if let Some(session) = self.session {
            // A session that cannot be closed is fenced by the next writer.
            let _closed = session.close().await;
        }
    }

    async fn list(&self, kinds: &[ObjectKind]) -> Result<Names> {
        let mut names = Names::new();
        for kind in kinds {
            let mut listing = self.repository.store().list(Folder::of(*kind));
            while let Some(info) = listing.try_next().await? {
                if let StoredObject::Named(name) = info.object() {
                    names.entry((name.kind, name.hash)).or_default().push(name);
                }
            }
        }
        Ok(names)
    }

    /// An object with these bytes under whatever session, proved by its hash.
    async fn object(&self, names: &Names, kind: ObjectKind, hash: &ObjectHash) -> Result<Option<Bytes>> {
        for name in names.get(&(kind, *hash)).into_iter().flatten() {
            match self.repository.store().get(StoredObject::Named(*name)).await {
                Ok(stored) if object_hash(&stored) == *hash => return Ok(Some(stored)),
                Ok(_) => {}
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(named(&self.repository, error)),
            }
        }
        Ok(None)
    }

    /// A whole pack.
    pub(super) async fn pack(&self, kind: ObjectKind, hash: &ObjectHash) -> Result<Option<Bytes>> {
        let kinds = [ObjectKind::DataPack, ObjectKind::MetaPack];
        let names = self.packs.get_or_try_init(|| self.list(&kinds)).await?;
        self.object(names, kind, hash).await
    }

    /// A manifest.
    pub(super) async fn manifest(&self, hash: &ObjectHash) -> Result<Option<Bytes>> {
        let names = self.manifests.get_or_try_init(|| self.list(&[ObjectKind::Manifest])).await?;
        self.object(names, ObjectKind::Manifest, hash).await
    }

    /// One chunk from wherever the replica has it, and what kind of pack it belongs in.
    pub(super) async fn chunk(&self, id: &ChunkId) -> Result<Option<(ObjectKind, CodedChunk)>> {
        match find_whole(&self.repository, &self.index, id).await {
            Ok(found) => Ok(found),
            Err(error) => Err(named(&self.repository, error)),
        }
    }
}

fn named(repository: &Repository, error: Error) -> Error {
    error.context(format!("read {}", repository.location()))
}

/// A whole record of a chunk from any place that is known, live or not.
pub(super) async fn find_whole(
    repository: &Repository,
    index: &Index,
    id: &ChunkId,
) -> Result<Option<(ObjectKind, CodedChunk)>> {
    for location in index.all_locations(id)? {
        let Some(pack) = index.pack(location.pack) else { continue };
        match repository.read_coded(id, &pack, &location).await {
            Ok(chunk) => return Ok(Some((pack.name.kind, chunk))),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
