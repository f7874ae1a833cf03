//! Column vectors as MatrixOne serialises them since release 2.0, and their zonemaps.
//!
//! Fixed-width cells lie one after the other; variable-length values are 24-byte cells that hold up to 23 bytes or point into
//! an area behind the cells. Always the flat class: constants and dictionaries are not written.

use std::cmp::Ordering;

use super::{ZONE_MAP_LEN, len_u32};
use crate::error::{Error, Result};

const DATA_ENTRY: [u8; 4] = [2, 0, 2, 0];
const INLINE_MAX: usize = 23;
/// A zonemap keeps this many bytes of a long value.
const BOUND_MAX: usize = 30;
/// Where a number's zonemap has the sum of the values, behind the least one.
const SUM: std::ops::Range<usize> = 8..16;

/// The values of one column in one block.
#[derive(Clone, Debug)]
pub struct Vector {
    facts: TypeFacts,
    rows: u32,
    data: Vec<u8>,
    area: Vec<u8>,
    nulls: Vec<u64>,
    null_count: u32,
    sorted: bool,
}

/// What the type oid implies.
#[derive(Clone, Copy, Debug)]
struct TypeFacts {
    oid: u8,
    cell_len: u8,
    varlena: bool,
    width: i32,
    scale: i32,
    order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Signed,
    Unsigned,
    Float,
    /// Physical time, then logical.
    Timestamp,
    /// Object, then block and row as numbers.
    Row,
    Bytes,
    /// Has no bounds.
    None,
}

impl TypeFacts {
    fn of(oid: u8) -> Option<Self> {
        use Order::{Bytes, Float, Row, Signed, Timestamp, Unsigned};
        let (cell_len, width, scale, order) = match oid {
            10 => (1, 0, 0, Unsigned),
            11 => (8, 0, 0, Unsigned),
            20 => (1, 8, -1, Signed),
            21 => (2, 16, -1, Signed),
            22 => (4, 32, -1, Signed),
            23 => (8, 64, -1, Signed),
            25 => (1, 8, -1, Unsigned),
            26 => (2, 16, -1, Unsigned),
            27 => (4, 32, -1, Unsigned),
            28 => (8, 64, -1, Unsigned),
            30 => (4, 0, -1, Float),
            31 => (8, 0, -1, Float),
            32 => (8, 18, 2, Signed),
            33 => (16, 38, 4, Signed),
            50 => (4, 0, 0, Signed),
            51..=53 => (8, 0, 0, Signed),
            55 => (2, 0, 0, Signed),
            63 => (16, 0, 0, Bytes),
            66 => (2, 0, 0, Unsigned),
            100 => (12, 0, 0, Timestamp),
            101 => (24, 0, 0, Row),
            102 => (20, 0, 0, Row),
            60 | 61 => (24, 65535, 0, Bytes),
            62 | 64 | 65 | 70 | 71 => (24, 0, 0, Bytes),
            224 | 225 => (24, 96, 0, Order::None),
            _ => return None,
        };
        let varlena = matches!(oid, 60..=62 | 64 | 65 | 70 | 71 | 224 | 225);
        Some(Self { oid, cell_len, varlena, width, scale, order })
    }
}

impl Vector {
    /// An empty column of MatrixOne's type `oid`.
    pub fn new(oid: u8) -> Result<Self> {
        let facts =
            TypeFacts::of(oid).ok_or_else(|| Error::invalid(format!("type {oid} is not one that is written")))?;
        let (data, area, nulls) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { facts, rows: 0, data, area, nulls, null_count: 0, sorted: false })
    }

    /// Sets the type's width and scale: `decimal(10, 2)` is `(10, 2)`.
    #[must_use]
    pub fn with_width(mut self, width: i32, scale: i32) -> Self {
        self.facts.width = width;
        self.facts.scale = scale;
        self
    }

    /// Says that the rows are in order.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.sorted = true;
        self
    }

    /// Forgets the rows, keeps type and memory.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.data.clear();
        self.area.clear();
        self.nulls.clear();
        self.null_count = 0;
    }

    /// Appends a value of a fixed-width type: exactly the bytes of one cell.
    #[inline]
    pub fn push_fixed<const N: usize>(&mut self, cell: [u8; N]) {
        debug_assert_eq!(N, usize::from(self.facts.cell_len), "cell of type {}", self.facts.oid);
        self.data.extend_from_slice(&cell);
        self.rows += 1;
    }

    /// Appends a variable-length value.
    #[inline]
    pub fn push_bytes(&mut self, value: &[u8]) {
        self.push_with(|area| area.extend_from_slice(value));
    }

    /// Appends a variable-length value that `write` puts at the end of the buffer it is given, touching nothing before.
    #[inline]
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.area.len();
        write(&mut self.area);
        let len = self.area.len() - start;
        let mut cell = [0; 24];
        if len <= INLINE_MAX {
            cell[0] = u8::try_from(len).expect("at most 23");
            cell[1..=len].copy_from_slice(&self.area[start..]);
            self.area.truncate(start);
        } else {
            // An area beyond 4 GiB is refused when the vector is encoded.
            cell[..4].fill(0xFF);
            cell[4..8].copy_from_slice(&u32::try_from(start).unwrap_or(u32::MAX).to_le_bytes());
            cell[8..12].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        }
        self.data.extend_from_slice(&cell);
        self.rows += 1;
    }

    /// Appends a NULL; its cell is zero.
    pub fn push_null(&mut self) {
        let word = self.rows as usize / 64;
        if self.nulls.len() <= word {
            self.nulls.resize(word + 1, 0);
        }
        self.nulls[word] |= 1 << (self.rows % 64);
        self.null_count += 1;
        self.data.resize(self.data.len() + usize::from(self.facts.cell_len), 0);
        self.rows += 1;
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    pub(super) fn oid(&self) -> u8 {
        self.facts.oid
    }

    pub(super) fn null_count(&self) -> u32 {
        self.null_count
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// The plain bytes of the column's extent.
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) -> Result<()> {
        let facts = &self.facts;
        out.reserve(64 + self.data.len() + self.area.len() + self.nulls.len() * 8);
        out.extend_from_slice(&DATA_ENTRY);
        out.extend_from_slice(&[0, facts.oid, 0, 0, 0]);
        for value in [i32::from(facts.cell_len), facts.width, facts.scale] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&self.rows.to_le_bytes());
        for part in [&self.data, &self.area] {
            out.extend_from_slice(&len_u32(part.len())?.to_le_bytes());
            out.extend_from_slice(part);
        }
        if self.null_count == 0 {
            out.extend_from_slice(&0u32.to_le_bytes());
        } else {
            let words = (self.rows as usize).div_ceil(64);
            out.extend_from_slice(&len_u32(24 + words * 8)?.to_le_bytes());
            out.extend_from_slice(&u64::from(self.null_count).to_le_bytes());
            out.extend_from_slice(&u64::from(self.rows).to_le_bytes());
            out.extend_from_slice(&(words as u64 * 8).to_le_bytes());
            for word in 0..words {
                out.extend_from_slice(&self.nulls.get(word).copied().unwrap_or(0).to_le_bytes());
            }
        }
        out.push(u8::from(self.sorted));
        Ok(())
    }

    /// Least and greatest value; nothing but the type when every row is NULL.
    pub(super) fn zone_map(&self) -> [u8; ZONE_MAP_LEN] {
        let bounds = match (self.facts.order, self.facts.cell_len, self.null_count) {
            (Order::Signed, 8, 0) => extremes(self.data.as_chunks().0.iter().map(|cell| i64::from_le_bytes(*cell))),
            (Order::Signed, 4, 0) => extremes(self.data.as_chunks().0.iter().map(|cell| i32::from_le_bytes(*cell))),
            (Order::None, ..) => None,
            _ => self.extremes_by_compare(),
        };
        let Some((min, max)) = bounds else {
            let nothing = &[0; 24][..if self.facts.varlena { 0 } else { usize::from(self.facts.cell_len) }];
            return bound_pair(self.facts.oid, 0, nothing, nothing);
        };
        let flags = (self.facts.scale & 0x3F) as u8 | 0x80;
        let mut zone_map = bound_pair(self.facts.oid, flags, self.value(min), self.value(max));
        if self.has_sum() {
            zone_map[SUM].copy_from_slice(&self.sum());
        }
        zone_map
    }

    fn has_sum(&self) -> bool {
        has_sum(self.facts.oid)
    }

    /// The sum of the values, wrapping; cells of NULLs count as what they hold, which is zero.
    fn sum(&self) -> [u8; 8] {
        let data = &self.data;
        match (self.facts.order, self.facts.cell_len) {
            (Order::Signed, 8) => i64_sum(data.as_chunks().0.iter().map(|cell| i64::from_le_bytes(*cell))),
            (Order::Signed, 4) => i64_sum(data.as_chunks().0.iter().map(|cell| i64::from(i32::from_le_bytes(*cell)))),
            (Order::Signed, 2) => i64_sum(data.as_chunks().0.iter().map(|cell| i64::from(i16::from_le_bytes(*cell)))),
            (Order::Signed, _) => i64_sum(data.iter().map(|cell| i64::from(cell.cast_signed()))),
            (Order::Float, 4) => float_sum(data.as_chunks().0.iter().map(|cell| f64::from(f32::from_le_bytes(*cell)))),
            (Order::Float, _) => float_sum(data.as_chunks().0.iter().map(|cell| f64::from_le_bytes(*cell))),
            (_, len) => data
                .chunks_exact(usize::from(len))
                .fold(0u64, |sum, cell| sum.wrapping_add(unsigned(cell)))
                .to_le_bytes(),
        }
    }

    fn extremes_by_compare(&self) -> Option<(usize, usize)> {
        let mut rows = (0..self.rows as usize).filter(|&row| self.null_count == 0 || !self.is_null(row));
        let first = rows.next()?;
        Some(rows.fold((first, first), |(min, max), row| {
            let value = self.value(row);
            if compare(self.facts.order, value, self.value(min)).is_lt() {
                (row, max)
            } else if compare(self.facts.order, value, self.value(max)).is_gt() {
                (min, row)
            } else {
                (min, max)
            }
        }))
    }

    fn value(&self, row: usize) -> &[u8] {
        let cell_len = usize::from(self.facts.cell_len);
        let cell = &self.data[row * cell_len..][..cell_len];
        if !self.facts.varlena {
            return cell;
        }
        if usize::from(cell[0]) <= INLINE_MAX {
            return &cell[1..=usize::from(cell[0])];
        }
        let number = |at: usize| u32::from_le_bytes([cell[at], cell[at + 1], cell[at + 2], cell[at + 3]]) as usize;
        &self.area[number(4)..][..number(8)]
    }
}

fn extremes<T: Copy + Ord>(values: impl Iterator<Item = T>) -> Option<(usize, usize)> {
    let mut values = values.enumerate();
    let (_, first) = values.next()?;
    let (mut min, mut max) = ((first, 0), (first, 0));
    for (row, value) in values {
        if value < min.0 {
            min = (value, row);
        }
        if value > max.0 {
            max = (value, row);
        }
    }
    Some((min.1, max.1))
}

fn i64_sum(values: impl Iterator<Item = i64>) -> [u8; 8] {
    values.fold(0i64, i64::wrapping_add).to_le_bytes()
}

fn float_sum(values: impl Iterator<Item = f64>) -> [u8; 8] {
    values.sum::<f64>().to_le_bytes()
}

/// Numbers have a sum; dates, times and 16-byte decimals do not.
fn has_sum(oid: u8) -> bool {
    matches!(oid, 20..=32)
}

fn compare(order: Order, a: &[u8], b: &[u8]) -> Ordering {
    match order {
        Order::Bytes | Order::None => a.cmp(b),
        Order::Row => a[..16].cmp(&b[..16]).then_with(|| {
            let place = |id: &[u8]| (unsigned(&id[16..18]), unsigned(&id[18..20]), unsigned(&id[20..]));
            place(a).cmp(&place(b))
        }),
        Order::Float => float(a).total_cmp(&float(b)),
        Order::Signed => signed(a).cmp(&signed(b)),
        Order::Unsigned => a.iter().rev().cmp(b.iter().rev()),
        Order::Timestamp => (signed(&a[4..]), signed(&a[..4])).cmp(&(signed(&b[4..]), signed(&b[..4]))),
    }
}

fn signed(cell: &[u8]) -> i128 {
    let fill = if cell.last().is_some_and(|top| top & 0x80 != 0) { 0xFF } else { 0 };
    let mut bytes = [fill; 16];
    bytes[..cell.len()].copy_from_slice(cell);
    i128::from_le_bytes(bytes)
}

fn unsigned(cell: &[u8]) -> u64 {
    cell.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn float(cell: &[u8]) -> f64 {
    match cell {
        &[a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        _ => cell.try_into().map_or(f64::NAN, f64::from_le_bytes),
    }
}

fn bound_pair(oid: u8, flags: u8, min: &[u8], max: &[u8]) -> [u8; ZONE_MAP_LEN] {
    let mut zone_map = [0; ZONE_MAP_LEN];
    let put = |part: &mut [u8], value: &[u8]| {
        let len = value.len().min(BOUND_MAX);
        part[..len].copy_from_slice(&value[..len]);
        part[BOUND_MAX] = u8::try_from(len).expect("at most 30");
    };
    put(&mut zone_map[..31], min);
    put(&mut zone_map[31..62], max);
    if max.len() > BOUND_MAX {
        // Cut off, so rounded up to stay a bound; where that cannot be done a bit says so.
        match zone_map[31..61].iter_mut().rev().find(|byte| **byte != 0xFF) {
            Some(last) => *last += 1,
            None => zone_map[61] |= 0x80,
        }
    }
    zone_map[62] = flags;
    zone_map[63] = oid;
    zone_map
}

fn add(oid: u8, a: &[u8], b: &[u8]) -> [u8; 8] {
    if matches!(oid, 30 | 31) {
        return (float(a) + float(b)).to_le_bytes();
    }
    unsigned(a).wrapping_add(unsigned(b)).to_le_bytes()
}

/// The bounds of two blocks together.
pub(super) fn merge_zone_maps(oid: u8, a: &[u8; ZONE_MAP_LEN], b: &[u8; ZONE_MAP_LEN]) -> [u8; ZONE_MAP_LEN] {
    let Some(facts) = TypeFacts::of(oid) else { return *a };
    match (a[62] & 0x80 != 0, b[62] & 0x80 != 0) {
        (_, false) => return *a,
        (false, true) => return *b,
        (true, true) => {}
    }
    let min = |map: &[u8; ZONE_MAP_LEN]| map[..usize::from(map[30] & 0x1F)].to_vec();
    let max = |map: &[u8; ZONE_MAP_LEN]| map[31..31 + usize::from(map[61] & 0x1F)].to_vec();
    let mut merged = *a;
    if compare(facts.order, &min(b), &min(a)).is_lt() {
        merged[..31].copy_from_slice(&b[..31]);
    }
    if has_sum(oid) {
        merged[SUM].copy_from_slice(&add(oid, &a[SUM], &b[SUM]));
    }
    if compare(facts.order, &max(b), &max(a)).is_gt() {
        merged[31..62].copy_from_slice(&b[31..62]);
    }
    merged
}
