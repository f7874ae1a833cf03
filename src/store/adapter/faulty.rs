//! Lets requests fail, by chance from a seed or at an exact point: errors, lost replies, delays, a full disk, a crash.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::{Error as StoreError, Result};

use super::{Layer, Request, Store, around};

/// What goes wrong. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Of the random choices below; the same seed and the same order of requests give the same faults.
    pub seed: u64,
    /// Of a thousand requests so many fail without having been carried out.
    pub errors_per_mille: u64,
    /// Of a thousand writes so many are carried out and then reported as failed.
    pub lost_replies_per_mille: u64,
    /// The write that is answered as this one, counted from 1, is carried out and then reported as failed.
    pub lost_reply_at: Option<u64>,
    /// Requests wait for up to this long.
    pub delay_max: Duration,
    /// The store is full once so many bytes were put. On a local disk deletes free what they delete, elsewhere nothing.
    pub full_after: Option<u64>,
    /// Only so many writes (puts and deletes) are kept; then everything fails, reads too: the process has crashed.
    pub writes_max: Option<u64>,
}

/// The faults of a store, while it is used.
#[derive(Debug)]
pub struct Faulty {
    faults: Faults,
    healed: AtomicBool,
    drawn: AtomicU64,
    writes: AtomicU64,
    answered: AtomicU64,
    bytes: AtomicI64,
    disk: Option<PathBuf>,
    failures: AtomicU64,
}

impl Faulty {
    /// The store with these faults.
    pub fn around(store: &Store, faults: Faults) -> (Store, Arc<Self>) {
        let zero = AtomicU64::default;
        let healed = AtomicBool::new(false);
        let faulty = Self {
            faults,
            healed,
            drawn: zero(),
            writes: zero(),
            answered: zero(),
            bytes: AtomicI64::default(),
            disk: store.local_path().map(Path::to_path_buf),
            failures: zero(),
        };
        around(store, faulty)
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    /// Writes asked for so far, those after a crash included.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// How many requests failed on purpose.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// True once the kept writes are used up and more were asked for.
    pub fn has_crashed(&self) -> bool {
        self.faults.writes_max.is_some_and(|max| self.writes() > max)
    }

    /// The next number of the seeded sequence (SplitMix64).
    fn draw(&self) -> u64 {
        let n = self.drawn.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        let mut z = self.faults.seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.draw() % 1000 < per_mille
    }

    /// Takes the room of what is written, gives back that of what is deleted.
    fn fill(&self, request: &Request, full_after: u64) -> Result<()> {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        match request {
            Request::Put { len, .. } => {
                let len = signed(*len);
                let used = self.bytes.fetch_add(len, Ordering::SeqCst).saturating_add(len);
                if used > signed(full_after) {
                    self.bytes.fetch_sub(len, Ordering::SeqCst);
                    return self.fail(io::Error::from(io::ErrorKind::StorageFull));
                }
            }
            Request::Delete { path } => {
                let file = self.disk.as_ref().and_then(|disk| disk.join(path).metadata().ok());
                self.bytes.fetch_sub(signed(file.map_or(0, |file| file.len())), Ordering::SeqCst);
            }
            _ => {}
        }
        Ok(())
    }

    fn fail(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Result<()> {
        self.failures.fetch_add(1, Ordering::SeqCst);
        Err(StoreError::Generic { store: "Faulty", source: source.into() })
    }
}

#[async_trait]
impl Layer for Faulty {
    async fn before(&self, request: &Request) -> Result<()> {
        if self.healed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let faults = &self.faults;
        if !faults.delay_max.is_zero() {
            let micros = u64::try_from(faults.delay_max.as_micros()).unwrap_or(u64::MAX).max(1);
            tokio::time::sleep(Duration::from_micros(self.draw() % micros)).await;
        }
        if request.is_write() {
            self.writes.fetch_add(1, Ordering::SeqCst);
        }
        if self.has_crashed() {
            return self.fail("the process has crashed");
        }
        if let Some(full_after) = faults.full_after {
            self.fill(request, full_after)?;
        }
        match self.happens(faults.errors_per_mille) {
            true => self.fail("an injected error"),
            false => Ok(()),
        }
    }

    async fn after(&self, request: &Request, _len: u64) -> Result<()> {
        if !request.is_write() || self.healed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let answered = self.answered.fetch_add(1, Ordering::SeqCst) + 1;
        match self.faults.lost_reply_at == Some(answered) || self.happens(self.faults.lost_replies_per_mille) {
            true => self.fail("an injected lost reply"),
            false => Ok(()),
        }
    }
}
