//! A file on a local disk that is given up when the disk is full, so that the log entry which frees space can be written.

use bytes::Bytes;

use super::Repository;
use crate::error::Result;
use crate::store::StoredObject;

/// Room for entries of the log on a full disk, and for what goes with them.
const BALLAST_BYTES: usize = 1 << 20;

impl Repository {
    /// Puts the ballast in its place if it is not there and there is room.
    pub(crate) async fn keep_ballast(&self) {
        let store = self.store();
        if store.local_path().is_none() || store.exists(StoredObject::Ballast).await.unwrap_or(true) {
            return;
        }
        // Bytes that no file system leaves out or shrinks.
        let mut bytes = vec![0; BALLAST_BYTES];
        if self.environment().entropy.fill(&mut bytes).is_ok() {
            // Without it, a full disk needs a hand; no reason to fail now.
            let _kept = store.put_new(StoredObject::Ballast, vec![Bytes::from(bytes)]).await;
        }
    }

    /// Does something; if the disk is full, gives the ballast up and does it once more.
    pub(crate) async fn spend_ballast<T>(&self, mut act: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        match act().await {
            Err(error) if error.is_disk_full() => {
                self.store().delete(StoredObject::Ballast).await?;
                act().await
            }
            done => done,
        }
    }
}
