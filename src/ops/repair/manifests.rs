//! Manifests that are missing or damaged: fetched by their hash, stored under a name of ours, and committed again, which moves the backup there.

use bytes::Bytes;
use futures::TryStreamExt;

use super::donor::Donor;
use super::{RepairReport, describe};
use crate::codec::object_hash;
use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::format::manifest::Manifest;
use crate::id::{ObjectHash, ObjectKind, ObjectName};
use crate::repo::{Repository, Session};
use crate::store::{Folder, StoredObject};

/// Brings manifests back. True if any got a new name.
pub(super) async fn heal(
    repository: &Repository,
    session: Option<&Session>,
    donor: Option<&Donor>,
    report: &mut RepairReport,
) -> Result<bool> {
    let mut moved = false;
    let ids: Vec<ObjectHash> = repository.state().backups.keys().copied().collect();
    for id in ids {
        let error = match repository.manifest(&id).await {
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
            Err(error) if error.is_damage() => error,
            Err(error) => return Err(error),
        };
        // What cannot be brought back is a finding of the look that follows.
        let Some((stored, how)) = find(repository, donor, &id).await? else { continue };
        let Some(lost) = repository.state().backups.get(&id).map(|backup| backup.manifest) else { continue };
        if let Some(session) = session {
            put_back(repository, session, lost, stored).await?;
        }
        report.add(lost.to_string(), describe(&error), how);
        moved = true;
    }
    Ok(moved)
}

/// A whole copy of the manifest: from the replica, or one that lies here under another name.
async fn find(repository: &Repository, donor: Option<&Donor>, id: &ObjectHash) -> Result<Option<(Bytes, String)>> {
    if let Some(donor) = donor
        && let Some(stored) = donor.manifest(id).await?
        && Manifest::decode(&stored).is_ok()
    {
        return Ok(Some((stored, format!("fetched from {}", donor.location()))));
    }
    let mut listing = repository.store().list(Folder::Manifests);
    while let Some(info) = listing.try_next().await? {
        let StoredObject::Named(name) = info.object() else { continue };
        if name.hash != *id {
            continue;
        }
        match repository.store().get(StoredObject::Named(name)).await {
            Ok(stored) if object_hash(&stored) == *id && Manifest::decode(&stored).is_ok() => {
                return Ok(Some((stored, format!("copied from {name}"))));
            }
            Ok(_) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn put_back(repository: &Repository, session: &Session, lost: ObjectName, stored: Bytes) -> Result<()> {
    let name = ObjectName { kind: ObjectKind::Manifest, hash: lost.hash, session: session.suffix() };
    repository.store().put_new(StoredObject::Named(name), vec![stored]).await?;
    session
        .say(async |state: &LogState| {
            // Pruned meanwhile, it is not wanted back; moved by another repair, it is there.
            let Some(backup) = state.backups.get(&lost.hash).filter(|backup| backup.manifest == lost) else {
                return Ok(vec![Record::SessionRefreshed]);
            };
            if state.retired.contains_key(&name) {
                return Err(Error::new(ErrorKind::Busy, format!("{name}: was retired; run the repair again")));
            }
            let summary = backup.summary.clone();
            Ok(vec![Record::BackupCommitted { manifest: name, fragments: Vec::new(), summary }])
        })
        .await
}
