//! MatrixOne's column types: numbers, names and cell sizes.

use std::fmt;

/// The number of a column type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataType(pub u8);

impl DataType {
    pub(super) const BOOL: Self = Self(10);
    pub(super) const INT8: Self = Self(20);
    pub(super) const UINT32: Self = Self(27);
    pub(super) const UINT64: Self = Self(28);
    pub(super) const CHAR: Self = Self(60);
    pub(super) const VARCHAR: Self = Self(61);
    pub(super) const TS: Self = Self(100);

    /// The length of a cell of values that lie elsewhere, or inline if short.
    pub(super) const VARLENA_LEN: usize = 24;

    /// Name as MatrixOne spells it and bytes of one cell; `None` for a number not known here.
    fn facts(self) -> Option<(&'static str, usize)> {
        Some(match self.0 {
            10 => ("bool", 1),
            11 => ("bit", 8),
            20 => ("int8", 1),
            21 => ("int16", 2),
            22 => ("int32", 4),
            23 => ("int64", 8),
            25 => ("uint8", 1),
            26 => ("uint16", 2),
            27 => ("uint32", 4),
            28 => ("uint64", 8),
            30 => ("float32", 4),
            31 => ("float64", 8),
            32 => ("decimal64", 8),
            33 => ("decimal128", 16),
            34 => ("decimal256", 32),
            50 => ("date", 4),
            51 => ("time", 8),
            52 => ("datetime", 8),
            53 => ("timestamp", 8),
            55 => ("year", 2),
            60 => ("char", 24),
            61 => ("varchar", 24),
            62 => ("json", 24),
            63 => ("uuid", 16),
            64 => ("binary", 24),
            65 => ("varbinary", 24),
            66 => ("enum", 2),
            67 => ("geometry", 24),
            68 => ("geometry32", 24),
            70 => ("blob", 24),
            71 => ("text", 24),
            72 => ("datalink", 24),
            100 => ("ts", 12),
            101 => ("rowid", 24),
            102 => ("blockid", 20),
            224 => ("vecf32", 24),
            225 => ("vecf64", 24),
            226 => ("vecbf16", 24),
            227 => ("vecf16", 24),
            228 => ("vecint8", 24),
            229 => ("vecuint8", 24),
            _ => return None,
        })
    }

    /// Name as MatrixOne spells it.
    pub fn name(self) -> Option<&'static str> {
        self.facts().map(|(name, _)| name)
    }

    /// Bytes of one cell.
    pub fn cell_len(self) -> Option<usize> {
        self.facts().map(|(_, len)| len)
    }

    /// True if cells hold short values or point into an area.
    pub fn is_varlena(self) -> bool {
        matches!(self.0, 60..=62 | 64 | 65 | 67 | 68 | 70..=72 | 224..=229)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

impl fmt::Debug for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for DataType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_varlena_type_has_varlena_cells() {
        for oid in 0..=255 {
            let data_type = DataType(oid);
            if data_type.is_varlena() {
                assert_eq!(data_type.cell_len(), Some(DataType::VARLENA_LEN), "{data_type}");
            }
        }
        assert_eq!(DataType(61).to_string(), "varchar");
        assert_eq!(DataType(99).to_string(), "type 99");
        assert_eq!(DataType(101).cell_len(), Some(24));
        assert!(!DataType(101).is_varlena());
    }
}
