//! Logs out of bytes: every byte sequence is read as entries over a few names, so that records meet what others made.

use super::Choices;
use crate::clock::Timestamp;
use crate::codec::entry_hash;
use crate::format::log_entry::LogEntry;
use crate::format::log_record::{BackupSummary, Purpose, Record, SessionInfo};
use crate::format::log_state::LogState;
use crate::format::manifest::Totals;
use crate::id::{EntryHash, LineageId, ObjectHash, ObjectKind, ObjectName, RepositoryId, SessionId, Token};
use crate::log::NO_SESSION;

/// A log of many thousand entries is slow and finds no more.
const ENTRIES_MAX: usize = 64;

/// True if an entry may speak for the session that it opens.
pub(super) fn opens_its_session(entry: &LogEntry) -> bool {
    let own = |record: &Record| matches!(record, Record::SessionOpened(info) if info.session == entry.session);
    entry.records.iter().any(own)
}

/// A state comes back from its stored form, which is one.
pub(super) fn check_state(state: &LogState) {
    let stored = state.encode();
    let again = LogState::decode(&stored).expect("what was encoded decodes");
    assert_eq!(again, LogState { checkpoint: None, ..state.clone() }, "encoded and decoded");
    assert_eq!(again.encode(), stored);
    for backup in state.listed() {
        assert!(backup.forgotten.is_none(), "a forgotten backup is listed");
    }
    assert!(state.open_sessions().all(|(session, _)| state.is_open(session)));
}

/// Folds entries chosen by bytes into an empty state.
pub(super) fn fold(bytes: &[u8]) {
    go_on(&mut LogState::empty(entry_hash(b"config")), bytes);
}

/// A state at the last number there is takes no entry.
fn refuse_beyond_the_last(state: &LogState) {
    let Some(previous) = state.head_hash else { return };
    let token = Token::from_bytes([0; 16]);
    let (session, time) = (NO_SESSION, Timestamp::default());
    for number in [0, 1, u64::MAX] {
        let entry = LogEntry { number, previous, token, session, time, tool: String::new(), records: Vec::new() };
        let taken = state.clone().apply(&entry, EntryHash::from_bytes([9; 32])).is_ok();
        assert_eq!(taken, state.head.checked_add(1) == Some(number), "{number} behind {}", state.head);
    }
}

/// Folds entries chosen by bytes into a state, and into what a reader makes of its stored form halfway: both end alike.
pub(super) fn go_on(state: &mut LogState, bytes: &[u8]) {
    refuse_beyond_the_last(state);
    let mut choices = Choices(bytes);
    let half = usize::from(choices.byte()) % 8;
    let mut reloaded: Option<LogState> = None;
    for at in 0..ENTRIES_MAX {
        if choices.0.is_empty() {
            break;
        }
        if at == half {
            reloaded = Some(LogState::decode(&state.encode()).expect("a state is stored"));
        }
        let Some(entry) = next_entry(state, &mut choices) else { break };
        let hash = entry_hash(&entry.encode());
        let odd = state.apply(&entry, hash).expect("it follows");
        if let Some(other) = &mut reloaded {
            assert_eq!(other.apply(&entry, hash).expect("it follows"), odd, "found odd by both");
        }
        refuse_out_of_turn(state, &entry);
    }
    check_state(state);
    if let Some(other) = reloaded {
        let end = |state: &LogState| LogState { checkpoint: None, ..state.clone() };
        assert_eq!(end(&other), end(state), "folded from a stored state");
    }
}

/// The entries that `go_on` would fold, each stored, with the stored state behind it.
pub(super) fn stored_log(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut state = LogState::empty(entry_hash(b"config"));
    let mut choices = Choices(bytes);
    choices.byte();
    let mut stored = Vec::new();
    while !choices.0.is_empty() {
        let Some(entry) = next_entry(&state, &mut choices) else { break };
        let encoded = entry.encode();
        state.apply(&entry, entry_hash(&encoded)).expect("it follows");
        stored.push((encoded, state.encode()));
    }
    stored
}

/// The same entry again, and one from further on, change nothing.
fn refuse_out_of_turn(state: &mut LogState, entry: &LogEntry) {
    let before = state.clone();
    assert!(state.apply(entry, EntryHash::from_bytes([9; 32])).is_err(), "an entry was taken twice");
    let later = LogEntry { number: entry.number.saturating_add(2), ..entry.clone() };
    assert!(state.apply(&later, EntryHash::from_bytes([9; 32])).is_err(), "an entry was left out");
    assert_eq!(*state, before, "what was refused has no effect");
}

/// `None` if no entry can come behind this state.
fn next_entry(state: &LogState, choices: &mut Choices<'_>) -> Option<LogEntry> {
    let session = match choices.byte() % 4 {
        0 => NO_SESSION,
        byte => SessionId::from_bytes([byte; 8]),
    };
    let count = usize::from(choices.byte() % 5);
    let records = (0..count).map(|_| record(choices, session, state.head)).collect();
    Some(LogEntry {
        number: state.head.checked_add(1)?,
        previous: state.head_hash?,
        token: Token::from_bytes([choices.byte(); 16]),
        session,
        time: Timestamp::from_nanos(i64::from(choices.byte())),
        tool: "fuzz".into(),
        records,
    })
}

fn name(choices: &mut Choices<'_>) -> ObjectName {
    let kind = ObjectKind::from_code(1 + choices.byte() % 6).expect("1 to 6 are known");
    ObjectName { kind, hash: hash(choices), session: SessionId::from_bytes([choices.byte() % 3; 8]) }
}

fn hash(choices: &mut Choices<'_>) -> ObjectHash {
    ObjectHash::from_bytes([choices.byte() % 8; 32])
}

fn names(choices: &mut Choices<'_>) -> Vec<ObjectName> {
    (0..choices.byte() % 4).map(|_| name(choices)).collect()
}

fn text(choices: &mut Choices<'_>) -> String {
    let len = usize::from(choices.byte() % 4);
    String::from_utf8_lossy(choices.bytes(len)).into_owned()
}

fn record(choices: &mut Choices<'_>, own: SessionId, head: u64) -> Record {
    let session = |choices: &mut Choices<'_>| match choices.byte() % 4 {
        0 => own,
        byte => SessionId::from_bytes([byte; 8]),
    };
    let earlier = |choices: &mut Choices<'_>| head.saturating_sub(u64::from(choices.byte() % 8));
    match choices.byte() % 18 {
        1 => Record::SessionOpened(session_info(session(choices))),
        2 => Record::SessionRefreshed,
        3 => Record::FragmentsPublished { fragments: names(choices) },
        4 => {
            let manifest = ObjectName { kind: ObjectKind::Manifest, ..name(choices) };
            Record::BackupCommitted { manifest, fragments: names(choices), summary: summary(choices) }
        }
        5 => Record::BackupsForgotten { backups: vec![hash(choices), hash(choices)], reason: text(choices) },
        6 => Record::BackupsUnforgotten { backups: vec![hash(choices)] },
        7 => Record::ObjectsRetired { objects: names(choices), superseded: names(choices), added: names(choices) },
        8 => Record::ObjectsDeleted { entry: earlier(choices) },
        9 => Record::PacksQuarantined { packs: names(choices), why: text(choices) },
        10 => Record::SessionClosed { session: session(choices) },
        11 => Record::SessionFenced { session: session(choices), why: text(choices) },
        12 => Record::Held { backup: hash(choices), until: Timestamp::from_nanos(i64::from(choices.byte())) },
        13 => Record::Released { backup: hash(choices) },
        14 => Record::StateCheckpointed { number: earlier(choices), hash: hash(choices) },
        15 => Record::ConfigChanged { key: text(choices), value: text(choices) },
        16 => {
            let from = RepositoryId::from_bytes([choices.byte() % 3; 16]);
            let head_hash = EntryHash::from_bytes([choices.byte(); 32]);
            Record::ReplicaSynced { from, head: earlier(choices), head_hash }
        }
        17 => Record::Note { text: text(choices) },
        _ => {
            let code = 18 + u16::from(choices.byte());
            Record::Unknown { code, mandatory: choices.byte() % 2 == 1, body: vec![choices.byte(); 3] }
        }
    }
}

pub(super) fn session_info(session: SessionId) -> SessionInfo {
    SessionInfo {
        session,
        purpose: Purpose::Backup,
        lineage: LineageId::from_bytes([0x4c; 16]),
        host: "h1".into(),
        boot_id: "b".into(),
        pid_namespace: 9,
        pid: 77,
        pid_started: 1000,
    }
}

pub(super) fn summary(choices: &mut Choices<'_>) -> BackupSummary {
    BackupSummary {
        lineage: LineageId::from_bytes([0x4c; 16]),
        lineage_name: "shop".into(),
        started: Timestamp::from_nanos(i64::from(choices.byte())),
        finished: Timestamp::from_nanos(i64::from(choices.byte())),
        partial: choices.byte() % 2 == 1,
        totals: Totals { files: 1, directories: 2, symlinks: 3, bytes: 4 },
        read_bytes: 5,
        new_bytes: 6,
        stored_bytes: 7,
        source_kind: "directory".into(),
        source_location: "/d".into(),
        host: "h1".into(),
        tags: vec!["t".into()],
    }
}
