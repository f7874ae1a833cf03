//! Cuts for files that are not TAE objects: FastCDC, and pages of a fixed size.
//!
//! [`Cutter`] is the one shape of all cutters. Cut points are part of the repository format, so the crate that finds those
//! of FastCDC is pinned, and golden vectors here fail if an update finds others.

use fastcdc::v2020;

use crate::codec::Gear;
use crate::error::{Error, Result};

/// Sizes of the chunks that a [`FastCdc`] cuts. The default is 256 KiB, 1 MiB, 4 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FastCdcParameters {
    least: u32,
    average: u32,
    most: u32,
}

impl FastCdcParameters {
    /// Even numbers, 64 to 1 MiB, 256 to 4 MiB, 1 KiB to 16 MiB, in ascending order.
    pub(crate) fn new(least: u32, average: u32, most: u32) -> Result<Self> {
        let limits = [
            ("least", least, v2020::MINIMUM_MIN, v2020::MINIMUM_MAX),
            ("average", average, v2020::AVERAGE_MIN, v2020::AVERAGE_MAX),
            ("most", most, v2020::MAXIMUM_MIN, v2020::MAXIMUM_MAX),
        ];
        for (name, value, min, max) in limits {
            if !(min..=max).contains(&(value as usize)) || value % 2 != 0 {
                let message = format!("FastCDC: {name} chunk size {value}: need an even number from {min} to {max}");
                return Err(Error::invalid(message));
            }
        }
        if !(least < average && average < most) {
            let message = format!("FastCDC: chunk sizes {least}, {average}, {most} do not ascend");
            return Err(Error::invalid(message));
        }
        Ok(Self { least, average, most })
    }

    /// The longest chunk.
    pub(crate) fn most(self) -> u32 {
        self.most
    }
}

impl Default for FastCdcParameters {
    fn default() -> Self {
        Self { least: 256 << 10, average: 1 << 20, most: 4 << 20 }
    }
}

/// FastCDC with its standard table and normalisation level 1.
#[derive(Clone, Debug)]
pub(crate) struct FastCdc {
    parameters: FastCdcParameters,
    /// For chunks below the average.
    hard: u64,
    /// From the average on.
    easy: u64,
}

impl FastCdc {
    /// A cutter for these sizes.
    pub(crate) fn new(parameters: FastCdcParameters) -> Self {
        let (hard, easy) = v2020::select_masks(parameters.average as usize, v2020::Normalization::Level1);
        Self { parameters, hard, easy }
    }

    /// The sizes it was made for.
    pub(crate) fn parameters(&self) -> FastCdcParameters {
        self.parameters
    }

    /// The length of the chunk at the start of `rest`; zero only if `rest` is empty.
    ///
    /// `rest` begins where the chunk begins and holds at least `most` bytes or all that is left of the file.
    pub(crate) fn next_cut(&self, rest: &[u8]) -> usize {
        let FastCdcParameters { least, average, most } = self.parameters;
        let (hard, easy) = (self.hard, self.easy);
        let sizes = (least as usize, average as usize, most as usize);
        v2020::cut(rest, sizes.0, sizes.1, sizes.2, hard, easy, hard << 1, easy << 1).1
    }
}

/// Any cutter.
pub(crate) enum Cutter {
    /// For units of TAE objects; for everything where the table is keyed.
    Gear(Gear),
    /// For files that nothing is known of.
    FastCdc(FastCdc),
    /// For files of pages: every chunk has this length.
    Fixed(u32),
}

impl Cutter {
    /// The length of the chunk at the start of `rest`; zero only if `rest` is empty.
    ///
    /// `rest` begins where the chunk begins and holds at least [`most`](Self::most) bytes or all that is left.
    pub(crate) fn next_cut(&self, rest: &[u8]) -> usize {
        match self {
            Self::Gear(gear) => gear.next_cut(rest),
            Self::FastCdc(fast_cdc) => fast_cdc.next_cut(rest),
            // A chunk of no bytes would never end.
            Self::Fixed(len) => rest.len().min((*len).max(1) as usize),
        }
    }

    /// The longest chunk.
    pub(crate) fn most(&self) -> u32 {
        match self {
            Self::Gear(gear) => gear.parameters().most(),
            Self::FastCdc(fast_cdc) => fast_cdc.parameters().most(),
            Self::Fixed(len) => (*len).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::CutParameters;
    use crate::codec::gear::splitmix_bytes;

    fn ends(cutter: &Cutter, bytes: &[u8]) -> Vec<usize> {
        let most = cutter.most() as usize;
        let (mut ends, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let cut = cutter.next_cut(&bytes[at..]);
            assert!((1..=most).contains(&cut));
            let exactly = &bytes[at..(at + most).min(bytes.len())];
            assert_eq!(cutter.next_cut(exactly), cut, "bytes beyond the longest chunk matter");
            at += cut;
            ends.push(at);
        }
        ends
    }

    fn small() -> Cutter {
        Cutter::FastCdc(FastCdc::new(FastCdcParameters::new(512, 2048, 8192).unwrap()))
    }

    /// Cuts are part of the repository format: other ones find no old chunk again. If an update of the crate fails here,
    /// do not update it.
    #[test]
    fn cuts_have_not_changed() {
        let bytes = splitmix_bytes(1, 12_000_001);
        let cutter = Cutter::FastCdc(FastCdc::new(FastCdcParameters::default()));
        assert_eq!(ends(&cutter, &bytes), GOLDEN);
        assert_eq!(ends(&small(), &bytes[..30_001]), GOLDEN_SMALL);
        let zeros = ends(&cutter, &vec![0; 9_000_000]);
        assert_eq!(zeros, [4_194_304, 8_388_608, 9_000_000]);
    }
    const GOLDEN: [usize; 10] =
        [278_755, 1_106_190, 2_739_707, 3_991_912, 4_585_015, 6_688_546, 7_494_519, 8_696_719, 10_316_123, 12_000_001];
    const GOLDEN_SMALL: [usize; 14] =
        [3469, 4823, 7814, 9128, 11_506, 13_610, 14_834, 16_594, 19_656, 21_448, 24_073, 27_117, 28_128, 30_001];

    #[test]
    fn sizes_outside_the_limits_are_refused() {
        for (least, average, most) in [
            (62, 256, 1024),
            (64, 254, 1024),
            (64, 256, 1022),
            (65, 256, 1024),
            (64, 257, 1024),
            (64, 256, 1025),
            (1024, 1024, 4096),
            (64, 4096, 4096),
            (2 << 20, 4 << 20, 16 << 20),
            (64, 8 << 20, 16 << 20),
            (64, 256, 32 << 20),
        ] {
            assert!(FastCdcParameters::new(least, average, most).is_err(), "{least} {average} {most}");
        }
        let largest = FastCdcParameters::new(1 << 20, 4 << 20, 16 << 20).unwrap();
        assert_eq!((largest.least, largest.average, largest.most()), (1 << 20, 4 << 20, 16 << 20));
        let _masks_exist = FastCdc::new(largest);
        let _masks_exist = FastCdc::new(FastCdcParameters::new(64, 256, 1024).unwrap());
        let FastCdcParameters { least, average, most } = FastCdcParameters::default();
        assert_eq!(FastCdcParameters::new(least, average, most).unwrap(), FastCdcParameters::default());
    }

    #[test]
    fn pages_are_all_alike() {
        let bytes = vec![1; 200_000];
        assert_eq!(ends(&Cutter::Fixed(64 << 10), &bytes), [65_536, 131_072, 196_608, 200_000]);
        assert_eq!(Cutter::Fixed(0).next_cut(&bytes), 1);
        assert_eq!(Cutter::Fixed(64 << 10).next_cut(&[]), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn chunks_rejoin_and_find_their_cuts_again(seed in any::<u64>(), len in 0usize..60_000, before in 0usize..5000) {
            let bytes = splitmix_bytes(seed, len);
            let gear = || Cutter::Gear(Gear::new(CutParameters::new(4096).unwrap()));
            for cutter in [small(), gear(), Cutter::Fixed(777)] {
                let ends = ends(&cutter, &bytes);
                prop_assert_eq!(ends.last().copied().unwrap_or(0), len);
                prop_assert_eq!(cutter.next_cut(&[]), 0);
            }
            // Bytes that moved are cut at the same places again, after a while.
            let moved = [splitmix_bytes(!seed, before), bytes.clone()].concat();
            for cutter in [small(), gear()] {
                let old = ends(&cutter, &bytes);
                let new: Vec<_> = ends(&cutter, &moved).iter().map(|end| end.wrapping_sub(before)).collect();
                if let Some(first) = old.iter().find(|end| new.contains(end)) {
                    let later = |ends: &[usize]| ends.iter().copied().filter(|e| e >= first && *e <= len).collect::<Vec<_>>();
                    prop_assert_eq!(later(&old), later(&new));
                }
            }
        }
    }
}
