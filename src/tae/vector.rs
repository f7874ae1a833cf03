//! A column of one block, decoded: cells, nulls, out-of-line values.
//!
//! This is what lies in a data extent once LZ4 is undone, versions 1 (releases 1.x) and 2. It is read only: cells of null
//! rows and unused bytes keep stale data, so a vector must never be encoded again from its values.

use crate::error::{Error, Result};

use super::meta::{EntryHeader, array_at, u32_at};
use super::types::DataType;

/// One column of one block.
#[derive(Clone, Debug)]
pub struct Vector<'a> {
    data_type: DataType,
    rows: u32,
    cell_len: usize,
    /// One cell for all rows (no cell at all if they are null), or a cell for each row.
    is_constant: bool,
    cells: &'a [u8],
    area: &'a [u8],
    /// Words of the null bitmap, without its head.
    nulls: &'a [u8],
}

/// Takes fields off the front of a vector.
struct Fields<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn bytes(&mut self, len: usize, field: &str) -> Result<&'a [u8]> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            let have = self.rest.len();
            return Err(Error::corrupt(format!("vector: {field}: need {len} bytes at {}, have {have}", self.at)));
        };
        self.rest = rest;
        self.at += len;
        Ok(head)
    }

    fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32_at(self.bytes(4, field)?, 0))
    }

    fn sized(&mut self, field: &str) -> Result<&'a [u8]> {
        let len = self.u32(field)?;
        self.bytes(len as usize, field)
    }
}

impl<'a> Vector<'a> {
    /// Reads the content of a data extent. All lengths are proved; cells are resolved when asked for.
    pub fn parse(content: &'a [u8]) -> Result<Self> {
        let (entry, rest) =
            EntryHeader::split(content).ok_or_else(|| Error::corrupt("vector: shorter than its type and version"))?;
        let EntryHeader { kind, version } = entry;
        if kind != EntryHeader::COLUMN || !matches!(version, 1 | 2) {
            return Err(Error::corrupt(format!("vector: type {kind} version {version} is not column data")));
        }
        let mut fields = Fields { rest, at: EntryHeader::LEN };
        let class = fields.bytes(1, "class")?[0];
        let data_type = fields.bytes(16, "type")?;
        let (data_type, cell_len) = (DataType(data_type[0]), u32_at(data_type, 4) as usize);
        if data_type.cell_len().is_some_and(|known| known != cell_len) {
            return Err(Error::corrupt(format!("vector: cells of {data_type} are said to have {cell_len} bytes")));
        }
        let rows = fields.u32("row count")?;
        let cells = fields.sized("data")?;
        let area = fields.sized("area")?;
        let nulls = fields.sized("nulls")?;
        if !matches!(fields.bytes(1, "sorted")?, [0 | 1]) || !fields.rest.is_empty() {
            return Err(Error::corrupt(format!("vector: {} bytes are left over at its end", fields.rest.len())));
        }
        let is_constant = match class {
            0 if Some(cells.len()) == cell_len.checked_mul(rows as usize) => false,
            1 if cells.is_empty() || cells.len() == cell_len => true,
            0 | 1 => {
                let len = cells.len();
                return Err(Error::corrupt(format!("vector: {len} bytes of data for {rows} rows of {cell_len}")));
            }
            other => return Err(Error::corrupt(format!("vector: class {other} is not known"))),
        };
        Ok(Self { data_type, rows, cell_len, is_constant, cells, area, nulls: null_words(nulls, version)? })
    }

    /// Where the cells lie in the content that was parsed.
    pub(super) fn cells_range(&self) -> std::ops::Range<usize> {
        // Type and version, class, type, row count, length of the data.
        const AT: usize = EntryHeader::LEN + 1 + 16 + 4 + 4;
        AT..AT + self.cells.len()
    }

    /// Type of the column.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// True if the value of the row is null, and for rows that are not there.
    pub fn is_null(&self, row: u32) -> bool {
        if row >= self.rows || (self.is_constant && self.cells.is_empty()) {
            return true;
        }
        let word = self.nulls.get(row as usize / 8);
        word.is_some_and(|byte| byte >> (row % 8) & 1 == 1)
    }

    /// The value of the row as stored; `None` if it is null. Fails if a cell points outside the area.
    pub fn value(&self, row: u32) -> Result<Option<&'a [u8]>> {
        if self.is_null(row) {
            return Ok(None);
        }
        let at = if self.is_constant { 0 } else { row as usize * self.cell_len };
        let cell = &self.cells[at..at + self.cell_len];
        if !self.data_type.is_varlena() {
            return Ok(Some(cell));
        }
        let short = usize::from(cell[0]);
        if short < DataType::VARLENA_LEN {
            return Ok(Some(&cell[1..=short]));
        }
        let (offset, len) = (u32_at(cell, 4) as usize, u32_at(cell, 8) as usize);
        let value = offset.checked_add(len).and_then(|end| self.area.get(offset..end));
        value.map(Some).ok_or_else(|| {
            let have = self.area.len();
            Error::corrupt(format!("vector: row {row} points to {offset}+{len} in an area of {have} bytes"))
        })
    }

    /// The value of the row if it has `N` bytes; zeros if it is null.
    pub fn fixed<const N: usize>(&self, row: u32) -> Result<[u8; N]> {
        match self.value(row)? {
            None => Ok([0; N]),
            Some(value) => value.try_into().map_err(|_| {
                let data_type = self.data_type;
                Error::corrupt(format!("vector: row {row}: {data_type} has {} bytes, expected {N}", value.len()))
            }),
        }
    }

    /// Resolves every cell, so that a bad one is found.
    pub(super) fn check_cells(&self) -> Result<()> {
        if self.data_type.is_varlena() {
            for row in 0..self.rows {
                self.value(row)?;
                if self.is_constant {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The words of a null bitmap; bytes of them are in bit order, since words are little-endian.
fn null_words(bitmap: &[u8], version: u16) -> Result<&[u8]> {
    if bitmap.is_empty() {
        return Ok(bitmap);
    }
    // A count of 8 bytes or a flag of 4, the number of bits, the number of bytes.
    let count_len = if version == 1 { 4 } else { 8 };
    let head_len = count_len + 16;
    let Some((head, words)) = bitmap.split_at_checked(head_len) else {
        return Err(Error::corrupt(format!("vector: a null bitmap of {} bytes lacks its head", bitmap.len())));
    };
    let bits = u64::from_le_bytes(array_at(head, count_len));
    let len = u64::from_le_bytes(array_at(head, count_len + 8));
    if len != words.len() as u64 || bits > len.saturating_mul(8) {
        let have = words.len();
        return Err(Error::corrupt(format!("vector: a null bitmap of {bits} bits in {len} bytes has {have}")));
    }
    Ok(words)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The content of a data extent, version 2.
    pub(in crate::tae) fn encode(
        class: u8,
        oid: u8,
        rows: u32,
        cells: &[u8],
        area: &[u8],
        null_rows: &[u32],
    ) -> Vec<u8> {
        let mut bytes = vec![2, 0, 2, 0, class, oid, 0, 0, 0];
        let cell_len = u32::try_from(DataType(oid).cell_len().unwrap()).unwrap();
        bytes.extend_from_slice(&cell_len.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&rows.to_le_bytes());
        let mut sized = |field: &[u8]| {
            bytes.extend_from_slice(&u32::try_from(field.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(field);
        };
        sized(cells);
        sized(area);
        let mut bitmap = Vec::new();
        if !null_rows.is_empty() {
            let mut word = 0u64;
            for row in null_rows {
                word |= 1 << row;
            }
            bitmap.extend_from_slice(&i64::try_from(null_rows.len()).unwrap().to_le_bytes());
            bitmap.extend_from_slice(&64u64.to_le_bytes());
            bitmap.extend_from_slice(&8u64.to_le_bytes());
            bitmap.extend_from_slice(&word.to_le_bytes());
        }
        sized(&bitmap);
        bytes.push(0);
        bytes
    }

    fn varlena(value: &[u8], area: &mut Vec<u8>) -> Vec<u8> {
        let mut cell = vec![u8::try_from(value.len()).unwrap()];
        if value.len() < 24 {
            cell.extend_from_slice(value);
        } else {
            cell = vec![0xff; 4];
            cell.extend_from_slice(&u32::try_from(area.len()).unwrap().to_le_bytes());
            cell.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
            area.extend_from_slice(value);
        }
        cell.resize(24, 0);
        cell
    }

    #[test]
    fn fixed_cells_and_nulls() {
        let bytes = encode(0, 22, 3, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0], &[], &[1]);
        let vector = Vector::parse(&bytes).unwrap();
        assert_eq!(vector.fixed(0).unwrap(), [1, 0, 0, 0]);
        assert_eq!(vector.value(1).unwrap(), None);
        assert_eq!(vector.fixed(2).unwrap(), [3, 0, 0, 0]);
        assert!(vector.is_null(3), "beyond the end");
        assert!(vector.fixed::<8>(2).is_err());
    }

    #[test]
    fn short_long_and_constant_values() {
        let long = [b'x'; 24];
        let mut area = Vec::new();
        let cells = [varlena(b"", &mut area), varlena(&[b'y'; 23], &mut area), varlena(&long, &mut area)].concat();
        let bytes = encode(0, 61, 3, &cells, &area, &[]);
        let vector = Vector::parse(&bytes).unwrap();
        assert_eq!(vector.value(0).unwrap(), Some(&b""[..]));
        assert_eq!(vector.value(1).unwrap(), Some(&[b'y'; 23][..]));
        assert_eq!(vector.value(2).unwrap(), Some(&long[..]));
        vector.check_cells().unwrap();

        let short_area = encode(0, 61, 3, &cells, &area[..23], &[]);
        assert!(Vector::parse(&short_area).unwrap().check_cells().is_err());
        let constant = encode(1, 61, 9, &varlena(&long, &mut Vec::new()), &long, &[]);
        assert_eq!(Vector::parse(&constant).unwrap().value(8).unwrap(), Some(&long[..]));
        let null = encode(1, 61, 9, &[], &[], &[]);
        assert_eq!(Vector::parse(&null).unwrap().value(0).unwrap(), None);
    }

    #[test]
    fn every_truncation_and_mutation_is_refused_or_read() {
        let mut area = Vec::new();
        let cells = [varlena(b"abc", &mut area), varlena(&[7; 40], &mut area)].concat();
        let bytes = encode(0, 61, 2, &cells, &area, &[0]);
        for len in 0..bytes.len() {
            assert!(Vector::parse(&bytes[..len]).is_err(), "{len}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut mutated = bytes.clone();
                mutated[at] = value;
                if let Ok(vector) = Vector::parse(&mutated) {
                    for row in 0..vector.rows().min(10) {
                        let _unread = vector.value(row);
                    }
                }
            }
        }
        assert!(Vector::parse(&encode(2, 61, 2, &cells, &area, &[])).is_err(), "dictionary class");
        assert!(Vector::parse(&encode(0, 61, 3, &cells, &area, &[])).is_err(), "row count");
    }
}
