//! What can be done with a repository: verbs, options in, report out.
//!
//! - [`backup`]: from a source to a committed manifest.
//! - [`mod@bench`]: what this machine can do.
//! - [`restore`]: from a manifest to files.
//! - [`start`]: the same as something a MatrixOne server starts from.
//! - [`mod@drill`]: does a server start from it, and answer?
//! - [`check`]: is everything there and whole?
//! - [`repair`]: heals what check and scrub found.
//! - [`mod@forget`]: backups leave the list, come back, are held.
//! - [`mod@import`]: trees that a server's `BACKUP` wrote, each as a complete backup.
//! - [`prune`]: gives back the space of what no backup needs.
//! - [`query`]: what the repository and its backups hold.
//! - [`mod@replicate`]: chosen backups into another repository.
//!
//! A verb takes `&Repository`, tells its progress to a [`crate::progress::Monitor`], never prints, and gives a report that serialises.

pub mod backup;
pub mod bench;
pub mod check;
mod closure;
pub mod drill;
pub mod forget;
pub mod import;
pub mod live;
mod prove;
pub mod prune;
pub mod query;
pub mod repair;
pub mod replicate;
pub mod restore;
pub mod start;
pub(crate) mod target;

pub use prove::prove_lz4;

use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectHash;
use crate::repo::{Manifest, Repository};

/// Runs something slow and synchronous away from the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?
}

/// Reads the root object of a backup. If it is not there, the log as it is now tells why: the backup was forgotten and pruned meanwhile, or the
/// request is right and the repository is damaged.
async fn listed_manifest(repository: &Repository, id: &ObjectHash) -> Result<Manifest> {
    let error = match repository.manifest(id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => error,
        read => return read,
    };
    repository.refresh().await?;
    let is_listed = repository.state().backups.get(id).is_some_and(|backup| backup.forgotten.is_none());
    if is_listed {
        let message = format!("backup {id}: the log lists it, and its manifest is missing");
        return Err(Error::with_source(ErrorKind::Corrupt, message, error));
    }
    let message = format!("backup {id}: it was forgotten and pruned meanwhile");
    Err(Error::with_source(ErrorKind::NotFound, message, error))
}

/// Durations in reports: seconds.
pub(crate) fn seconds<S: serde::Serializer>(duration: &std::time::Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}
