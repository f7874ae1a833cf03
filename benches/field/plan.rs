//! Which objects exist on which night: a pure function of the options.
//!
//! Night 1 is the load. Each later night adds objects (new rows at the end of some tables, rows scattered over the key range of
//! the sorted ones, tombstones) and drops a few; the merge night rewrites sorted objects with the scattered rows put in place,
//! and log objects without their deleted rows.

use everpack::error::Result;
use everpack::testing::tae_writer::{SplitMix, TaeName, object_name};

use crate::objects::object_bytes;
use crate::rows::Table;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// Bytes of night 1.
    pub(crate) size: u64,
    /// Bytes that a night adds, in millionths of `size`.
    pub(crate) new_ppm: u64,
    /// Bytes that the merge night rewrites, in millionths of `size`.
    pub(crate) merge_ppm: u64,
    /// The night of the merge; none if 0.
    pub(crate) merge_night: u32,
    /// Every so many nights there is a merge as well; none if 0.
    pub(crate) merge_every: u32,
    /// Nights drop as much as they add, objects of any age, so that the size stays.
    pub(crate) steady: bool,
}

/// Row ids `first`, `first + stride`, …
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) stride: u64,
    pub(crate) count: u64,
}

impl Run {
    fn end(self) -> u64 {
        self.first + self.stride * self.count
    }

    /// The part of the run with ids in `from..to`.
    fn clip(self, from: u64, to: u64) -> Option<Self> {
        let skip = from.saturating_sub(self.first).div_ceil(self.stride).min(self.count);
        let first = self.first + skip * self.stride;
        let count = to.saturating_sub(first).div_ceil(self.stride).min(self.count - skip);
        (count > 0).then_some(Self { first, count, ..self })
    }
}

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: TaeName,
    pub(crate) table: Table,
    pub(crate) runs: Vec<Run>,
    /// One row in this many is deleted; none if 0.
    pub(crate) delete_one_in: u64,
    /// Rewritten by BACKUP each night under the same name.
    pub(crate) synthesized: bool,
    /// The night that wrote it.
    pub(crate) night: u32,
    /// Its rows lie scattered between those of other objects.
    scattered: bool,
}

impl Spec {
    fn rows(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const LOAD_MILLIS: u64 = 1_750_000_000_000;
const DAY_MILLIS: u64 = 86_400_000;
/// Ids of loaded rows are even, so that there is room between them.
const STRIDE: u64 = 2;

/// When a night's checkpoint is taken, in milliseconds since 1970.
pub(crate) fn night_millis(night: u32) -> u64 {
    LOAD_MILLIS + u64::from(night) * DAY_MILLIS
}

/// The objects of a night, by name.
pub(crate) fn objects_of_night(options: &Options, night: u32) -> Result<Vec<Spec>> {
    let mut planner = Planner::new(options)?;
    planner.load();
    for night in 2..=night {
        planner.night = night;
        planner.churn();
        if night == options.merge_night || (options.merge_every > 0 && night % options.merge_every == 0) {
            planner.merge();
        }
        if options.steady {
            planner.drop_to_size();
        }
    }
    planner.synthesize();
    planner.objects.sort_by_key(|spec| spec.name);
    Ok(planner.objects)
}

struct Planner<'a> {
    options: &'a Options,
    random: SplitMix,
    night: u32,
    made: u64,
    last_name: TaeName,
    objects: Vec<Spec>,
    /// Per table of `Table::SHARES`: next row id, and stored bytes of 8192 rows.
    next_id: [u64; 6],
    block_len: [u64; 6],
}

impl<'a> Planner<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let mut block_len = [0; 6];
        for ((table, _), len) in Table::SHARES.into_iter().zip(&mut block_len) {
            let runs = vec![Run { first: 0, stride: STRIDE, count: 8192 }];
            let name = object_name(0, 0, 0);
            let spec = Spec { name, table, runs, delete_one_in: 0, synthesized: false, night: 1, scattered: false };
            *len = object_bytes(&spec, options.seed)?.bytes.len() as u64;
        }
        let random = SplitMix(options.seed);
        let last_name = object_name(options.seed, LOAD_MILLIS, 0);
        Ok(Self { options, random, night: 1, made: 0, last_name, objects: Vec::new(), next_id: [0; 6], block_len })
    }

    fn name(&mut self) -> TaeName {
        self.made += 1;
        // Now and then one writer makes several objects.
        let num = self.last_name.to_string()[37..].parse::<u16>().unwrap_or(0);
        self.last_name = if num < 7 && self.random.below(4) == 0 {
            self.last_name.with_num(num + 1)
        } else {
            let millis = LOAD_MILLIS + u64::from(self.night - 1) * DAY_MILLIS + self.made * 137;
            object_name(self.random.next(), millis, 0)
        };
        self.last_name
    }

    fn add(&mut self, table: Table, runs: Vec<Run>, scattered: bool, delete_one_in: u64) {
        let (name, night) = (self.name(), self.night);
        self.objects.push(Spec { name, table, runs, delete_one_in, synthesized: false, night, scattered });
    }

    /// From 20 KiB to 64 MiB, as many of each power of two, but at most a quarter of a table.
    fn object_len(&mut self, budget: u64) -> u64 {
        let power = self.random.below(11);
        let len = ((20 * KIB) << power) / 256 * (256 + self.random.below(256));
        len.min((budget / 4).max(20 * KIB))
    }

    fn rows_in(&self, table: usize, len: u64) -> u64 {
        (len * 8192 / self.block_len[table]).max(1)
    }

    fn load(&mut self) {
        for _ in 0..40 + self.options.size / (16 * MIB) {
            let run = Run { first: self.random.next() >> 40, stride: 1, count: 1 + self.random.below(200) };
            self.add(Table::Accounts, vec![run], false, 0);
        }
        for (at, (table, share)) in Table::SHARES.into_iter().enumerate() {
            self.append(at, table, self.options.size / 100 * share);
        }
    }

    /// New rows at the end of a table.
    fn append(&mut self, at: usize, table: Table, budget: u64) {
        let mut left = budget;
        while left > 0 {
            let len = self.object_len(budget).min(left);
            left -= len;
            let run = Run { first: self.next_id[at], stride: STRIDE, count: self.rows_in(at, len) };
            self.next_id[at] = run.end();
            self.add(table, vec![run], false, 0);
        }
    }

    fn churn(&mut self) {
        let budget = millionths(self.options.size, self.options.new_ppm);
        for (at, (table, share)) in Table::SHARES.into_iter().enumerate() {
            let budget = budget / 100 * share;
            if table.is_sorted() {
                self.scatter(at, table, budget / 2);
                self.append(at, table, budget - budget / 2);
            } else {
                self.append(at, table, budget);
            }
        }
        for _ in 0..3 {
            let run = Run { first: self.random.next() >> 40, stride: 17, count: 50 + self.random.below(2000) };
            self.add(Table::Tombstones, vec![run], false, 0);
        }
        self.drop_some();
    }

    /// New rows with odd ids, spread thinly over a part of the key range.
    fn scatter(&mut self, at: usize, table: Table, budget: u64) {
        let range = self.next_id[at].max(STRIDE);
        let count = self.rows_in(at, budget);
        let span = (range / 4).max(count * STRIDE).min(range);
        let first = self.random.below(range - span + 1) | 1;
        let stride = (span / count.max(1)).max(STRIDE) & !1;
        self.add(table, vec![Run { first, stride, count }], true, 0);
    }

    /// Garbage collection takes a few small old objects.
    fn drop_some(&mut self) {
        for _ in 0..3 {
            let night = self.night;
            let small = |spec: &Spec| spec.night < night && spec.rows() < 500;
            let candidates: Vec<usize> = (0..self.objects.len()).filter(|&at| small(&self.objects[at])).collect();
            if candidates.is_empty() {
                return;
            }
            let pick = self.random.below(candidates.len() as u64);
            self.objects.swap_remove(candidates[usize::try_from(pick).unwrap_or(0)]);
        }
    }

    /// Deletes objects of earlier nights, whichever, until the size is that of night 1.
    fn drop_to_size(&mut self) {
        let mut size: u64 = self.objects.iter().map(|spec| self.len_of(spec)).sum();
        let mut old: Vec<usize> = (0..self.objects.len()).filter(|&at| self.objects[at].night < self.night).collect();
        let mut dropped = Vec::new();
        while size > self.options.size && !old.is_empty() {
            let pick = self.random.below(old.len() as u64);
            let at = old.swap_remove(usize::try_from(pick).unwrap_or(0));
            size -= self.len_of(&self.objects[at]);
            dropped.push(at);
        }
        dropped.sort_unstable();
        for at in dropped.into_iter().rev() {
            self.objects.swap_remove(at);
        }
    }

    /// About how long an object is; 0 of the small tables.
    fn len_of(&self, spec: &Spec) -> u64 {
        let at = Table::SHARES.into_iter().position(|(table, _)| table == spec.table);
        at.map_or(0, |at| spec.rows() * self.block_len[at] / 8192)
    }

    fn merge(&mut self) {
        let budget = millionths(self.options.size, self.options.merge_ppm);
        for (at, (table, _)) in Table::SHARES.into_iter().enumerate() {
            match table {
                Table::Log => self.compact(at, table, budget / 4),
                _ if table.is_sorted() => self.interleave(at, table, budget / 4),
                _ => {}
            }
        }
    }

    /// Puts scattered rows where they belong: objects before the first of them keep their blocks.
    fn interleave(&mut self, at: usize, table: Table, budget: u64) {
        let (loose, mut rest): (Vec<Spec>, Vec<Spec>) =
            std::mem::take(&mut self.objects).into_iter().partition(|spec| spec.table == table && spec.scattered);
        let mut loose: Vec<Run> = loose.into_iter().flat_map(|spec| spec.runs).collect();
        let mut merged = Vec::new();
        let mut left = budget;
        rest.retain(|spec| {
            let [run] = spec.runs[..] else { return true };
            let len = run.count * self.block_len[at] / 8192;
            let inside: Vec<Run> = loose.iter().filter_map(|loose| loose.clip(run.first, run.end())).collect();
            if spec.table != table || run.stride != STRIDE || inside.is_empty() || len > left {
                return true;
            }
            left -= len;
            let outside = |loose: &Run| [loose.clip(0, run.first), loose.clip(run.end(), u64::MAX)];
            loose = loose.iter().flat_map(outside).flatten().collect();
            merged.push([vec![run], inside].concat());
            false
        });
        self.objects = rest;
        for runs in merged {
            self.add(table, runs, false, 0);
        }
        if !loose.is_empty() {
            self.add(table, loose, true, 0);
        }
    }

    /// Writes pairs of objects as one, without the deleted rows.
    fn compact(&mut self, at: usize, table: Table, budget: u64) {
        let mut left = budget;
        let mut runs = Vec::new();
        let block_len = self.block_len[at];
        self.objects.retain(|spec| {
            let len = spec.rows() * block_len / 8192;
            if spec.table != table || spec.delete_one_in != 0 || len > left {
                return true;
            }
            left -= len;
            runs.extend_from_slice(&spec.runs);
            false
        });
        for pair in runs.chunks(2) {
            self.add(table, pair.to_vec(), false, 100);
        }
    }

    /// The `_01000` objects: named as ever, other rows each night.
    fn synthesize(&mut self) {
        let night = u64::from(self.night);
        for number in 0..2u64 {
            let name = object_name(self.options.seed ^ number, LOAD_MILLIS + number, 1000);
            let runs = vec![Run { first: number << 32, stride: 1, count: 1500 + 700 * night }];
            let (table, night) = (Table::Accounts, self.night);
            self.objects.push(Spec {
                name,
                table,
                runs,
                delete_one_in: 40,
                synthesized: true,
                night,
                scattered: false,
            });
        }
    }
}

fn millionths(whole: u64, ppm: u64) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(ppm) / 1_000_000).unwrap_or(whole)
}
