//! A pace: so many bytes a second over all transfers.
//!
//! A pack is asked for when the bytes before it have had their time, so that the average holds; the pack itself comes as fast as it can.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::progress::Monitor;

/// How long a transfer that waits sleeps before it looks whether it shall stop.
const NAP: Duration = Duration::from_millis(500);

/// The token bucket of one run.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When what was asked for so far will have had its time.
    free: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free: Mutex::new(None) }
    }

    /// Books `bytes`, and says when their transfer may begin.
    fn book(&self, bytes: u64, now: Instant) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = free.map_or(now, |free| free.max(now));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // Beyond what a clock can hold is never.
        *free = Some(begin.checked_add(takes).unwrap_or(begin));
        begin
    }

    /// Waits until so many bytes may be transferred. False if it was asked to stop meanwhile.
    pub(super) async fn wait(&self, bytes: u64, monitor: &dyn Monitor) -> bool {
        let begin = self.book(bytes, Instant::now());
        loop {
            if monitor.cancelled() {
                return false;
            }
            let left = begin.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            tokio::time::sleep(left.min(NAP)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_booked_has_its_time_before_the_next_begins() {
        let pace = Pace::new(1000);
        let start = Instant::now();
        assert_eq!(pace.book(500, start), start);
        assert_eq!(pace.book(2000, start), start + Duration::from_millis(500));
        assert_eq!(pace.book(1, start), start + Duration::from_millis(2500));
        // A pause is not made up for later.
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.book(1000, later), later);
        assert_eq!(pace.book(1000, later), later + Duration::from_secs(1));
    }
}
