use super::super::log_entry::LogEntry;
use super::super::log_record::{BackupSummary, Purpose, Record, SessionInfo};
use super::super::manifest::Totals;
use super::super::testing::{
    assert_bytes, documented_bytes, every_flip_is_refused, every_truncation_is_corrupt, fix_checksum, set_u32,
};
use super::golden::{LOG_COMMIT, LOG_ENTRY};
use super::{SESSION, assert_corrupt, assert_unsupported, name, session_info, summary};
use crate::clock::Timestamp;
use crate::id::{EntryHash, LineageId, ObjectHash, ObjectKind, ObjectName, RepositoryId, SessionId, Token};
use proptest::prelude::*;

const HEADER: usize = 80;

fn entry(records: Vec<Record>) -> LogEntry {
    LogEntry {
        number: 7,
        previous: EntryHash::from_bytes([0x6e; 32]),
        token: Token::from_bytes([0x70; 16]),
        session: SESSION,
        time: Timestamp::from_nanos(5),
        tool: "everpack 0.1.0".into(),
        records,
    }
}

/// One of each kind, an optional and a mandatory one of a later release among them.
fn every_record() -> Vec<Record> {
    let hash = |byte| ObjectHash::from_bytes([byte; 32]);
    vec![
        Record::SessionOpened(session_info()),
        Record::SessionRefreshed,
        Record::FragmentsPublished { fragments: vec![name(ObjectKind::Fragment, 0xc1)] },
        Record::BackupsForgotten { backups: vec![hash(0x91)], reason: "old".into() },
        Record::BackupsUnforgotten { backups: vec![hash(0x91)] },
        Record::ObjectsRetired {
            objects: vec![name(ObjectKind::DataPack, 0xd1)],
            superseded: vec![name(ObjectKind::Fragment, 0xc1)],
            added: vec![name(ObjectKind::Fragment, 0xc2)],
        },
        Record::ObjectsDeleted { entry: 6 },
        Record::PacksQuarantined { packs: vec![name(ObjectKind::MetaPack, 0xe1)], why: "bad".into() },
        Record::SessionClosed { session: SESSION },
        Record::SessionFenced { session: SESSION, why: "gone".into() },
        Record::Held { backup: hash(0x91), until: Timestamp::from_nanos(9) },
        Record::Released { backup: hash(0x91) },
        Record::StateCheckpointed { number: 6, hash: hash(0x5a) },
        Record::ConfigChanged { key: "level".into(), value: "3".into() },
        Record::ReplicaSynced {
            from: RepositoryId::from_bytes([0x11; 16]),
            head: 4,
            head_hash: EntryHash::from_bytes([0x6d; 32]),
        },
        Record::Note { text: "hi".into() },
        Record::Unknown { code: 99, mandatory: false, body: b"later".to_vec() },
        Record::Unknown { code: 100, mandatory: true, body: Vec::new() },
    ]
}

fn commit() -> Vec<Record> {
    vec![Record::BackupCommitted {
        manifest: name(ObjectKind::Manifest, 0x91),
        fragments: vec![name(ObjectKind::Fragment, 0xc1)],
        summary: summary(),
    }]
}

fn refix(stored: &mut [u8]) {
    let end = stored.len();
    set_u32(stored, 68, end - HEADER);
    fix_checksum(stored, HEADER..end, 72);
    fix_checksum(stored, 0..76, 76);
}

/// The offsets of all records of an entry.
fn record_offsets(stored: &[u8]) -> Vec<usize> {
    let u32_at = |at: usize| u32::from_le_bytes(stored[at..at + 4].try_into().unwrap()) as usize;
    let mut at = HEADER + 8 + 8 + 4 + u32_at(HEADER + 16);
    let count = u32_at(at);
    at += 4;
    let mut offsets = Vec::new();
    for _ in 0..count {
        offsets.push(at);
        at += 8 + u32_at(at + 4);
    }
    assert_eq!(at, stored.len());
    offsets
}

#[test]
fn stored_bytes_have_not_changed() {
    let page = include_str!("../../../docs/format/log.md");
    for (records, golden, block) in
        [(every_record(), &LOG_ENTRY[..], "log-entry"), (commit(), &LOG_COMMIT[..], "log-entry-commit")]
    {
        assert_bytes(&entry(records.clone()).encode(), golden, "encoded");
        assert_eq!(LogEntry::decode(golden).unwrap(), entry(records));
        assert_bytes(&documented_bytes(page, block), golden, "page");
    }
}

#[test]
fn damage_is_refused() {
    for golden in [&LOG_ENTRY[..], &LOG_COMMIT[..]] {
        every_truncation_is_corrupt(golden, LogEntry::decode);
        every_flip_is_refused(golden, LogEntry::decode);
        assert_corrupt(LogEntry::decode(&[golden, &[0]].concat()), "1 bytes too many");
    }
}

#[test]
fn records_that_are_cut_short_inside_are_corrupt() {
    // The record says that it is shorter than its fields are, and all checksums fit.
    for golden in [&LOG_ENTRY[..], &LOG_COMMIT[..]] {
        for at in record_offsets(golden) {
            let len = u32::from_le_bytes(golden[at + 4..at + 8].try_into().unwrap()) as usize;
            let code = golden[at];
            for short in 0..len {
                let mut stored = golden.to_vec();
                stored.drain(at + 8 + short..at + 8 + len);
                set_u32(&mut stored, at + 4, short);
                refix(&mut stored);
                match LogEntry::decode(&stored) {
                    Ok(_) => assert!(code > 17, "record of kind {code}, {short} of {len} bytes"),
                    Err(error) => assert_eq!(error.kind(), crate::error::ErrorKind::Corrupt, "{error}"),
                }
            }
        }
    }
}

#[test]
fn longer_records_and_entries_are_read_by_their_known_beginning() {
    for (golden, records) in [(&LOG_ENTRY[..], every_record()), (&LOG_COMMIT[..], commit())] {
        for at in record_offsets(golden) {
            if golden[at] > 17 {
                continue;
            }
            let len = u32::from_le_bytes(golden[at + 4..at + 8].try_into().unwrap()) as usize;
            let mut stored = golden.to_vec();
            stored.splice(at + 8 + len..at + 8 + len, *b"more");
            set_u32(&mut stored, at + 4, len + 4);
            refix(&mut stored);
            assert_eq!(LogEntry::decode(&stored).unwrap().records, records);
        }
        let mut stored = [golden, b"more behind the records"].concat();
        refix(&mut stored);
        assert_eq!(LogEntry::decode(&stored).unwrap(), entry(records));
    }
}

#[test]
fn a_longer_summary_is_read_by_its_known_beginning() {
    let mut stored = LOG_COMMIT.to_vec();
    let at = record_offsets(&stored)[0];
    let summary_at = at + 8 + 41 + 4 + 41;
    let record_len = stored.len() - at - 8;
    let summary_len = stored.len() - summary_at - 4;
    stored.extend_from_slice(b"more");
    set_u32(&mut stored, at + 4, record_len + 4);
    set_u32(&mut stored, summary_at, summary_len + 4);
    // And more in the record behind the summary: the two do not get into each other's way.
    stored.extend_from_slice(b"and more");
    set_u32(&mut stored, at + 4, record_len + 12);
    refix(&mut stored);
    assert_eq!(LogEntry::decode(&stored).unwrap().records, commit());
}

#[test]
fn what_is_sealed_newer_or_unknown_is_refused_by_name() {
    let mut stored = LOG_ENTRY;
    stored[10] = 1;
    assert_unsupported(LogEntry::decode(&stored), "\"encryption\"");
    stored[8] = 2;
    assert_unsupported(LogEntry::decode(&stored), "format version 2");
    // An object kind of a later release in a known record.
    let mut stored = LOG_COMMIT.to_vec();
    let at = record_offsets(&stored)[0];
    stored[at + 8] = 7;
    refix(&mut stored);
    assert_unsupported(LogEntry::decode(&stored), "object kind 7");
}

#[test]
fn what_cannot_be_is_refused() {
    assert_corrupt(LogEntry::decode(&LogEntry { number: 0, ..entry(vec![]) }.encode()), "begin at 1");
    let many = vec![Record::SessionRefreshed; 65_537];
    assert_corrupt(LogEntry::decode(&entry(many).encode()), "65537 records");
    // A hostile count of names.
    let mut stored = LOG_COMMIT.to_vec();
    let at = record_offsets(&stored)[0];
    set_u32(&mut stored, at + 8 + 41, u32::MAX as usize);
    refix(&mut stored);
    assert_corrupt(LogEntry::decode(&stored), "record of kind 4: name count: 4294967295");
}

#[test]
fn mandatory_bits_are_as_the_page_says() {
    let stored = entry(every_record()).encode();
    let commit = entry(commit()).encode();
    let mut mandatory = Vec::new();
    for (stored, at) in record_offsets(&stored)
        .into_iter()
        .map(|at| (&stored, at))
        .chain(record_offsets(&commit).into_iter().map(|at| (&commit, at)))
    {
        if stored[at + 2] == 1 {
            mandatory.push(stored[at]);
        }
    }
    mandatory.sort_unstable();
    assert_eq!(mandatory, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 100]);
}

fn any_name() -> impl Strategy<Value = ObjectName> {
    let kinds = [
        ObjectKind::DataPack,
        ObjectKind::MetaPack,
        ObjectKind::Fragment,
        ObjectKind::Manifest,
        ObjectKind::Parity,
        ObjectKind::Scrub,
    ];
    (0usize..6, any::<[u8; 32]>(), any::<[u8; 8]>()).prop_map(move |(kind, hash, session)| ObjectName {
        kind: kinds[kind],
        hash: ObjectHash::from_bytes(hash),
        session: SessionId::from_bytes(session),
    })
}

fn any_names() -> impl Strategy<Value = Vec<ObjectName>> {
    prop::collection::vec(any_name(), 0..4)
}

fn any_hashes() -> impl Strategy<Value = Vec<ObjectHash>> {
    prop::collection::vec(any::<[u8; 32]>().prop_map(ObjectHash::from_bytes), 0..4)
}

pub(super) fn any_info() -> impl Strategy<Value = SessionInfo> {
    let purpose = prop_oneof![
        Just(Purpose::Backup),
        Just(Purpose::Restore),
        Just(Purpose::Prune),
        Just(Purpose::Replicate),
        Just(Purpose::Repair),
        Just(Purpose::Scrub),
        Just(Purpose::Other(0)),
        (7u8..).prop_map(Purpose::Other),
    ];
    (purpose, any::<[u8; 8]>(), any::<[u8; 16]>(), any::<(String, String, u64, u32, u64)>()).prop_map(
        |(purpose, session, lineage, (host, boot_id, pid_namespace, pid, pid_started))| SessionInfo {
            session: SessionId::from_bytes(session),
            purpose,
            lineage: LineageId::from_bytes(lineage),
            host,
            boot_id,
            pid_namespace,
            pid,
            pid_started,
        },
    )
}

pub(super) fn any_summary() -> impl Strategy<Value = BackupSummary> {
    let texts = prop::collection::vec(any::<String>(), 4..8);
    (any::<[u8; 16]>(), any::<(i64, i64, bool)>(), any::<[u64; 7]>(), texts).prop_map(
        |(lineage, (started, finished, partial), counts, texts)| {
            let [files, directories, symlinks, bytes, read_bytes, new_bytes, stored_bytes] = counts;
            BackupSummary {
                lineage: LineageId::from_bytes(lineage),
                lineage_name: texts[0].clone(),
                started: Timestamp::from_nanos(started),
                finished: Timestamp::from_nanos(finished),
                partial,
                totals: Totals { files, directories, symlinks, bytes },
                read_bytes,
                new_bytes,
                stored_bytes,
                source_kind: texts[1].clone(),
                source_location: texts[2].clone(),
                host: texts[3].clone(),
                tags: texts[4..].to_vec(),
            }
        },
    )
}

fn any_record() -> impl Strategy<Value = Record> {
    let hash = || any::<[u8; 32]>().prop_map(ObjectHash::from_bytes);
    let session = || any::<[u8; 8]>().prop_map(SessionId::from_bytes);
    let text = any::<String>;
    prop_oneof![
        any_info().prop_map(Record::SessionOpened),
        Just(Record::SessionRefreshed),
        any_names().prop_map(|fragments| Record::FragmentsPublished { fragments }),
        (any_name(), any_names(), any_summary()).prop_map(|(manifest, fragments, summary)| Record::BackupCommitted {
            manifest,
            fragments,
            summary
        }),
        (any_hashes(), text()).prop_map(|(backups, reason)| Record::BackupsForgotten { backups, reason }),
        any_hashes().prop_map(|backups| Record::BackupsUnforgotten { backups }),
        (any_names(), any_names(), any_names()).prop_map(|(objects, superseded, added)| Record::ObjectsRetired {
            objects,
            superseded,
            added
        }),
        any::<u64>().prop_map(|entry| Record::ObjectsDeleted { entry }),
        (any_names(), text()).prop_map(|(packs, why)| Record::PacksQuarantined { packs, why }),
        session().prop_map(|session| Record::SessionClosed { session }),
        (session(), text()).prop_map(|(session, why)| Record::SessionFenced { session, why }),
        (hash(), any::<i64>()).prop_map(|(backup, until)| Record::Held { backup, until: Timestamp::from_nanos(until) }),
        hash().prop_map(|backup| Record::Released { backup }),
        (any::<u64>(), hash()).prop_map(|(number, hash)| Record::StateCheckpointed { number, hash }),
        (text(), text()).prop_map(|(key, value)| Record::ConfigChanged { key, value }),
        (any::<[u8; 16]>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(from, head, head_hash)| {
            Record::ReplicaSynced {
                from: RepositoryId::from_bytes(from),
                head,
                head_hash: EntryHash::from_bytes(head_hash),
            }
        }),
        text().prop_map(|text| Record::Note { text }),
        (18u16.., any::<bool>(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(code, mandatory, body)| Record::Unknown { code, mandatory, body }),
    ]
}

proptest! {
    #[test]
    fn any_entry_comes_back(number in 1u64.., time: i64, tool: String, records in prop::collection::vec(any_record(), 0..6)) {
        let entry = LogEntry { number, time: Timestamp::from_nanos(time), tool, ..entry(records) };
        prop_assert_eq!(LogEntry::decode(&entry.encode()).unwrap(), entry);
    }

    #[test]
    fn any_body_is_survived(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut stored = [&LOG_ENTRY[..HEADER], &body[..]].concat();
        refix(&mut stored);
        std::hint::black_box(LogEntry::decode(&stored).is_ok());
    }
}
