use std::collections::{BTreeMap, BTreeSet};

use super::super::log_state::{BackupState, LogState, SessionState};
use super::super::testing::{
    assert_bytes, documented_bytes, every_flip_is_refused, every_truncation_is_corrupt, fix_checksum, set_u32,
};
use super::golden::LOG_STATE;
use super::log_entry::{any_info, any_summary};
use super::{SESSION, assert_corrupt, assert_unsupported, name, session_info, summary};
use crate::clock::Timestamp;
use crate::id::{EntryHash, ObjectHash, ObjectKind, RepositoryId, SessionId};
use proptest::prelude::*;

const HEADER: usize = 24;
/// Where the first session begins: rules 4, head 8, head hash 32, session count 4.
const FIRST_SESSION: usize = HEADER + 48;

fn sample() -> LogState {
    let open = SessionState { opened: 60, last_seen: 63, over: None, fenced: false, info: Some(session_info()) };
    let fenced = SessionState { opened: 2, last_seen: 4, over: Some(5), fenced: true, info: None };
    let manifest = name(ObjectKind::Manifest, 0x91);
    LogState {
        head: 64,
        head_hash: Some(EntryHash::from_bytes([0x6e; 32])),
        sessions: BTreeMap::from([(SessionId::from_bytes([0x50; 8]), fenced), (SESSION, open)]),
        backups: BTreeMap::from([(
            manifest.hash,
            BackupState {
                manifest,
                entry: 40,
                forgotten: Some(50),
                held_until: Some(Timestamp::from_nanos(9)),
                summary: summary(),
            },
        )]),
        fragments: vec![(40, name(ObjectKind::Fragment, 0xc2)), (63, name(ObjectKind::Fragment, 0xc1))],
        retired: BTreeMap::from([(name(ObjectKind::DataPack, 0xd1), 62)]),
        quarantined: BTreeMap::from([(name(ObjectKind::MetaPack, 0xe1), "bad".to_owned())]),
        settings: BTreeMap::from([("level".to_owned(), "3".to_owned())]),
        replicas: BTreeMap::from([(RepositoryId::from_bytes([0x11; 16]), (4, EntryHash::from_bytes([0x6d; 32])))]),
        unknown_mandatory: BTreeSet::from([100]),
        purged: BTreeSet::from([ObjectHash::from_bytes([0x92; 32])]),
        checkpoint: None,
    }
}

fn refix(stored: &mut [u8]) {
    let end = stored.len();
    set_u32(stored, 12, end - HEADER);
    fix_checksum(stored, HEADER..end, 16);
    fix_checksum(stored, 0..20, 20);
}

fn u32_at(stored: &[u8], at: usize) -> usize {
    u32::from_le_bytes(stored[at..at + 4].try_into().unwrap()) as usize
}

#[test]
fn stored_bytes_have_not_changed() {
    assert_bytes(&sample().encode(), &LOG_STATE, "encoded");
    assert_eq!(LogState::decode(&LOG_STATE).unwrap(), sample());
    let page = include_str!("../../../docs/format/log-state.md");
    assert_bytes(&documented_bytes(page, "log-state"), &LOG_STATE, "page");
}

#[test]
fn damage_is_refused() {
    every_truncation_is_corrupt(&LOG_STATE, LogState::decode);
    every_flip_is_refused(&LOG_STATE, LogState::decode);
    assert_corrupt(LogState::decode(&[&LOG_STATE[..], &[0]].concat()), "1 bytes too many");
}

#[test]
fn a_longer_body_is_read_by_its_known_beginning() {
    let mut stored = [&LOG_STATE[..], b"more"].concat();
    refix(&mut stored);
    assert_eq!(LogState::decode(&stored).unwrap(), sample());
}

#[test]
fn longer_sessions_and_backups_are_read_by_their_known_beginning() {
    let grow = |stored: &mut Vec<u8>, blob: usize| {
        let len = u32_at(stored, blob);
        stored.splice(blob + 4 + len..blob + 4 + len, *b"more");
        set_u32(stored, blob, len + 4);
    };
    let mut stored = LOG_STATE.to_vec();
    grow(&mut stored, FIRST_SESSION);
    // The second session, and the info in it.
    let second = FIRST_SESSION + 4 + u32_at(&stored, FIRST_SESSION);
    grow(&mut stored, second + 4 + 33);
    let grown = u32_at(&stored, second) + 4;
    set_u32(&mut stored, second, grown);
    grow(&mut stored, second);
    // The backup, and the summary in it.
    let backup = second + 4 + u32_at(&stored, second) + 4;
    grow(&mut stored, backup + 4 + 66);
    let grown = u32_at(&stored, backup) + 4;
    set_u32(&mut stored, backup, grown);
    grow(&mut stored, backup);
    assert_eq!(stored.len(), LOG_STATE.len() + 20);
    refix(&mut stored);
    assert_eq!(LogState::decode(&stored).unwrap(), sample());
}

#[test]
fn what_is_sealed_or_newer_is_refused_by_name() {
    let mut stored = LOG_STATE;
    stored[10] = 1;
    assert_unsupported(LogState::decode(&stored), "\"encryption\"");
    stored[8] = 2;
    assert_unsupported(LogState::decode(&stored), "format version 2");
}

#[test]
fn newer_rules_are_read_and_none_are_refused() {
    let mut stored = LOG_STATE.to_vec();
    set_u32(&mut stored, HEADER, 2);
    refix(&mut stored);
    assert_eq!(LogState::decode(&stored).unwrap(), sample());
    set_u32(&mut stored, HEADER, 0);
    refix(&mut stored);
    assert_corrupt(LogState::decode(&stored), "by no rules");
}

#[test]
fn a_key_stands_once_and_in_order() {
    let mut stored = LOG_STATE.to_vec();
    // The first session is given the second's name.
    stored[FIRST_SESSION + 4..FIRST_SESSION + 12].copy_from_slice(SESSION.as_bytes());
    refix(&mut stored);
    assert_corrupt(LogState::decode(&stored), "sessions are not sorted");

    // The last list is that of purged backups: one of 32 bytes. It is given twice.
    let mut stored = LOG_STATE.to_vec();
    let last = stored.len() - 32;
    stored.extend_from_within(last..);
    set_u32(&mut stored, last - 4, 2);
    refix(&mut stored);
    assert_corrupt(LogState::decode(&stored), "purged backups are not sorted");
}

#[test]
fn hostile_counts_allocate_nothing() {
    let mut stored = LOG_STATE.to_vec();
    set_u32(&mut stored, FIRST_SESSION - 4, u32::MAX as usize);
    refix(&mut stored);
    assert_corrupt(LogState::decode(&stored), "session count: 4294967295");
}

#[test]
fn the_state_before_the_first_entry_comes_back() {
    let state = LogState { head_hash: Some(EntryHash::from_bytes([1; 32])), ..LogState::default() };
    assert_eq!(LogState::decode(&state.encode()).unwrap(), state);
    assert_eq!(LogState::decode(&LogState::default().encode()).unwrap(), LogState::default());
}

proptest! {
    #[test]
    fn any_state_comes_back(
        head: u64,
        sessions in prop::collection::btree_map(
            any::<[u8; 8]>(), (any::<(u64, u64, bool)>(), 0u64..9, prop::option::of(any_info())), 0..5),
        backups in prop::collection::btree_map(any::<u8>(), (any::<u64>(), 0u64..9, any::<Option<i64>>(), any_summary()), 0..4),
        names in prop::collection::vec((any::<u64>(), any::<u8>()), 0..6),
        settings in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        unknown_mandatory in prop::collection::btree_set(18u16.., 0..4),
        purged in prop::collection::btree_set(any::<[u8; 32]>(), 0..4),
    ) {
        let some = |number: u64| (number != 0).then_some(number);
        let state = LogState {
            head,
            sessions: sessions.into_iter().map(|(id, ((opened, last_seen, fenced), over, info))| {
                (SessionId::from_bytes(id), SessionState { opened, last_seen, over: some(over), fenced, info })
            }).collect(),
            backups: backups.into_iter().map(|(byte, (entry, forgotten, until, summary))| {
                let manifest = name(ObjectKind::Manifest, byte);
                let held_until = until.map(Timestamp::from_nanos);
                (manifest.hash, BackupState { manifest, entry, forgotten: some(forgotten), held_until, summary })
            }).collect(),
            fragments: names.iter().map(|(entry, byte)| (*entry, name(ObjectKind::Fragment, *byte))).collect(),
            retired: names.iter().map(|(entry, byte)| (name(ObjectKind::MetaPack, *byte), *entry)).collect(),
            quarantined: names.iter().map(|(entry, byte)| (name(ObjectKind::DataPack, *byte), entry.to_string())).collect(),
            settings,
            unknown_mandatory,
            purged: purged.into_iter().map(ObjectHash::from_bytes).collect(),
            ..sample()
        };
        prop_assert_eq!(LogState::decode(&state.encode()).unwrap(), state);
    }

    #[test]
    fn any_body_is_survived(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut stored = [&LOG_STATE[..HEADER], &body[..]].concat();
        refix(&mut stored);
        std::hint::black_box(LogState::decode(&stored).is_ok());
    }
}
