//! What a TAE region is made of: segments as stored, and the units that cuts stay within.
//!
//! A segment says whether its bytes are an LZ4 block; that is a hint for the coding, and where units begin and end. A unit
//! is either one segment that is long enough to pay for chunks of its own, or a run of short ones joined.

/// Segments from this length on are units of their own.
const ALONE_LEN_MIN: u32 = 4096;

/// A stretch of bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Length in bytes.
    pub(crate) len: u32,
    /// Is it an LZ4 block (or part of one)?
    pub(crate) lz4: bool,
}

/// The lengths of a region's units, in order. They add up to the region; none is empty.
pub(crate) fn units(segments: &[Segment]) -> impl Iterator<Item = u64> + '_ {
    let runs = segments.chunk_by(|a, b| a.len < ALONE_LEN_MIN && b.len < ALONE_LEN_MIN);
    runs.map(|run| run.iter().map(|segment| u64::from(segment.len)).sum()).filter(|&len| len > 0)
}

/// Hands out a region's segments chunk by chunk.
#[derive(Clone, Debug)]
pub(crate) struct SegmentCursor<'a> {
    rest: &'a [Segment],
    /// How much of the first of `rest` is gone.
    taken: u32,
}

impl<'a> SegmentCursor<'a> {
    /// At the start of a region.
    pub(crate) fn new(segments: &'a [Segment]) -> Self {
        Self { rest: segments, taken: 0 }
    }

    /// Replaces what `clipped` holds by the segments of the next `len` bytes, and goes on behind them.
    ///
    /// Their lengths add up to `len`, or to what was left of the region if that is less. No segment is empty.
    pub(crate) fn take(&mut self, len: u32, clipped: &mut Vec<Segment>) {
        clipped.clear();
        let mut wanted = len;
        while wanted > 0 {
            let Some((first, rest)) = self.rest.split_first() else { break };
            let len = wanted.min(first.len - self.taken);
            if len > 0 {
                clipped.push(Segment { len, lz4: first.lz4 });
            }
            wanted -= len;
            self.taken += len;
            if self.taken == first.len {
                self.rest = rest;
                self.taken = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lens(segments: &[u32]) -> Vec<u64> {
        let segments: Vec<_> = segments.iter().map(|&len| Segment { len, lz4: true }).collect();
        units(&segments).collect()
    }

    #[test]
    fn long_segments_stand_alone_and_short_ones_are_joined() {
        assert_eq!(lens(&[]), [0u64; 0]);
        assert_eq!(lens(&[0, 0]), [0u64; 0]);
        assert_eq!(lens(&[4095]), [4095]);
        assert_eq!(lens(&[4096, 4096]), [4096, 4096]);
        assert_eq!(lens(&[10, 20, 4096, 30, 0, 40, 5000, 5000, 1]), [30, 4096, 70, 5000, 5000, 1]);
        assert_eq!(lens(&[u32::MAX, 4095, 4095]), [u64::from(u32::MAX), 8190]);
    }

    proptest! {
        #[test]
        fn clipped_segments_are_those_of_the_bytes(
            segments in prop::collection::vec((0u32..50, any::<bool>()), 0..12),
            chunks in prop::collection::vec(0u32..60, 0..20),
        ) {
            let segments: Vec<_> = segments.into_iter().map(|(len, lz4)| Segment { len, lz4 }).collect();
            // Each byte tells which segment it came from and whether that one was LZ4.
            let bytes = |segments: &[Segment]| -> Vec<bool> {
                segments.iter().flat_map(|s| std::iter::repeat_n(s.lz4, s.len as usize)).collect()
            };
            let all = bytes(&segments);
            let mut cursor = SegmentCursor::new(&segments);
            let (mut clipped, mut at) = (Vec::new(), 0usize);
            for len in chunks {
                cursor.take(len, &mut clipped);
                prop_assert!(clipped.iter().all(|segment| segment.len > 0));
                let end = (at + len as usize).min(all.len());
                prop_assert_eq!(bytes(&clipped), all[at..end].to_vec());
                at = end;
            }
        }
    }

    #[test]
    fn a_segment_border_is_kept_where_kinds_are_equal() {
        let segments = [Segment { len: 5, lz4: true }, Segment { len: 0, lz4: false }, Segment { len: 5, lz4: true }];
        let (mut cursor, mut clipped) = (SegmentCursor::new(&segments), Vec::new());
        cursor.take(7, &mut clipped);
        assert_eq!(clipped, [Segment { len: 5, lz4: true }, Segment { len: 2, lz4: true }]);
        cursor.take(7, &mut clipped);
        assert_eq!(clipped, [Segment { len: 3, lz4: true }]);
    }
}
