//! Makes a fast store as slow as a distant one: a delay for each request, a bandwidth for each stream.

use std::time::Duration;

use async_trait::async_trait;
use object_store::Result;

use super::{Layer, Request, Store, around};

/// How slow a store is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Added to every request, and to every page of a listing.
    pub latency: Duration,
    /// Of one request with a body; requests side by side do not slow each other. 0 for no limit.
    pub bytes_per_second: u64,
}

/// Slows a store down.
#[derive(Debug)]
pub struct Throttle {
    pace: Pace,
}

impl Throttle {
    /// The store at this pace.
    pub fn around(store: &Store, pace: Pace) -> Store {
        around(store, Self { pace }).0
    }
}

#[async_trait]
impl Layer for Throttle {
    async fn before(&self, _: &Request) -> Result<()> {
        if !self.pace.latency.is_zero() {
            tokio::time::sleep(self.pace.latency).await;
        }
        Ok(())
    }

    async fn after(&self, _: &Request, len: u64) -> Result<()> {
        if self.pace.bytes_per_second > 0 && len > 0 {
            let nanos = u128::from(len) * 1_000_000_000 / u128::from(self.pace.bytes_per_second);
            tokio::time::sleep(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))).await;
        }
        Ok(())
    }
}
