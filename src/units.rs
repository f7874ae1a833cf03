//! Byte counts and durations as people read and write them.

use std::time::Duration;

/// 1024 bytes.
pub const KIB: u64 = 1 << 10;
/// 1024 KiB.
pub const MIB: u64 = 1 << 20;
/// 1024 MiB.
pub const GIB: u64 = 1 << 30;

/// `1536` → `1.5 KiB`; exact below 1 KiB.
pub fn bytes(count: u64) -> String {
    const STEPS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < KIB {
        return format!("{count} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut step = 0;
    while value >= 1023.95 && step + 1 < STEPS.len() {
        value /= 1024.0;
        step += 1;
    }
    let digits = if value < 99.95 { 1 } else { 0 };
    format!("{value:.digits$} {}", STEPS[step])
}

/// Bytes per second over a duration, as text.
pub fn rate(count: u64, duration: Duration) -> String {
    let seconds = duration.as_secs_f64().max(1e-9);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shown to people"
    )]
    let per_second = (count as f64 / seconds) as u64;
    format!("{}/s", bytes(per_second))
}

/// `1h 02m`, `3m 04s`, `5.2s`, `12ms`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `12345678` → `12,345,678`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// Reads `64K`, `1.5 MiB`, `1M`, `200`: powers of 1024 whatever the spelling.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let value: f64 = number.parse().ok()?;
    #[allow(clippy::cast_precision_loss, reason = "at most 2^50, exact")]
    let value = value * (1u64 << shift) as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked on this line")]
    (value.is_finite() && (0.0..9e18).contains(&value)).then_some(value as u64)
}

/// `1 file`, `2 files`, `0 directories`.
pub fn plural(number: u64, one: &str) -> String {
    let told = count(number);
    match (number, one.strip_suffix('y')) {
        (1, _) => format!("{told} {one}"),
        (_, Some(stem)) => format!("{told} {stem}ies"),
        _ => format!("{told} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_are_written() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(300 * MIB), "300 MiB");
        assert_eq!(bytes(1024 * MIB - 1), "1.0 GiB");
        assert_eq!(parse_bytes("64K"), Some(65536));
        assert_eq!(parse_bytes("1.5 MiB"), Some(1_572_864));
        assert_eq!(parse_bytes("1mb"), Some(MIB));
        assert_eq!(parse_bytes("7"), Some(7));
        assert_eq!(parse_bytes("7 bananas"), None);
        assert_eq!(parse_bytes("-1"), None);
        assert_eq!(parse_bytes("99999999999999P"), None);
    }

    #[test]
    fn durations_and_counts_are_short() {
        assert_eq!(duration(Duration::from_millis(12)), "12ms");
        assert_eq!(duration(Duration::from_millis(5200)), "5.2s");
        assert_eq!(duration(Duration::from_secs(184)), "3m 04s");
        assert_eq!(duration(Duration::from_secs(3720)), "1h 02m");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(count(12), "12");
    }

    #[test]
    fn counts_have_their_words() {
        assert_eq!(plural(1, "file"), "1 file");
        assert_eq!(plural(1200, "file"), "1,200 files");
        assert_eq!(plural(0, "directory"), "0 directories");
        assert_eq!(plural(2, "log entry"), "2 log entries");
    }
}
