//! Changes seeds as damage and malice would: flips, cuts, insertions, splices, and numbers set to what is hard.

use crate::testing::tae_writer::SplitMix;

/// No mutation grows an input beyond this.
const LEN_MAX: usize = 16 << 10;

/// Numbers at which arithmetic and comparisons break.
const HARD: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    1 << 20,
    1 << 24,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    1 << 32,
    i64::MAX.unsigned_abs(),
    u64::MAX,
];

/// Makes inputs out of seeds. The same seeds and number give the same inputs on every machine.
#[derive(Debug)]
pub struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
    random: SplitMix,
}

impl<'a> Mutator<'a> {
    /// There must be a seed.
    pub fn new(seeds: &'a [Vec<u8>], number: u64) -> Self {
        assert!(!seeds.is_empty(), "nothing to mutate");
        Self { seeds, random: SplitMix(number) }
    }

    /// The next input: a seed with one to four changes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.any_seed().clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input.truncate(LEN_MAX);
        input
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.random.next().to_le_bytes()[0]
    }

    fn any_seed(&mut self) -> &'a Vec<u8> {
        let seeds = self.seeds;
        &seeds[self.below(seeds.len())]
    }

    /// A place in the input, often near its beginning: headers decide most.
    fn place(&mut self, len: usize) -> usize {
        let bound = if self.below(2) == 0 { len.min(64) } else { len };
        self.below(bound.max(1))
    }

    /// A range of at most `most` bytes.
    fn range(&mut self, len: usize, most: usize) -> std::ops::Range<usize> {
        let start = self.place(len).min(len);
        start..(start + 1 + self.below(most)).min(len)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let len = input.len();
        match self.below(10) {
            _ if len == 0 => input.extend_from_slice(self.any_seed()),
            0 => input[self.place(len)] ^= 1 << self.below(8),
            1 => input[self.place(len)] = self.byte(),
            2 => input.truncate(self.below(len)),
            3 => drop(input.drain(self.range(len, 64))),
            4 => {
                let (at, count, byte) = (self.place(len), 1 + self.below(64), self.byte());
                let filling = if self.below(2) == 0 { 0 } else { byte };
                input.splice(at..at, std::iter::repeat_n(filling, count));
            }
            5 => {
                // A part of itself again: lists with an item twice.
                let (from, at) = (self.range(len, 128), self.place(len));
                let part = input[from].to_vec();
                input.splice(at..at, part);
            }
            6 => {
                let other = self.any_seed();
                let (head, tail) = (self.below(len + 1), self.below(other.len() + 1));
                input.truncate(head);
                input.extend_from_slice(&other[tail..]);
            }
            7 => self.set_number(input),
            8 => self.nudge_number(input),
            _ => {
                let (from, to) = (self.range(len, 32), self.place(len));
                let part = input[from].to_vec();
                let end = (to + part.len()).min(len);
                input[to..end].copy_from_slice(&part[..end - to]);
            }
        }
    }

    fn width(&mut self) -> usize {
        [1, 2, 4, 4, 4, 8][self.below(6)]
    }

    /// Sets a little-endian field to a hard number, or to the length of the input or a little less.
    fn set_number(&mut self, input: &mut [u8]) {
        let (at, width) = (self.place(input.len()), self.width());
        let number = match self.below(4) {
            0 => (input.len() as u64).saturating_sub(self.random.below(100)),
            _ => HARD[self.below(HARD.len())],
        };
        if let Some(field) = input.get_mut(at..at + width) {
            field.copy_from_slice(&number.to_le_bytes()[..width]);
        }
    }

    /// Adds a little to a little-endian field, or takes it away.
    fn nudge_number(&mut self, input: &mut [u8]) {
        let (at, width, by) = (self.place(input.len()), self.width(), 1 + self.random.below(16));
        let by = if self.below(2) == 0 { by } else { by.wrapping_neg() };
        if let Some(field) = input.get_mut(at..at + width) {
            let mut number = [0; 8];
            number[..width].copy_from_slice(field);
            let number = u64::from_le_bytes(number).wrapping_add(by);
            field.copy_from_slice(&number.to_le_bytes()[..width]);
        }
    }
}
