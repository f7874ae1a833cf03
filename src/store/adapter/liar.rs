//! Stores that say "created" and mean something else. Both kinds exist; a probe must find them.

use std::time::Duration;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult, Result,
};

use super::{Layer, Store, around};

/// Ignores the condition of a create and overwrites what is there.
#[derive(Debug)]
pub struct Overwriter(());

impl Overwriter {
    /// The store, lying.
    pub fn around(store: &Store) -> Store {
        around(store, Self(())).0
    }
}

#[async_trait]
impl Layer for Overwriter {
    async fn put(&self, inner: &dyn ObjectStore, path: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        inner.put(path, payload).await
    }
}

/// How long [`Racy`] lets others look before it writes: long enough that a busy machine gets to them.
const WINDOW: Duration = Duration::from_millis(20);

/// Keeps the condition of a create between two who come one after the other, but looks first and writes later, so that
/// several who come at once are all told that they were first.
#[derive(Debug)]
pub struct Racy(());

impl Racy {
    /// The store, lying now and then.
    pub fn around(store: &Store) -> Store {
        around(store, Self(())).0
    }
}

#[async_trait]
impl Layer for Racy {
    async fn put(
        &self,
        inner: &dyn ObjectStore,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if options.mode == PutMode::Create {
            match inner.head(path).await {
                Ok(_) => {
                    let source = "found when looking first".into();
                    return Err(StoreError::AlreadyExists { path: path.to_string(), source });
                }
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(WINDOW).await;
        }
        inner.put(path, payload).await
    }
}
