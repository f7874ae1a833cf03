//! What the rules keep of one group of backups. Pure: backups in order, their doubts and a time in; reasons out.
//!
//! Each rule decides by itself; a backup stays if any of them keeps it. Rules that count look only at backups whose date is believed, the
//! newest first.

use std::fmt;

use super::believe::{Candidate, Doubt};
use crate::clock::{Period, Span, Timestamp};

/// What is kept. A backup stays if any rule keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The last so many.
    pub last: Option<u32>,
    /// The newest of each of the last so many hours that have a backup.
    pub hourly: Option<u32>,
    /// The same with days.
    pub daily: Option<u32>,
    /// The same with weeks.
    pub weekly: Option<u32>,
    /// The same with months.
    pub monthly: Option<u32>,
    /// The same with years.
    pub yearly: Option<u32>,
    /// Whatever is at most so much older than the newest; than the one before it, if the newest stands alone.
    pub within: Option<Span>,
    /// Whatever bears one of these tags.
    pub tags: Vec<String>,
}

impl Policy {
    /// True if no rule keeps anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The rules that count.
    pub(super) fn counts(&self) -> impl Iterator<Item = u32> {
        let Self { last, hourly, daily, weekly, monthly, yearly, .. } = self;
        [last, hourly, daily, weekly, monthly, yearly].into_iter().filter_map(|count| *count)
    }

    fn periods(&self) -> impl Iterator<Item = (Period, u32)> {
        let counts = [self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        Period::ALL.into_iter().zip(counts).filter_map(|(period, count)| Some((period, count?)))
    }
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is one of the last so many.
    Last(u32),
    /// It is the newest of its hour, day, …: which kind, and which one.
    Newest(Period, String),
    /// It is recent.
    Within(Span),
    /// It bears this tag.
    Tag(String),
    /// It is the newest that is not partial, and a later one that is partial stays.
    NewestComplete,
    /// It cannot be forgotten until then.
    Held(Timestamp),
    /// Its date is not believed, so no rule forgets it.
    Doubtful(Doubt),
}

impl Reason {
    fn text(&self, show: fn(Timestamp) -> String) -> String {
        match self {
            Self::Last(count) => format!("last {count}"),
            Self::Newest(period, name) => format!("{} {name}", period.adverb()),
            Self::Within(span) => format!("within {span}"),
            Self::Tag(tag) => format!("tag {tag}"),
            Self::NewestComplete => "newest complete one".to_owned(),
            Self::Held(until) => format!("held until {}", show(*until)),
            Self::Doubtful(doubt) => format!("its date is doubtful: {}", doubt.text(show)),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Timestamp::to_local))
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text(Timestamp::to_rfc3339))
    }
}

/// Why each backup of a group stays; no reason, no backup. `spare_doubtful`: those of doubtful date stay, whatever the rules say.
pub(super) fn judge(
    policy: &Policy,
    group: &[Candidate],
    doubts: &[Option<Doubt>],
    spare_doubtful: bool,
    now: Timestamp,
) -> Vec<Vec<Reason>> {
    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); group.len()];
    let believed: Vec<usize> = (0..group.len()).filter(|at| doubts[*at].is_none()).collect();
    if let Some(count) = policy.last {
        last_of(&believed, count).for_each(|at| reasons[at].push(Reason::Last(count)));
        // Those that the user no longer spares get no less than their place in the log gives them, and take it from nobody.
        let doubtful =
            (0..group.len()).rev().take(count as usize).filter(|at| doubts[*at].is_some() && !spare_doubtful);
        doubtful.for_each(|at| reasons[at].push(Reason::Last(count)));
    }
    for (period, count) in policy.periods() {
        for (at, name) in newest_of_each(period, count, group, &believed) {
            reasons[at].push(Reason::Newest(period, name));
        }
    }
    if let Some(span) = policy.within
        && let Some(reference) = newest_in_company(&span, group, &believed)
    {
        let since = reference.min(now).minus(&span);
        let recent = believed.iter().filter(|at| group[**at].started >= since);
        recent.for_each(|at| reasons[*at].push(Reason::Within(span)));
    }
    for (backup, reasons) in group.iter().zip(&mut reasons) {
        let wanted = policy.tags.iter().find(|tag| backup.tags.contains(tag));
        reasons.extend(wanted.map(|tag| Reason::Tag(tag.clone())));
    }
    // What is partial does not replace what is whole.
    let complete = believed.iter().rposition(|at| !group[*at].partial);
    if let Some(complete) = complete
        && believed[complete + 1..].iter().any(|at| !reasons[*at].is_empty())
        && reasons[believed[complete]].is_empty()
    {
        reasons[believed[complete]].push(Reason::NewestComplete);
    }
    for ((backup, doubt), reasons) in group.iter().zip(doubts).zip(&mut reasons) {
        reasons.extend(backup.held_until.filter(|until| *until > now).map(Reason::Held));
        reasons.extend(doubt.filter(|_| spare_doubtful).map(Reason::Doubtful));
    }
    reasons
}

/// What "recent" counts from: the date of the newest backup; of the one before it, if the newest stands alone for the whole span. So one night
/// with a wrong clock does not make all others old, even where clock, store and forget are one machine.
fn newest_in_company(span: &Span, group: &[Candidate], believed: &[usize]) -> Option<Timestamp> {
    let newest = group[*believed.last()?].started;
    let before = believed.iter().rev().nth(1).map(|at| group[*at].started);
    Some(before.filter(|before| *before < newest.minus(span)).unwrap_or(newest))
}

fn last_of(believed: &[usize], count: u32) -> impl Iterator<Item = usize> {
    believed.iter().rev().take(count as usize).copied()
}

/// The newest backup of each of the last `count` periods that have one; the newest complete one, where one is.
fn newest_of_each(period: Period, count: u32, group: &[Candidate], believed: &[usize]) -> Vec<(usize, String)> {
    let mut chosen: Vec<(usize, String)> = Vec::new();
    for at in believed.iter().rev().copied() {
        let name = period.of(group[at].started);
        let is_full = chosen.len() == count as usize;
        match chosen.last_mut() {
            // Believed dates never go backwards, so a period's backups stand together.
            Some((best, last)) if *last == name => {
                if group[*best].partial && !group[at].partial {
                    *best = at;
                }
            }
            _ if is_full => break,
            _ => chosen.push((at, name)),
        }
    }
    chosen
}
