//! Sizes, durations and times as the original writes them.

use everpack::clock::Timestamp;

/// `586 kB`, `8.3 MB`, `65 MB`: thousands, one decimal below ten.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut one: u64 = 1;
    while unit + 1 < UNITS.len() && bytes / 1000 >= one {
        one *= 1000;
        unit += 1;
    }
    // Tenths, rounded half up.
    let tenths = (u128::from(bytes) * 10 + u128::from(one) / 2) / u128::from(one);
    match tenths {
        0..100 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{} {}", round_half_even(tenths), UNITS[unit]),
    }
}

/// Tenths to a whole number, as a C formatter rounds.
fn round_half_even(tenths: u128) -> u128 {
    let (whole, rest) = (tenths / 10, tenths % 10);
    whole + u128::from(rest > 5 || (rest == 5 && whole % 2 == 1))
}

/// `1.700945333s`, `887.311298ms`, `76.497µs`, `1m2.5s`: as Go writes a duration.
pub(super) fn duration(nanos: u64) -> String {
    let fraction = |value: u64, unit: u64, digits: usize| {
        let (whole, rest) = (value / unit, value % unit);
        let text = format!("{whole}.{rest:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000, 6)),
        _ => {
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000, 9);
            let minutes = nanos / 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `2024-05-13 12:00:12 +0800`: in this host's zone.
pub(super) fn time(time: Timestamp) -> String {
    let local = time.to_local();
    // The zone with a colon is everpack's own way.
    match local.rsplit_once(':') {
        Some((head, minutes)) if minutes.len() == 2 => format!("{head}{minutes}"),
        _ => local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_documents() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (586_000, "586 kB"),
            (8_300_000, "8.3 MB"),
            (9_960_000, "10 MB"),
            (65_400_000, "65 MB"),
            (126_000_000, "126 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_are_gos() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (76_497, "76.497µs"),
            (549_000, "549µs"),
            (887_311_298, "887.311298ms"),
            (1_700_945_333, "1.700945333s"),
            (62_500_000_000, "1m2.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(nanos), text);
        }
    }

    #[test]
    fn times_have_an_offset_without_a_colon() {
        let text = time(Timestamp::from_nanos(1_715_745_404_915_410_000));
        assert_eq!(text.len(), 25, "{text}");
        assert!(text.as_bytes()[20] == b'+' || text.as_bytes()[20] == b'-', "{text}");
    }
}
