//! Remembers which requests were made, so that tests can hold operations to their cost.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::Result;

use super::{Layer, Request, Store, around};

/// How many requests of each kind were made, and the bytes they moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Puts of immutable objects.
    pub puts: u64,
    /// Create-only puts.
    pub creates: u64,
    /// Reads.
    pub gets: u64,
    /// Looks.
    pub heads: u64,
    /// Deletes.
    pub deletes: u64,
    /// Pages of listings.
    pub lists: u64,
    /// Bytes written.
    pub bytes_put: u64,
    /// Bytes read.
    pub bytes_got: u64,
}

impl Counts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.puts + self.creates + self.gets + self.heads + self.deletes + self.lists
    }
}

#[derive(Debug, Default)]
struct Record {
    requests: Vec<Request>,
    counts: Counts,
}

/// The record of a store's requests.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Record>);

impl Recorder {
    /// The store with a recorder before it.
    pub fn around(store: &Store) -> (Store, Arc<Self>) {
        around(store, Self::default())
    }

    /// Requests so far, failed ones included.
    pub fn counts(&self) -> Counts {
        self.record(|record| record.counts)
    }

    /// Requests so far, in the order they were made.
    pub fn requests(&self) -> Vec<Request> {
        self.record(|record| record.requests.clone())
    }

    /// Forgets what was recorded and returns it.
    pub fn take(&self) -> (Vec<Request>, Counts) {
        self.record(|record| {
            let taken = std::mem::take(record);
            (taken.requests, taken.counts)
        })
    }

    fn record<T>(&self, with: impl FnOnce(&mut Record) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Layer for Recorder {
    async fn before(&self, request: &Request) -> Result<()> {
        self.record(|record| {
            let counts = &mut record.counts;
            let count = match request {
                Request::Put { create: false, .. } => &mut counts.puts,
                Request::Put { create: true, .. } => &mut counts.creates,
                Request::Get { .. } => &mut counts.gets,
                Request::Head { .. } => &mut counts.heads,
                Request::Delete { .. } => &mut counts.deletes,
                Request::List { .. } => &mut counts.lists,
            };
            *count += 1;
            record.requests.push(request.clone());
        });
        Ok(())
    }

    async fn after(&self, request: &Request, len: u64) -> Result<()> {
        self.record(|record| match request {
            Request::Put { .. } => record.counts.bytes_put += len,
            _ => record.counts.bytes_got += len,
        });
        Ok(())
    }
}
