//! Zonemaps: the least and greatest value of a column, made readable.

use crate::id::to_hex;

use super::meta::u16_at;
use super::name::{TaeName, Ts};
use super::types::DataType;

/// Values longer than this are cut; the least downwards, the greatest upwards.
const VALUE_MAX: usize = 30;
/// The scale of types that have none.
const NO_SCALE: u8 = 63;

/// The least and greatest value of a column as text.
///
/// The text of a character column is what users stored: escape it before showing it on a terminal.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Bounds {
    /// Least value.
    pub min: String,
    /// Greatest value.
    pub max: String,
    /// True if values were cut, so that these are bounds and no values.
    pub cut: bool,
}

/// Reads a zonemap; `None` if it is not set, or of a type that people cannot read.
pub(super) fn bounds(zonemap: &[u8; 64]) -> Option<Bounds> {
    let flags = zonemap[62];
    if flags & 0x80 == 0 {
        return None;
    }
    let data_type = DataType(zonemap[63]);
    let scale = flags & 0x3f;
    let (min_len, max_len) = (usize::from(zonemap[30]), usize::from(zonemap[61] & 0x7f));
    let (min, max) = (zonemap[..VALUE_MAX].get(..min_len)?, zonemap[31..31 + VALUE_MAX].get(..max_len)?);
    let is_cut = zonemap[61] & 0x80 != 0 || min_len == VALUE_MAX || max_len == VALUE_MAX;
    let cut = data_type.is_varlena() && is_cut;
    Some(Bounds { min: render(data_type, scale, min)?, max: render(data_type, scale, max)?, cut })
}

/// A value as text.
fn render(data_type: DataType, scale: u8, value: &[u8]) -> Option<String> {
    Some(match data_type.0 {
        10 => (*value.first()? != 0).to_string(),
        20 => i8::from_le_bytes(value.try_into().ok()?).to_string(),
        21 | 55 => i16::from_le_bytes(value.try_into().ok()?).to_string(),
        22 => i32::from_le_bytes(value.try_into().ok()?).to_string(),
        23 => i64::from_le_bytes(value.try_into().ok()?).to_string(),
        25 => value.first()?.to_string(),
        26 | 66 => u16::from_le_bytes(value.try_into().ok()?).to_string(),
        27 => u32::from_le_bytes(value.try_into().ok()?).to_string(),
        11 | 28 => u64::from_le_bytes(value.try_into().ok()?).to_string(),
        30 => f32::from_le_bytes(value.try_into().ok()?).to_string(),
        31 => f64::from_le_bytes(value.try_into().ok()?).to_string(),
        32 => decimal(i64::from_le_bytes(value.try_into().ok()?).into(), scale),
        33 => decimal(i128::from_le_bytes(value.try_into().ok()?), scale),
        50 => date(i32::from_le_bytes(value.try_into().ok()?).into())?,
        52 | 53 => datetime(i64::from_le_bytes(value.try_into().ok()?))?,
        60 | 61 | 71 | 72 => text(value)?,
        63 => uuid(value.try_into().ok()?),
        64 | 65 | 70 => to_hex(value),
        100 => Ts::from_bytes(value.try_into().ok()?).to_string(),
        101 => {
            let (id, place) = value.split_first_chunk::<18>()?;
            let (block, row) = place.split_first_chunk::<2>()?;
            let row = u32::from_le_bytes(row.try_into().ok()?);
            format!("{}-{}-{row}", TaeName::from_id(id), u16_at(block, 0))
        }
        _ => return None,
    })
}

fn decimal(value: i128, scale: u8) -> String {
    if scale == 0 || scale == NO_SCALE {
        return value.to_string();
    }
    let scale = usize::from(scale);
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{whole}.{fraction}")
}

/// Days since 0001-01-01 by the Gregorian calendar.
fn date(days: i64) -> Option<String> {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    // Counted from 0000-03-01, so that the day that some years lack is a year's last.
    let days = days.checked_add(306)?;
    let (cycle, day) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let year = cycle * 400 + year;
    (0..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

/// Microseconds since 0001-01-01.
fn datetime(micros: i64) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    let (date, rest) = (date(micros.div_euclid(DAY))?, micros.rem_euclid(DAY));
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    Some(format!("{date} {hour:02}:{minute:02}:{second:02}{fraction}"))
}

/// Text that may be cut inside its last character, or counted up in its last byte.
fn text(value: &[u8]) -> Option<String> {
    match std::str::from_utf8(value) {
        Ok(text) => Some(text.to_owned()),
        Err(error) if value.len() - error.valid_up_to() < 4 => {
            Some(String::from_utf8_lossy(&value[..error.valid_up_to()]).into_owned())
        }
        Err(_) => None,
    }
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex = to_hex(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zonemap(oid: u8, flags: u8, min: &[u8], max: &[u8]) -> [u8; 64] {
        let mut zonemap = [0; 64];
        zonemap[..min.len()].copy_from_slice(min);
        zonemap[30] = u8::try_from(min.len()).unwrap();
        zonemap[31..31 + max.len()].copy_from_slice(max);
        zonemap[61] = u8::try_from(max.len()).unwrap();
        zonemap[62] = 0x80 | flags;
        zonemap[63] = oid;
        zonemap
    }

    fn shown(oid: u8, flags: u8, min: &[u8], max: &[u8]) -> (String, String) {
        let bounds = bounds(&zonemap(oid, flags, min, max)).unwrap();
        (bounds.min, bounds.max)
    }

    #[test]
    fn values_read_as_people_write_them() {
        assert_eq!(shown(22, 63, &[0xff; 4], &[4, 0, 0, 0]), ("-1".into(), "4".into()));
        assert_eq!(
            shown(32, 2, &(-99i64).to_le_bytes(), &999_887i64.to_le_bytes()),
            ("-0.99".into(), "9998.87".into())
        );
        assert_eq!(
            shown(50, 0, &0i32.to_le_bytes(), &739_254i32.to_le_bytes()),
            ("0001-01-01".into(), "2025-01-04".into())
        );
        let micros = 63_930_832_026_678_807i64.to_le_bytes();
        assert_eq!(
            shown(52, 6, &0i64.to_le_bytes(), &micros),
            ("0001-01-01 00:00:00".into(), "2026-11-21 04:27:06.678807".into())
        );
        assert_eq!(shown(61, 0, b"moadmin", "grün".as_bytes()), ("moadmin".into(), "grün".into()));
        assert_eq!(shown(61, 0, &"grün".as_bytes()[..3], b""), ("gr".into(), String::new()));
        assert_eq!(shown(100, 0, &[0; 12], &[2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]), ("0-0".into(), "9-2".into()));
        assert!(bounds(&zonemap(61, 0, &[b'x'; 30], b"y")).unwrap().cut);
    }

    #[test]
    fn nothing_is_shown_for_what_is_not_set_or_not_known() {
        assert_eq!(bounds(&[0; 64]), None);
        assert_eq!(bounds(&zonemap(224, 0, b"abcd", b"abcd")), None);
        assert_eq!(bounds(&zonemap(22, 0, b"abc", b"abc")), None, "three bytes for an int32");
        for byte in 0..=255 {
            let _any = bounds(&[byte; 64]);
        }
        assert_eq!(date(i64::MAX), None);
        assert_eq!(datetime(i64::MAX), None);
    }
}
