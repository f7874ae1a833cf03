//! Days, weeks, months and years, for rules that people write down. All in UTC, so that a rule means the same on every machine.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::Timestamp;

/// A stretch of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week as ISO 8601 has it: from Monday, and of the year that its Thursday is in.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// All of them, the shortest first.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// What a thing is called that happens once in each.
    pub fn adverb(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// The one that a time lies in, in UTC: `2026-11-20T14`, `2026-11-20`, `2026-W47`, `2026-11`, `2026`. Later ones sort behind earlier ones.
    pub fn of(self, time: Timestamp) -> String {
        let time = civil(time);
        match self {
            Self::Hour => time.strftime("%Y-%m-%dT%H").to_string(),
            Self::Day => time.strftime("%Y-%m-%d").to_string(),
            Self::Week => {
                let week = time.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Month => time.strftime("%Y-%m").to_string(),
            Self::Year => time.strftime("%Y").to_string(),
        }
    }
}

/// A length of time as people say it: days and hours of a fixed length, months and years as the calendar has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    years: u16,
    months: u16,
    weeks: u16,
    days: u16,
    hours: u16,
}

impl Span {
    /// So many days.
    pub const fn days(days: u16) -> Self {
        Self { years: 0, months: 0, weeks: 0, days, hours: 0 }
    }

    /// Reads `36h`, `30d`, `12w`, `6mo`, `1y` and several of them in a row (`1y6mo`), the largest first. Nothing of length zero.
    pub fn parse(text: &str) -> Option<Self> {
        let mut span = Self::default();
        let mut rest = text.trim();
        let mut rank = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let count: u16 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let (place, field) = match &rest[..letters] {
                "y" => (1, &mut span.years),
                "mo" => (2, &mut span.months),
                "w" => (3, &mut span.weeks),
                "d" => (4, &mut span.days),
                "h" => (5, &mut span.hours),
                _ => return None,
            };
            if place <= rank {
                return None;
            }
            (rank, *field) = (place, count);
            rest = &rest[letters..];
        }
        (span != Self::default()).then_some(span)
    }

    fn signed(&self) -> jiff::Span {
        jiff::Span::new()
            .years(self.years.min(9_999))
            .months(self.months)
            .weeks(self.weeks)
            .days(self.days)
            .hours(self.hours)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.years, "y"), (self.months, "mo"), (self.weeks, "w"), (self.days, "d"), (self.hours, "h")];
        parts.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, unit)| write!(f, "{count}{unit}"))
    }
}

impl Timestamp {
    /// So much earlier; the earliest time there is where the calendar ends.
    #[must_use]
    pub fn minus(self, span: &Span) -> Self {
        let time = civil(self).checked_sub(span.signed()).ok().and_then(from_civil);
        time.unwrap_or(Self::from_nanos(i64::MIN))
    }

    /// So much later; nothing where the calendar ends.
    pub fn plus(self, span: &Span) -> Option<Self> {
        civil(self).checked_add(span.signed()).ok().and_then(from_civil)
    }

    /// Reads RFC 3339 (`2026-12-31T18:00:00Z`), or a day alone (`2026-12-31`), which means its last second in the zone of this machine.
    pub fn parse_until(text: &str) -> Option<Self> {
        let text = text.trim();
        let time = match text.parse::<jiff::Timestamp>() {
            Ok(time) => time,
            // The date of a text that says more would be a guess.
            Err(_) if text.len() == "2026-12-31".len() => {
                let end = text.parse::<Date>().ok()?.at(23, 59, 59, 0);
                end.to_zoned(TimeZone::system()).ok()?.timestamp()
            }
            Err(_) => return None,
        };
        i64::try_from(time.as_nanosecond()).ok().map(Self::from_nanos)
    }
}

fn civil(time: Timestamp) -> DateTime {
    let nanos = i128::from(time.as_nanos());
    jiff::Timestamp::from_nanosecond(nanos).map_or(DateTime::MIN, |time| TimeZone::UTC.to_datetime(time))
}

fn from_civil(time: DateTime) -> Option<Timestamp> {
    let time = TimeZone::UTC.to_timestamp(time).ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(Timestamp::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_until(text).unwrap()
    }

    #[test]
    fn periods_are_those_of_utc_and_weeks_those_of_iso() {
        let time = at("2026-11-20T23:30:00-03:00");
        let names: Vec<_> = Period::ALL.iter().map(|period| period.of(time)).collect();
        assert_eq!(names, ["2026-11-21T02", "2026-11-21", "2026-W47", "2026-11", "2026"]);
        for (day, week) in [
            ("2024-12-29", "2024-W52"),
            ("2024-12-30", "2025-W01"),
            ("2027-01-03", "2026-W53"),
            ("2027-01-04", "2027-W01"),
        ] {
            assert_eq!(Period::Week.of(at(&format!("{day}T12:00:00Z"))), week, "{day}");
        }
        for time in [i64::MIN, 0, i64::MAX] {
            assert!(Period::ALL.iter().all(|period| !period.of(Timestamp::from_nanos(time)).is_empty()));
        }
    }

    #[test]
    fn spans_are_read_as_they_are_written_and_nonsense_is_refused() {
        for text in ["30d", "12w", "6mo", "1y", "1y6mo", "36h", "2w3d"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "d", "30", "30m", "5s", "0d", "-1d", "6mo1y", "1d1d", "99999d", "1.5y", "1 y", "ä"] {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn months_and_years_are_the_calendars() {
        let time = at("2026-03-31T12:00:00Z");
        assert_eq!(time.minus(&Span::parse("1mo").unwrap()), at("2026-02-28T12:00:00Z"));
        assert_eq!(time.minus(&Span::parse("1y1d").unwrap()), at("2025-03-30T12:00:00Z"));
        assert_eq!(time.plus(&Span::parse("30d").unwrap()), Some(at("2026-04-30T12:00:00Z")));
        assert_eq!(time.minus(&Span::parse("60000y").unwrap()), Timestamp::from_nanos(i64::MIN));
        assert_eq!(time.plus(&Span::parse("60000y").unwrap()), None);
        assert_eq!(Timestamp::from_nanos(i64::MIN).minus(&Span::days(1)), Timestamp::from_nanos(i64::MIN));
    }

    #[test]
    fn ends_of_holds_are_read_and_nonsense_is_refused() {
        assert_eq!(at("2026-12-31T00:00:00+01:00").to_rfc3339(), "2026-12-30T23:00:00.000Z");
        let end = at("2026-12-31").to_local();
        assert!(end.starts_with("2026-12-31 23:59:59"), "{end}");
        for wrong in ["", "tomorrow", "2026-13-01", "2026-12-31T10:00", "31.12.2026", "9999-12-31"] {
            assert_eq!(Timestamp::parse_until(wrong), None, "{wrong}");
        }
    }
}
