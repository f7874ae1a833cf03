//! Memory for packs and parts of packs on their way, used again and again.
//!
//! Allocators keep large blocks that come and go on many threads, or give them back to the system at once: without this a run takes several
//! times what is on its way, or the kernel's time for fresh pages.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// New buffers have a multiple of so many bytes.
const ROUND: u64 = 1 << 20;

/// Buffers that nobody uses now.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    /// No more bytes than this are kept.
    most: u64,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    pub(crate) fn new(most: u64) -> Self {
        Self { most, free: Arc::default() }
    }

    /// An empty buffer: the smallest kept one that is large enough, or a new one.
    pub(crate) fn take(&self, size: u64) -> Vec<u8> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = free.iter().enumerate().filter(|(_, buffer)| buffer.capacity() as u64 >= size);
        match fits.min_by_key(|(_, buffer)| buffer.capacity()).map(|(at, _)| at) {
            Some(at) => free.swap_remove(at),
            None => {
                // Too small for this one, and room must be made for it.
                free.pop();
                // Packs are of nearly one size, and one buffer is to fit them all.
                Vec::with_capacity(usize::try_from(size.next_multiple_of(ROUND)).unwrap_or_default())
            }
        }
    }

    /// Keeps a buffer for the next who takes one.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: u64 = free.iter().map(|buffer| buffer.capacity() as u64).sum();
        if kept + buffer.capacity() as u64 <= self.most {
            free.push(buffer);
        }
    }

    /// The buffer as bytes; it comes back when the last of them is dropped.
    pub(crate) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_the_last_of_its_bytes() {
        let buffers = Buffers::new(4 << 20);
        let mut buffer = buffers.take(400);
        assert_eq!(buffer.capacity(), 1 << 20);
        buffer.extend_from_slice(&[7; 300]);
        let place = buffer.as_ptr();
        let bytes = buffers.lend(buffer);
        let part = bytes.slice(100..200);
        drop(bytes);
        let other = buffers.take(300);
        assert_ne!(other.as_ptr(), place, "it is still in use");
        assert_eq!(part, vec![7; 100]);
        drop(part);
        let again = buffers.take(1 << 20);
        assert_eq!(again.as_ptr(), place);
        assert!(buffers.take((1 << 20) + 1).capacity() >= 2 << 20);
    }

    #[test]
    fn no_more_is_kept_than_was_allowed() {
        let buffers = Buffers::new(1000);
        let lent: Vec<Bytes> = (0..5).map(|_| buffers.lend(Vec::with_capacity(400))).collect();
        drop(lent);
        let kept: Vec<_> = (0..3).map(|_| buffers.take(1).capacity() < 1 << 20).collect();
        assert_eq!(kept, [true, true, false]);
    }
}
