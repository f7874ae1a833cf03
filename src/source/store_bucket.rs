//! A bucket source over a [`crate::store::Store`]: the glue between what is backed up and where objects lie.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::bucket::{BucketAccess, BucketObject};
use crate::error::Result;
use crate::store::{Folder, ObjectInfo, ObjectPath, StoreReader};

/// The objects below a store's root, whatever they are.
#[derive(Clone, Debug)]
pub struct StoreBucket {
    store: StoreReader,
}

impl StoreBucket {
    /// Everything in this store.
    pub fn new(store: StoreReader) -> Self {
        Self { store }
    }
}

fn object_of(info: &ObjectInfo) -> BucketObject {
    BucketObject {
        key: info.path.as_str().to_owned(),
        size: info.len,
        last_modified: info.last_modified,
        etag: info.etag.clone(),
    }
}

#[async_trait]
impl BucketAccess for StoreBucket {
    fn location(&self) -> String {
        self.store.display().to_owned()
    }

    fn lists_in_order(&self) -> bool {
        // Buckets list by name, so a million objects need no memory; a directory opened as a store lists as it likes.
        self.store.display().split_once("://").is_some_and(|(scheme, _)| matches!(scheme, "s3" | "gs" | "az"))
    }

    fn list(&self) -> BoxStream<'static, Result<BucketObject>> {
        self.store.list(Folder::Root).map(|info| info.map(|info| object_of(&info))).boxed()
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<(BucketObject, Bytes)> {
        let path = ObjectPath::parse(key)?;
        let (info, bytes) = self.store.get_range_with_info(&path, range).await?;
        Ok((object_of(&info), bytes))
    }
}
