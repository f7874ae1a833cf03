//! Tables of what rules keep, and properties over histories with wrong clocks and hostile clients.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::believe::{Candidate, Doubt, doubts, in_order};
use super::decide;
use super::policy::judge;
use super::{ForgetPolicy, GroupBy, Policy, Reason};
use crate::clock::{Span, Timestamp};
use crate::error::ErrorKind;
use crate::format::log_record::BackupSummary;
use crate::format::log_state::{BackupState, LogState};
use crate::format::manifest::Totals;
use crate::id::{LineageId, ObjectHash, ObjectKind, ObjectName, SessionId};

const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

fn at(text: &str) -> Timestamp {
    let text = if text.len() == 10 { format!("{text}T02:00:00Z") } else { text.to_owned() };
    Timestamp::parse_until(&text).unwrap()
}

fn later(time: Timestamp, nanos: i64) -> Timestamp {
    Timestamp::from_nanos(time.as_nanos() + nanos)
}

fn id(n: u64) -> ObjectHash {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&n.to_le_bytes());
    ObjectHash::from_bytes(bytes)
}

/// A backup of its own session that took half an hour, committed by entry `n`.
fn made(n: u64, started: Timestamp) -> Candidate {
    Candidate {
        id: id(n),
        entry: n,
        session: SessionId::from_bytes(n.to_le_bytes()),
        started,
        committed: Some(later(started, HOUR / 2)),
        partial: false,
        tags: Vec::new(),
        held_until: None,
    }
}

/// One backup a date, committed in this order.
fn history(dates: &[&str]) -> Vec<Candidate> {
    (1..).zip(dates).map(|(n, date)| made(n, at(date))).collect()
}

fn reasons(policy: &Policy, group: &[Candidate], now: &str) -> Vec<Vec<Reason>> {
    judge(policy, group, &doubts(group, at(now)), true, at(now))
}

/// What stays, as people read it; an empty text for what goes.
fn told(policy: &Policy, group: &[Candidate], now: &str) -> Vec<String> {
    let tell = |reasons: Vec<Reason>| reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    reasons(policy, group, now).into_iter().map(tell).collect()
}

#[test]
fn the_newest_of_each_period_stays() {
    let group = history(&[
        "2025-12-30",
        "2026-10-31",
        "2026-11-14",
        "2026-11-15",
        "2026-11-19",
        "2026-11-20T02:00:00Z",
        "2026-11-20T23:59:59Z",
        "2026-11-21T00:00:00Z",
    ]);
    let now = "2026-11-21T12:00:00Z";
    let daily = Policy { daily: Some(2), ..Policy::default() };
    let expected = ["", "", "", "", "", "", "daily 2026-11-20", "daily 2026-11-21"];
    assert_eq!(told(&daily, &group, now), expected);
    let weekly = Policy { weekly: Some(3), ..Policy::default() };
    let expected = ["", "weekly 2026-W44", "", "weekly 2026-W46", "", "", "", "weekly 2026-W47"];
    assert_eq!(told(&weekly, &group, now), expected);
    let long = Policy { monthly: Some(12), yearly: Some(5), last: Some(1), ..Policy::default() };
    let expected =
        ["monthly 2025-12, yearly 2025", "monthly 2026-10", "", "", "", "", "", "last 1, monthly 2026-11, yearly 2026"];
    assert_eq!(told(&long, &group, now), expected);
    let hourly = Policy { hourly: Some(2), ..Policy::default() };
    assert_eq!(told(&hourly, &group, now)[6..], ["hourly 2026-11-20T23", "hourly 2026-11-21T00"]);
}

#[test]
fn what_is_recent_is_counted_from_the_newest_and_not_from_today() {
    let group = history(&["2026-01-01", "2026-02-01", "2026-02-20", "2026-03-01"]);
    let policy = Policy { within: Some(Span::parse("1mo").unwrap()), ..Policy::default() };
    let kept = ["", "within 1mo", "within 1mo", "within 1mo"];
    assert_eq!(told(&policy, &group, "2026-03-02"), kept);
    assert_eq!(told(&policy, &group, "2031-03-02"), kept, "a source that is no more keeps its last backups");
}

/// A repository on the machine's own disk, whose clock jumps ten years ahead for one night, and `forget` runs in that night.
#[test]
fn one_night_of_a_wrong_clock_does_not_make_the_others_old() {
    let group = history(&["2026-01-01", "2026-02-19", "2026-02-20", "2036-02-21"]);
    let policy = Policy { within: Some(Span::days(30)), ..Policy::default() };
    assert_eq!(told(&policy, &group, "2036-02-21T03:00:00Z"), ["", "within 30d", "within 30d", "within 30d"]);
    let counted = Policy { daily: Some(2), ..Policy::default() };
    assert_eq!(told(&counted, &group, "2036-02-21T03:00:00Z"), ["", "", "daily 2026-02-20", "daily 2036-02-21"]);
}

#[test]
fn tags_and_holds_keep_and_a_hold_that_is_over_does_not() {
    let mut group = history(&["2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01"]);
    group[0].tags = vec!["gold".to_owned()];
    group[1].held_until = Some(at("2026-05-01"));
    group[2].held_until = Some(at("2026-04-02"));
    let policy = Policy { last: Some(1), tags: vec!["gold".to_owned()], ..Policy::default() };
    let told = told(&policy, &group, "2026-04-03");
    assert_eq!((told[0].as_str(), told[2].as_str(), told[3].as_str()), ("tag gold", "", "last 1"));
    assert!(told[1].starts_with("held until 2026-05-01"), "{told:?}");
}

#[test]
fn a_partial_backup_does_not_replace_a_whole_one() {
    let mut group = history(&["2026-11-18", "2026-11-19", "2026-11-20", "2026-11-20T03:00:00Z", "2026-11-21"]);
    group[3].partial = true;
    group[4].partial = true;
    let daily = Policy { daily: Some(2), ..Policy::default() };
    assert_eq!(told(&daily, &group, "2026-11-22"), ["", "", "daily 2026-11-20", "", "daily 2026-11-21"]);
    let last = Policy { last: Some(1), ..Policy::default() };
    assert_eq!(told(&last, &group, "2026-11-22"), ["", "", "newest complete one", "", "last 1"]);
    group.iter_mut().for_each(|backup| backup.partial = true);
    assert_eq!(told(&last, &group, "2026-11-22"), ["", "", "", "", "last 1"]);
}

#[test]
fn dates_that_log_and_store_contradict_are_not_believed() {
    let mut group = history(&[
        "2026-11-01",
        "2016-11-02",
        "2026-11-03",
        "2027-11-04",
        "2026-11-05",
        "2026-11-06",
        "2036-11-07",
        "2026-11-08",
    ]);
    group[3].committed = Some(at("2026-11-04"));
    group[4].committed = None;
    // Within the tolerance.
    group[5].committed = Some(later(group[5].started, -HOUR));
    let found = doubts(&group, at("2026-11-09"));
    let expected = [
        None,
        Some(Doubt::BeforeAnEarlierOne(at("2026-11-01"))),
        None,
        Some(Doubt::AfterItsEntry(at("2026-11-04"))),
        Some(Doubt::NoStoreTime),
        None,
        Some(Doubt::InTheFuture),
        None,
    ];
    assert_eq!(found, expected);
    let policy = Policy { last: Some(2), ..Policy::default() };
    let told = told(&policy, &group, "2026-11-09");
    assert_eq!([&told[0], &told[2], &told[5], &told[7]], ["", "", "last 2", "last 2"]);
    assert!(told[3].starts_with("its date is doubtful: later than its own commit at 2026-11-04"), "{told:?}");
    // Not spared: they go, unless the last in the log.
    let judged = judge(&policy, &group, &found, false, at("2026-11-09"));
    let stays: Vec<bool> = judged.iter().map(|reasons| !reasons.is_empty()).collect();
    assert_eq!(stays, [false, false, false, false, false, true, true, true]);
}

/// A clock that is behind, here or at the store, makes nothing older.
#[test]
fn an_early_now_forgets_less() {
    let group = history(&["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04"]);
    let policy = Policy { last: Some(1), ..Policy::default() };
    let told = told(&policy, &group, "2026-11-02T03:00:00Z");
    let doubtful = "its date is doubtful: in the future";
    assert_eq!(told, ["", "last 1", doubtful, doubtful]);
}

#[test]
fn what_a_replication_brings_is_taken_by_date() {
    let mut group = history(&["2026-11-03", "2026-11-01", "2026-11-02", "2026-11-04", "2026-10-20"]);
    for backup in &mut group[..3] {
        backup.session = SessionId::from_bytes([7; 8]);
    }
    group.iter_mut().for_each(|backup| backup.committed = Some(at("2026-12-01")));
    let group = in_order(group);
    let order: Vec<u64> = group.iter().map(|backup| backup.entry).collect();
    assert_eq!(order, [2, 3, 1, 4, 5]);
    let found = doubts(&group, at("2026-12-02"));
    assert!(found[..4].iter().all(Option::is_none), "{found:?}");
    assert_eq!(found[4], Some(Doubt::BeforeAnEarlierOne(at("2026-11-04"))), "a later session's older backup");
}

/// A state with these backups, of one lineage, or of each its own.
fn state_of(backups: impl IntoIterator<Item = (Candidate, &'static str)>) -> LogState {
    let mut state = LogState::default();
    for (backup, lineage) in backups {
        let mut lineage_id = [0; 16];
        lineage_id[..lineage.len()].copy_from_slice(lineage.as_bytes());
        let summary = BackupSummary {
            lineage: LineageId::from_bytes(lineage_id),
            lineage_name: lineage.to_owned(),
            started: backup.started,
            finished: backup.started,
            partial: backup.partial,
            totals: Totals::default(),
            read_bytes: 0,
            new_bytes: 0,
            stored_bytes: 0,
            source_kind: "directory".to_owned(),
            source_location: "/data".to_owned(),
            host: "host".to_owned(),
            tags: backup.tags.clone(),
        };
        let manifest = ObjectName { kind: ObjectKind::Manifest, hash: backup.id, session: backup.session };
        let (entry, held_until) = (backup.entry, backup.held_until);
        state.head = state.head.max(entry);
        state.backups.insert(backup.id, BackupState { manifest, entry, forgotten: None, held_until, summary });
    }
    state
}

fn kept_of(state: &LogState, policy: &ForgetPolicy, now: &str) -> Vec<u64> {
    let committed = |entry| state.listed().iter().find(|one| one.entry == entry).map(|one| one.summary.started);
    let decided = decide::by_policy(state, policy, committed, at(now)).unwrap();
    decided.decisions.iter().filter(|decision| !decision.forget).map(|decision| decision.entry).collect()
}

#[test]
fn each_lineage_is_judged_by_itself_and_tags_make_groups_if_asked() {
    let mut group = history(&["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04"]);
    group[1].tags = vec!["a".to_owned(), "b".to_owned()];
    group[2].tags = vec!["b".to_owned(), "a".to_owned()];
    let state = state_of(group.into_iter().zip(["shop", "shop", "shop", "web"]));
    let last = Policy { last: Some(1), ..Policy::default() };
    let mut policy = ForgetPolicy { keep: last, ..ForgetPolicy::default() };
    assert_eq!(kept_of(&state, &policy, "2026-11-05"), [3, 4]);
    policy.group_by = GroupBy::LineageAndTags;
    assert_eq!(kept_of(&state, &policy, "2026-11-05"), [1, 3, 4]);
    policy.lineages = vec!["shop".to_owned()];
    policy.tags = vec!["x".to_owned(), "a".to_owned()];
    let committed = |_| Some(at("2026-12-01"));
    let decided = decide::by_policy(&state, &policy, committed, at("2026-11-05")).unwrap();
    let looked_at: Vec<u64> = decided.decisions.iter().map(|decision| decision.entry).collect();
    assert_eq!(looked_at, [2, 3], "what the rules are not about is not looked at");
    policy.lineages = vec!["typo".to_owned()];
    let decided = decide::by_policy(&state, &policy, committed, at("2026-11-05")).unwrap();
    assert!(decided.decisions.is_empty() && decided.remarks[0].contains("typo"), "{decided:?}");
}

#[test]
fn a_group_is_not_emptied_unless_that_is_said() {
    let state = state_of(history(&["2026-11-01", "2026-11-02"]).into_iter().zip(["shop", "shop"]));
    let keep = Policy { tags: vec!["gold".to_owned()], ..Policy::default() };
    let mut policy = ForgetPolicy { keep, lineages: vec!["shop".to_owned()], ..ForgetPolicy::default() };
    let committed = |_| Some(at("2026-12-01"));
    let error = decide::by_policy(&state, &policy, committed, at("2026-11-05")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("none of the 2 backups") && error.message().contains("--keep-none"), "{error}");
    policy.keep_none = true;
    assert!(kept_of(&state, &policy, "2026-11-05").is_empty());
    for (lineages, keep) in [(vec![], Policy::default()), (vec![], policy.keep.clone())] {
        let wrong = ForgetPolicy { lineages, keep, keep_none: true, ..ForgetPolicy::default() };
        assert!(wrong.validate().unwrap_err().message().contains("--lineage"));
    }
    assert!(ForgetPolicy::default().validate().is_err(), "no rule at all");
    let zero = Policy { daily: Some(0), ..Policy::default() };
    assert!(ForgetPolicy { keep: zero, ..ForgetPolicy::default() }.validate().is_err());
}

#[test]
fn thirty_years_of_nights_are_decided_at_once() {
    let first = at("1996-11-01");
    let nights = (1..=11_000).map(|n| made(n, later(first, i64::try_from(n).unwrap() * DAY)));
    let state = state_of(nights.map(|night| (night, "shop")));
    let keep = Policy { daily: Some(14), monthly: Some(24), yearly: Some(50), ..Policy::default() };
    let policy = ForgetPolicy { keep, ..ForgetPolicy::default() };
    let begun = std::time::Instant::now();
    let decided = decide::by_policy(&state, &policy, |_| Some(at("2030-01-01")), at("2030-01-01")).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // 14 days; 23 months before the one these are in; 31 years, two of which a month stands for.
    let kept = decided.decisions.iter().filter(|decision| !decision.forget).count();
    assert_eq!(kept, 14 + 23 + 29, "of {}", decided.decisions.len());
}

/// What happened in one night, or between two.
#[derive(Clone, Debug)]
enum Event {
    /// An honest backup, so long after the one before.
    Night { gap: i64, partial: bool, tagged: bool },
    /// The same with a clock that is wrong by so much; perhaps the store's is the same clock.
    WrongClock { gap: i64, wrong_by: i64, store_too: bool },
    /// A client that may add backups adds one from the future, or from before the history.
    Hostile { dated: i64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let gap = || (1_i64..400).prop_map(|hours| hours * HOUR / 2);
    let off = (12 * YEAR / 10..10 * YEAR).prop_flat_map(|by| prop_oneof![Just(by), Just(-by)]);
    let event = prop_oneof![
        6 => (gap(), any::<bool>(), any::<bool>())
            .prop_map(|(gap, a, b)| Event::Night { gap, partial: a && b, tagged: a && !b }),
        1 => (gap(), off, any::<bool>()).prop_map(|(gap, wrong_by, store_too)| Event::WrongClock { gap, wrong_by, store_too }),
        2 => prop_oneof![2 * HOUR..10 * YEAR, -10 * YEAR..-12 * YEAR / 10].prop_map(|dated| Event::Hostile { dated }),
    ];
    prop::collection::vec(event, 1..50)
}

fn policies() -> impl Strategy<Value = Policy> {
    let count = || prop::option::of(1_u32..8);
    let within = prop::option::of((1_u16..60).prop_map(Span::days));
    (count(), count(), count(), count(), count(), count(), within, any::<bool>()).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, within, tagged)| {
            let tags = if tagged { vec!["gold".to_owned()] } else { Vec::new() };
            Policy { last, hourly, daily, weekly, monthly, yearly, within, tags }
        },
    )
}

/// All that happened, in the order of the log; which of it is honest and dated right; and the time at the end.
fn played(events: &[Event]) -> (Vec<Candidate>, BTreeSet<ObjectHash>, Timestamp) {
    let mut now = at("2020-03-01");
    let (mut all, mut good) = (Vec::new(), BTreeSet::new());
    for (n, event) in (1..).zip(events) {
        let backup = match event {
            Event::Night { gap, partial, tagged } => {
                now = later(now, *gap);
                let tags = if *tagged { vec!["gold".to_owned()] } else { Vec::new() };
                good.insert(id(n));
                Candidate { partial: *partial, tags, ..made(n, now) }
            }
            Event::WrongClock { gap, wrong_by, store_too } => {
                now = later(now, *gap);
                let dated = made(n, later(now, *wrong_by));
                let committed = if *store_too { dated.committed } else { made(n, now).committed };
                Candidate { committed, ..dated }
            }
            Event::Hostile { dated } => Candidate { committed: Some(now), ..made(n, later(now, *dated)) },
        };
        all.push(backup);
    }
    (all, good, later(now, HOUR))
}

fn kept(policy: &Policy, history: Vec<Candidate>, now: Timestamp) -> BTreeSet<ObjectHash> {
    let group = in_order(history);
    let reasons = judge(policy, &group, &doubts(&group, now), true, now);
    group.iter().zip(reasons).filter(|(_, reasons)| !reasons.is_empty()).map(|(backup, _)| backup.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn wrong_clocks_and_hostile_clients_push_nothing_good_out(events in events(), policy in policies()) {
        let (all, good, now) = played(&events);
        let alone: Vec<Candidate> = all.iter().filter(|backup| good.contains(&backup.id)).cloned().collect();
        let without = kept(&policy, alone, now);
        let with = kept(&policy, all, now);
        prop_assert!(without.is_subset(&with), "lost {:?}", without.difference(&with).collect::<Vec<_>>());
    }

    /// A copy of a repository has later times at the store; honest backups are judged as before.
    #[test]
    fn a_copied_repository_keeps_as_much(events in events(), policy in policies()) {
        let (mut all, good, now) = played(&events);
        all.retain(|backup| good.contains(&backup.id));
        let without = kept(&policy, all.clone(), now);
        all.iter_mut().for_each(|backup| backup.committed = Some(later(now, YEAR)));
        prop_assert_eq!(without, kept(&policy, all, later(now, YEAR)));
    }

    /// The clock that forgets is the earlier of two: being early keeps more, never less.
    #[test]
    fn forgetting_by_an_early_clock_keeps_more(events in events(), policy in policies(), early in 0..10 * YEAR) {
        let (all, good, now) = played(&events);
        let right = kept(&policy, all.clone(), now);
        let by_early = kept(&policy, all, later(now, -early));
        let lost: Vec<_> = right.difference(&by_early).filter(|id| good.contains(id)).collect();
        prop_assert!(lost.is_empty(), "lost {:?}", lost);
    }

    /// Rules forget something at all, and the newest honest backup is always among what they keep.
    #[test]
    fn the_newest_stays_under_every_rule_that_counts(events in events(), mut policy in policies()) {
        let (all, good, now) = played(&events);
        policy.last.get_or_insert(1);
        let newest = all.iter().rev().find(|backup| good.contains(&backup.id)).map(|backup| backup.id);
        let kept = kept(&policy, all, now);
        prop_assert!(newest.is_none_or(|newest| kept.contains(&newest)));
    }
}
