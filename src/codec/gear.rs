//! Content-defined cuts inside a unit of a TAE object: a gear hash with normalised sizes.
//!
//! A cut needs the 64 bytes before it and its distance from the chunk's start, nothing else, so equal bytes are cut alike
//! wherever they lie. The table and the limits are part of the repository format: other ones find no old chunk again.
//! Not here: units (that is `unit`), and files that are not TAE objects (that is `cdc`).

use crate::error::{Error, Result};

/// How many bytes the hash looks back on: each step shifts the oldest one out by one of 64 bits.
const WINDOW: usize = 64;

/// Sizes of the chunks that a [`Gear`] cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CutParameters {
    average: u32,
}

impl CutParameters {
    /// The default average for TAE objects.
    pub(crate) const AVERAGE_DEFAULT: u32 = 32 << 10;
    /// The least average.
    pub(crate) const AVERAGE_MIN: u32 = 4 << 10;
    /// The largest average.
    pub(crate) const AVERAGE_MAX: u32 = 4 << 20;

    /// Chunks of `average` bytes: a power of two from 4 KiB to 4 MiB.
    pub(crate) fn new(average: u32) -> Result<Self> {
        if !average.is_power_of_two() || !(Self::AVERAGE_MIN..=Self::AVERAGE_MAX).contains(&average) {
            let message = format!("average chunk size {average}: need a power of two from 4 KiB to 4 MiB");
            return Err(Error::invalid(message));
        }
        Ok(Self { average })
    }

    /// The average chunk.
    pub(crate) fn average(self) -> u32 {
        self.average
    }

    /// The shortest chunk, but for the last of a unit.
    pub(crate) fn least(self) -> u32 {
        self.average / 4
    }

    /// The longest chunk.
    pub(crate) fn most(self) -> u32 {
        self.average * 4
    }
}

impl Default for CutParameters {
    fn default() -> Self {
        Self { average: Self::AVERAGE_DEFAULT }
    }
}

/// Finds cuts. Cheap to share between threads by reference.
pub(crate) struct Gear {
    table: Box<[u64; 256]>,
    parameters: CutParameters,
    /// Below the average a cut needs a hash below this: its top k+1 bits are clear.
    hard: u64,
    /// From the average on: the top k-1 bits.
    easy: u64,
}

impl Gear {
    /// With the standard table.
    pub(crate) fn new(parameters: CutParameters) -> Self {
        let mut state = 0;
        Self::with_table(std::array::from_fn(|_| splitmix64(&mut state)), parameters)
    }

    /// With a table of one's own, so that chunk sizes tell nothing to those who do not know it.
    pub(crate) fn with_table(table: [u64; 256], parameters: CutParameters) -> Self {
        let bits = parameters.average.ilog2();
        Self { table: Box::new(table), parameters, hard: 1 << (63 - bits), easy: 1 << (65 - bits) }
    }

    /// The sizes it was made for.
    pub(crate) fn parameters(&self) -> CutParameters {
        self.parameters
    }

    /// The length of the chunk at the start of `rest`; zero only if `rest` is empty.
    ///
    /// `rest` begins where the chunk begins, lies within one unit, and holds at least `most` bytes or all that is left
    /// of the unit: what follows these does not matter.
    pub(crate) fn next_cut(&self, rest: &[u8]) -> usize {
        let (least, average, most) =
            (self.parameters.least() as usize, self.parameters.average() as usize, self.parameters.most() as usize);
        let chunk = &rest[..rest.len().min(most)];
        if chunk.len() <= least {
            return chunk.len();
        }
        let middle = average.min(chunk.len());
        let hash = chunk[least - WINDOW..least].iter().fold(0, |hash, &byte| self.step(hash, byte));
        let hash = match self.scan(hash, &chunk[least..middle], self.hard) {
            Scan::Found(taken) => return least + taken,
            Scan::Nothing(hash) => hash,
        };
        match self.scan(hash, &chunk[middle..], self.easy) {
            Scan::Found(taken) => middle + taken,
            Scan::Nothing(_) => chunk.len(),
        }
    }

    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.table[usize::from(byte)])
    }

    /// Takes bytes until the hash falls below `limit`. Two at a time: the table values are added up beside the chain of
    /// dependent shifts, which is a quarter faster.
    fn scan(&self, mut hash: u64, bytes: &[u8], limit: u64) -> Scan {
        let (pairs, odd) = bytes.as_chunks::<2>();
        for (i, &[first, second]) in pairs.iter().enumerate() {
            let (first, second) = (self.table[usize::from(first)], self.table[usize::from(second)]);
            if (hash << 1).wrapping_add(first) < limit {
                return Scan::Found(i * 2 + 1);
            }
            hash = (hash << 2).wrapping_add((first << 1).wrapping_add(second));
            if hash < limit {
                return Scan::Found(i * 2 + 2);
            }
        }
        for &byte in odd {
            hash = self.step(hash, byte);
            if hash < limit {
                return Scan::Found(bytes.len());
            }
        }
        Scan::Nothing(hash)
    }
}

enum Scan {
    /// So many bytes were taken, the last of which made the cut.
    Found(usize),
    /// The hash after all bytes.
    Nothing(u64),
}

/// The next number of a splitmix64 sequence.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes that look random and are the same for ever: splitmix64 outputs from `state`, little-endian.
#[cfg(test)]
pub(super) fn splitmix_bytes(mut state: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&splitmix64(&mut state).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn cut_by_definition(table: &[u64; 256], average: usize, unit: &[u8]) -> Vec<usize> {
        let (k, least, most) = (average.ilog2(), average / 4, average * 4);
        let hard = !0u64 << (64 - (k + 1));
        let easy = !0u64 << (64 - (k - 1));
        let (mut ends, mut at, e) = (Vec::new(), 0, unit.len());
        while at < e {
            let mut end = (at + most).min(e);
            let mut i = at + least;
            if i < end {
                let mut h = 0u64;
                for &x in &unit[i - 64..i] {
                    h = (h << 1).wrapping_add(table[usize::from(x)]);
                }
                let mut p = None;
                while i < end {
                    let mask = if i < (at + average).min(end) { hard } else { easy };
                    h = (h << 1).wrapping_add(table[usize::from(unit[i])]);
                    i += 1;
                    if h & mask == 0 {
                        p = Some(i);
                        break;
                    }
                }
                end = p.unwrap_or(end);
            }
            ends.push(end);
            at = end;
        }
        ends
    }

    fn ends(gear: &Gear, unit: &[u8]) -> Vec<usize> {
        let most = gear.parameters().most() as usize;
        let (mut ends, mut at) = (Vec::new(), 0);
        while at < unit.len() {
            let cut = gear.next_cut(&unit[at..]);
            assert!((1..=most).contains(&cut));
            let exactly = &unit[at..(at + most).min(unit.len())];
            assert_eq!(gear.next_cut(exactly), cut, "bytes beyond the longest chunk matter");
            at += cut;
            ends.push(at);
        }
        ends
    }

    /// Cuts are part of the repository format: other ones find no old chunk again.
    #[test]
    fn cuts_have_not_changed() {
        let gear = Gear::new(CutParameters::default());
        assert_eq!(gear.table[0], 0xe220_a839_7b1d_cdaf);
        let bytes = splitmix_bytes(1, 300_000);
        assert_eq!(bytes[..8], [0xc1, 0x5c, 0x02, 0x89, 0xec, 0x2d, 0x0a, 0x91]);
        let golden = [54_829, 67_499, 107_341, 154_715, 203_658, 220_209, 264_986, 300_000];
        assert_eq!(ends(&gear, &bytes), golden);
    }

    #[test]
    fn averages_outside_the_limits_are_refused() {
        for average in [0, 1, 2048, 4095, 6144, 8 << 20, u32::MAX] {
            assert!(CutParameters::new(average).is_err(), "{average}");
        }
        for average in [4 << 10, 32 << 10, 4 << 20] {
            let parameters = CutParameters::new(average).unwrap();
            assert_eq!((parameters.least() * 4, parameters.most() / 4), (average, average));
        }
    }

    #[test]
    fn another_table_cuts_elsewhere() {
        let bytes = splitmix_bytes(1, 300_000);
        let mut table = *Gear::new(CutParameters::default()).table;
        for value in &mut table {
            *value ^= 0x5555_5555_5555_5555;
        }
        let keyed = Gear::with_table(table, CutParameters::default());
        assert_ne!(ends(&keyed, &bytes), ends(&Gear::new(CutParameters::default()), &bytes));
        assert_eq!(ends(&keyed, &bytes), cut_by_definition(&table, 32 << 10, &bytes));
    }

    #[test]
    fn every_average_cuts_as_defined() {
        let bytes = splitmix_bytes(3, 20 << 20);
        for shift in 12..=22 {
            let gear = Gear::new(CutParameters::new(1 << shift).unwrap());
            let unit = &bytes[..(40usize << shift).min(bytes.len())];
            assert_eq!(ends(&gear, unit), cut_by_definition(&gear.table, 1 << shift, unit), "2^{shift}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn cuts_are_those_of_the_definition(
            seed in any::<u64>(),
            len in 0usize..90_000,
            zeros in prop::collection::vec((0usize..90_000, 0usize..20_000), 0..4),
            shift in 12u32..15,
        ) {
            let mut unit = splitmix_bytes(seed, len);
            for (start, zeros) in zeros {
                let start = start.min(len);
                unit[start..(start + zeros).min(len)].fill(0);
            }
            let gear = Gear::new(CutParameters::new(1 << shift).unwrap());
            let ends = ends(&gear, &unit);
            prop_assert_eq!(ends.last().copied().unwrap_or(0), len);
            prop_assert_eq!(ends, cut_by_definition(&gear.table, 1 << shift, &unit));
        }
    }
}
