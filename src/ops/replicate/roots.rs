//! One hash over a set of ids, and which part of two sets differs. Defined in docs/guide/offsite.md; other tools may compute the same.
//!
//! Ids fall into 256 buckets by their first byte. A bucket is a count and the sum of its ids, so it does not matter in which order they
//! come and nothing is sorted or kept. Over the buckets stands a tree of hashes with one root. Ids are hashes themselves: two sets that
//! differ by accident have different sums. It is no proof against somebody who makes up ids.

use crate::codec::object_hash;
use crate::id::ObjectHash;

const BUCKETS: usize = 256;

/// How many ids, and their sum as little-endian numbers of 256 bits, without what does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    count: u64,
    sum: [u64; 4],
}

impl Bucket {
    fn add(&mut self, id: &[u8; 32]) {
        self.count += 1;
        let (words, _) = id.as_chunks::<8>();
        let mut carry = false;
        for (word, more) in self.sum.iter_mut().zip(words) {
            let (sum, first) = word.overflowing_add(u64::from_le_bytes(*more));
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *word = sum;
            carry = first || second;
        }
    }

    fn leaf(&self, number: u8) -> ObjectHash {
        let mut bytes = vec![number];
        bytes.extend_from_slice(&self.count.to_le_bytes());
        self.sum.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        object_hash(&bytes)
    }
}

/// A set of ids, or a bag of them, as sums.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    buckets: Vec<Bucket>,
}

impl Roots {
    pub(super) fn new() -> Self {
        Self { buckets: vec![Bucket::default(); BUCKETS] }
    }

    /// Of these ids.
    pub(super) fn of<'a>(ids: impl IntoIterator<Item = &'a [u8; 32]>) -> Self {
        let mut roots = Self::new();
        ids.into_iter().for_each(|id| roots.add(id));
        roots
    }

    pub(super) fn add(&mut self, id: &[u8; 32]) {
        self.buckets[usize::from(id[0])].add(id);
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    /// The root of the tree: a parent is the hash of its two children's hashes.
    pub(super) fn root(&self) -> ObjectHash {
        let mut level: Vec<ObjectHash> =
            (0u8..=255).zip(&self.buckets).map(|(number, bucket)| bucket.leaf(number)).collect();
        while level.len() > 1 {
            let (pairs, _) = level.as_chunks::<2>();
            level = pairs.iter().map(|[a, b]| object_hash(&[*a.as_bytes(), *b.as_bytes()].concat())).collect();
        }
        level[0]
    }

    /// The buckets that differ.
    pub(super) fn differing(&self, other: &Self) -> Vec<u8> {
        let both = (0u8..=255).zip(self.buckets.iter().zip(&other.buckets));
        both.filter(|(_, (a, b))| a != b).map(|(number, _)| number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> [u8; 32] {
        *object_hash(&n.to_le_bytes()).as_bytes()
    }

    /// People compare these across hosts and releases. If this fails, the definition changed.
    #[test]
    fn roots_have_not_changed() {
        assert_eq!(Roots::new().root().to_string(), EMPTY);
        assert_eq!(Roots::of(&[id(1), id(2), id(3)]).root().to_string(), THREE);
    }

    const EMPTY: &str = "9f9019fe08a822e23a1b06d5997efffe2fcbcc39aa34b1b1703dcf863489416e";
    const THREE: &str = "04f94d3047ebec870cca5bcd599d42a114b07faabbc6726e429b52fafdd967e7";

    #[test]
    fn the_order_does_not_count_and_every_id_does() {
        let ids: Vec<_> = (0..1000).map(id).collect();
        let forward = Roots::of(&ids);
        let backward = Roots::of(ids.iter().rev());
        assert_eq!((forward.root(), forward.count()), (backward.root(), 1000));
        for left_out in [0, 1, 500, 999] {
            let fewer = Roots::of(ids.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, id)| id));
            assert_ne!(fewer.root(), forward.root());
            assert_eq!(forward.differing(&fewer), [ids[left_out][0]]);
        }
    }

    #[test]
    fn sums_carry_over_all_words() {
        let mut bucket = Bucket::default();
        bucket.add(&[255; 32]);
        bucket.add(&id(0));
        // Adding the greatest number is taking one away.
        let mut expected = Bucket::default();
        expected.add(&id(0));
        expected.sum[0] = expected.sum[0].wrapping_sub(1);
        assert_eq!(bucket.sum, expected.sum);
        let mut one = [0; 32];
        one[0] = 1;
        bucket = Bucket { count: 0, sum: [u64::MAX, u64::MAX, 0, 0] };
        bucket.add(&one);
        assert_eq!(bucket.sum, [0, 0, 1, 0]);
    }
}
