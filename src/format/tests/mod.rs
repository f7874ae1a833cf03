//! Tests of every stored object: golden bytes, damage, growth, refusals by name, round trips.
//!
//! The golden bytes are on people's disks. If one of them fails, the format changed.

mod config;
mod fragment;
mod golden;
mod log_entry;
mod log_state;
mod manifest;
mod pack;
mod scrub;
mod segment;

use super::log_record::{BackupSummary, Purpose, SessionInfo};
use super::manifest::Totals;
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::id::{LineageId, ObjectHash, ObjectKind, ObjectName, SessionId};

const SESSION: SessionId = SessionId::from_bytes([0x51; 8]);

fn name(kind: ObjectKind, byte: u8) -> ObjectName {
    ObjectName { kind, hash: ObjectHash::from_bytes([byte; 32]), session: SESSION }
}

fn session_info() -> SessionInfo {
    SessionInfo {
        session: SESSION,
        purpose: Purpose::Backup,
        lineage: LineageId::from_bytes([0x4c; 16]),
        host: "h1".into(),
        boot_id: "b".into(),
        pid_namespace: 9,
        pid: 77,
        pid_started: 1000,
    }
}

fn summary() -> BackupSummary {
    BackupSummary {
        lineage: LineageId::from_bytes([0x4c; 16]),
        lineage_name: "shop".into(),
        started: Timestamp::from_nanos(1),
        finished: Timestamp::from_nanos(2),
        partial: true,
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

/// It is refused as something that this release does not have, and by name.
fn assert_unsupported<T: std::fmt::Debug>(result: Result<T>, named: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains(named), "{error} does not name {named:?}");
}

fn assert_corrupt<T: std::fmt::Debug>(result: Result<T>, named: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains(named), "{error} does not say {named:?}");
}
