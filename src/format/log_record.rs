//! Log records: everything that can be said in the log. Page: docs/format/log.md.
//!
//! All kinds of the format are here, including those whose commands come later: a reader folds what any release of this format writes.

use super::bytes::{Fields, Put};
use super::manifest::Totals;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{EntryHash, LineageId, ObjectHash, ObjectKind, ObjectName, RepositoryId, SessionId};

/// Why a session was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Purpose {
    /// Stores a backup.
    Backup,
    /// Reads one, and wants its packs to stay.
    Restore,
    /// Frees space.
    Prune,
    /// Fills this repository from another, or another from this one.
    Replicate,
    /// Heals.
    Repair,
    /// Reads and verifies what is stored.
    Scrub,
    /// Something that a later release does.
    Other(u8),
}

impl Purpose {
    fn code(self) -> u8 {
        match self {
            Self::Backup => 1,
            Self::Restore => 2,
            Self::Prune => 3,
            Self::Replicate => 4,
            Self::Repair => 5,
            Self::Scrub => 6,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Backup,
            2 => Self::Restore,
            3 => Self::Prune,
            4 => Self::Replicate,
            5 => Self::Repair,
            6 => Self::Scrub,
            other => Self::Other(other),
        }
    }
}

/// Who a session is, so that another process of the same host can tell that it is gone.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct SessionInfo {
    /// Its name.
    pub session: SessionId,
    /// Why it was opened.
    pub purpose: Purpose,
    /// The lineage whose lock it is; zero if none.
    pub lineage: LineageId,
    /// The host's name, for people.
    pub host: String,
    /// The kernel's boot id: empty if unknown.
    pub boot_id: String,
    /// The process id namespace; 0 if unknown.
    pub pid_namespace: u64,
    /// The process.
    pub pid: u32,
    /// When the process started, in the kernel's ticks since boot: a pid alone comes back.
    pub pid_started: u64,
}

/// What `list` prints of a backup, so that listing needs only the log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BackupSummary {
    /// Whose backup.
    pub lineage: LineageId,
    /// The lineage's name.
    pub lineage_name: String,
    /// When reading began.
    pub started: Timestamp,
    /// When it was complete.
    pub finished: Timestamp,
    /// Some files are missing.
    pub partial: bool,
    /// What it holds.
    pub totals: Totals,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Plain bytes of chunks that were new.
    pub new_bytes: u64,
    /// Bytes that were stored for it.
    pub stored_bytes: u64,
    /// `directory`, `bucket`, ….
    pub source_kind: String,
    /// Where from.
    pub source_location: String,
    /// The host that ran it.
    pub host: String,
    /// The user's tags.
    pub tags: Vec<String>,
}

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A session begins, before its first read of what exists.
    SessionOpened(SessionInfo),
    /// A long session is alive.
    SessionRefreshed,
    /// These packs are live, though no backup names them yet.
    FragmentsPublished {
        /// The fragments, in the order in which they count.
        fragments: Vec<ObjectName>,
    },
    /// A backup exists from here on.
    BackupCommitted {
        /// Its root object; the hash is the backup's id.
        manifest: ObjectName,
        /// The fragments that come into force with it.
        fragments: Vec<ObjectName>,
        /// What `list` prints.
        summary: BackupSummary,
    },
    /// Gone from the list; frees nothing.
    BackupsForgotten {
        /// Their ids.
        backups: Vec<ObjectHash>,
        /// For people.
        reason: String,
    },
    /// Back in the list.
    BackupsUnforgotten {
        /// Their ids.
        backups: Vec<ObjectHash>,
    },
    /// Readers and writers stop using these.
    ObjectsRetired {
        /// Packs and manifests.
        objects: Vec<ObjectName>,
        /// Fragments that no longer count.
        superseded: Vec<ObjectName>,
        /// Fragments that count instead, in the place of the first superseded one.
        added: Vec<ObjectName>,
    },
    /// What that entry retired is gone from the store.
    ObjectsDeleted {
        /// Its number.
        entry: u64,
    },
    /// Damaged packs: locations in them do not count.
    PacksQuarantined {
        /// Which.
        packs: Vec<ObjectName>,
        /// What is wrong.
        why: String,
    },
    /// The session is over.
    SessionClosed {
        /// Which.
        session: SessionId,
    },
    /// The session is declared dead: whatever it appends later has no effect.
    SessionFenced {
        /// Which.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// Cannot be forgotten until then.
    Held {
        /// Which backup.
        backup: ObjectHash,
        /// Until when.
        until: Timestamp,
    },
    /// Can be forgotten again.
    Released {
        /// Which backup.
        backup: ObjectHash,
    },
    /// The state folded up to an entry is kept in an object.
    StateCheckpointed {
        /// Folded up to and including this entry.
        number: u64,
        /// BLAKE3 of the object.
        hash: ObjectHash,
    },
    /// A setting changed; the fold wins over `config`.
    ConfigChanged {
        /// Which.
        key: String,
        /// To what.
        value: String,
    },
    /// A replica holds everything that was chosen, up to an entry of its origin.
    ReplicaSynced {
        /// The other repository.
        from: RepositoryId,
        /// Its head then.
        head: u64,
        /// The hash of that entry.
        head_hash: EntryHash,
    },
    /// For people.
    Note {
        /// The text.
        text: String,
    },
    /// A kind of a later release.
    Unknown {
        /// Its code.
        code: u16,
        /// Whoever does not know it must not write.
        mandatory: bool,
        /// Its bytes.
        body: Vec<u8>,
    },
}

const MANDATORY: u16 = 1;

impl Record {
    fn code(&self) -> u16 {
        match self {
            Self::SessionOpened(_) => 1,
            Self::SessionRefreshed => 2,
            Self::FragmentsPublished { .. } => 3,
            Self::BackupCommitted { .. } => 4,
            Self::BackupsForgotten { .. } => 5,
            Self::BackupsUnforgotten { .. } => 6,
            Self::ObjectsRetired { .. } => 7,
            Self::ObjectsDeleted { .. } => 8,
            Self::PacksQuarantined { .. } => 9,
            Self::SessionClosed { .. } => 10,
            Self::SessionFenced { .. } => 11,
            Self::Held { .. } => 12,
            Self::Released { .. } => 13,
            Self::StateCheckpointed { .. } => 14,
            Self::ConfigChanged { .. } => 15,
            Self::ReplicaSynced { .. } => 16,
            Self::Note { .. } => 17,
            Self::Unknown { code, .. } => *code,
        }
    }

    fn is_mandatory(&self) -> bool {
        match self {
            Self::Unknown { mandatory, .. } => *mandatory,
            Self::SessionRefreshed
            | Self::StateCheckpointed { .. }
            | Self::ReplicaSynced { .. }
            | Self::Note { .. } => false,
            _ => true,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        self.encode_body(&mut body);
        out.put_u16(self.code());
        out.put_u16(if self.is_mandatory() { MANDATORY } else { 0 });
        out.put_blob(&body);
    }

    fn encode_body(&self, body: &mut Vec<u8>) {
        match self {
            Self::SessionOpened(info) => put_session(body, info),
            Self::SessionRefreshed => {}
            Self::FragmentsPublished { fragments } => put_names(body, fragments),
            Self::BackupCommitted { manifest, fragments, summary } => {
                put_name(body, manifest);
                put_names(body, fragments);
                put_summary(body, summary);
            }
            Self::BackupsForgotten { backups, reason } => {
                put_hashes(body, backups);
                body.put_text(reason);
            }
            Self::BackupsUnforgotten { backups } => put_hashes(body, backups),
            Self::ObjectsRetired { objects, superseded, added } => {
                [objects, superseded, added].into_iter().for_each(|names| put_names(body, names));
            }
            Self::ObjectsDeleted { entry } => body.put_u64(*entry),
            Self::PacksQuarantined { packs, why } => {
                put_names(body, packs);
                body.put_text(why);
            }
            Self::SessionClosed { session } => body.put(session.as_bytes()),
            Self::SessionFenced { session, why } => {
                body.put(session.as_bytes());
                body.put_text(why);
            }
            Self::Held { backup, until } => {
                body.put(backup.as_bytes());
                body.put_i64(until.as_nanos());
            }
            Self::Released { backup } => body.put(backup.as_bytes()),
            Self::StateCheckpointed { number, hash } => {
                body.put_u64(*number);
                body.put(hash.as_bytes());
            }
            Self::ConfigChanged { key, value } => {
                body.put_text(key);
                body.put_text(value);
            }
            Self::ReplicaSynced { from, head, head_hash } => {
                body.put(from.as_bytes());
                body.put_u64(*head);
                body.put(head_hash.as_bytes());
            }
            Self::Note { text } => body.put_text(text),
            Self::Unknown { body: bytes, .. } => body.put(bytes),
        }
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self> {
        let code = fields.u16("record kind")?;
        let flags = fields.u16("record flags")?;
        let body = fields.blob("record body")?;
        // Bytes behind the known ones are a later release's, and optional by definition.
        Self::decode_body(code, flags & MANDATORY != 0, body)
            .map_err(|error| error.context(format!("record of kind {code}")))
    }

    fn decode_body(code: u16, mandatory: bool, body: &[u8]) -> Result<Self> {
        let fields = &mut Fields::new(body);
        Ok(match code {
            1 => Self::SessionOpened(take_session(fields)?),
            2 => Self::SessionRefreshed,
            3 => Self::FragmentsPublished { fragments: take_names(fields)? },
            4 => Self::BackupCommitted {
                manifest: take_name(fields)?,
                fragments: take_names(fields)?,
                summary: take_summary(fields)?,
            },
            5 => Self::BackupsForgotten { backups: take_hashes(fields)?, reason: fields.text("reason")? },
            6 => Self::BackupsUnforgotten { backups: take_hashes(fields)? },
            7 => Self::ObjectsRetired {
                objects: take_names(fields)?,
                superseded: take_names(fields)?,
                added: take_names(fields)?,
            },
            8 => Self::ObjectsDeleted { entry: fields.u64("entry number")? },
            9 => Self::PacksQuarantined { packs: take_names(fields)?, why: fields.text("why")? },
            10 => Self::SessionClosed { session: SessionId::from_bytes(fields.array("session")?) },
            11 => Self::SessionFenced {
                session: SessionId::from_bytes(fields.array("session")?),
                why: fields.text("why")?,
            },
            12 => Self::Held {
                backup: ObjectHash::from_bytes(fields.array("backup")?),
                until: Timestamp::from_nanos(fields.i64("until")?),
            },
            13 => Self::Released { backup: ObjectHash::from_bytes(fields.array("backup")?) },
            14 => Self::StateCheckpointed {
                number: fields.u64("entry number")?,
                hash: ObjectHash::from_bytes(fields.array("state hash")?),
            },
            15 => Self::ConfigChanged { key: fields.text("key")?, value: fields.text("value")? },
            16 => Self::ReplicaSynced {
                from: RepositoryId::from_bytes(fields.array("repository")?),
                head: fields.u64("head")?,
                head_hash: EntryHash::from_bytes(fields.array("head hash")?),
            },
            17 => Self::Note { text: fields.text("text")? },
            code => Self::Unknown { code, mandatory, body: body.to_vec() },
        })
    }
}

const NAME_LEN: usize = 41;

pub(super) fn put_name(out: &mut Vec<u8>, name: &ObjectName) {
    out.put_u8(name.kind.code());
    out.put(name.hash.as_bytes());
    out.put(name.session.as_bytes());
}

pub(super) fn put_names(out: &mut Vec<u8>, names: &[ObjectName]) {
    out.put_count(names.len());
    names.iter().for_each(|name| put_name(out, name));
}

pub(super) fn take_name(fields: &mut Fields<'_>) -> Result<ObjectName> {
    let kind = ObjectKind::from_code(fields.u8("object kind")?);
    Ok(ObjectName {
        // The bytes were verified by a checksum, so another kind is not damage but a later release's.
        kind: kind.map_err(|error| Error::new(ErrorKind::Unsupported, error.message()))?,
        hash: ObjectHash::from_bytes(fields.array("object hash")?),
        session: SessionId::from_bytes(fields.array("object session")?),
    })
}

pub(super) fn take_names(fields: &mut Fields<'_>) -> Result<Vec<ObjectName>> {
    let count = fields.count("name count", NAME_LEN)?;
    (0..count).map(|_| take_name(fields)).collect()
}

fn put_hashes(out: &mut Vec<u8>, hashes: &[ObjectHash]) {
    out.put_count(hashes.len());
    hashes.iter().for_each(|hash| out.put(hash.as_bytes()));
}

fn take_hashes(fields: &mut Fields<'_>) -> Result<Vec<ObjectHash>> {
    let count = fields.count("hash count", 32)?;
    (0..count).map(|_| Ok(ObjectHash::from_bytes(fields.array("hash")?))).collect()
}

/// Ends the record or blob that it stands in: a later release adds fields behind it.
pub(super) fn put_session(out: &mut Vec<u8>, info: &SessionInfo) {
    out.put(info.session.as_bytes());
    out.put_u8(info.purpose.code());
    out.put(info.lineage.as_bytes());
    out.put_text(&info.host);
    out.put_text(&info.boot_id);
    out.put_u64(info.pid_namespace);
    out.put_u32(info.pid);
    out.put_u64(info.pid_started);
}

pub(super) fn take_session(fields: &mut Fields<'_>) -> Result<SessionInfo> {
    Ok(SessionInfo {
        session: SessionId::from_bytes(fields.array("session")?),
        purpose: Purpose::from_code(fields.u8("purpose")?),
        lineage: LineageId::from_bytes(fields.array("lineage")?),
        host: fields.text("host")?,
        boot_id: fields.text("boot id")?,
        pid_namespace: fields.u64("pid namespace")?,
        pid: fields.u32("pid")?,
        pid_started: fields.u64("process start")?,
    })
}

/// A blob, so that a later release can add to the summary and to what it stands in.
pub(super) fn put_summary(target: &mut Vec<u8>, summary: &BackupSummary) {
    let mut out = Vec::new();
    out.put(summary.lineage.as_bytes());
    out.put_i64(summary.started.as_nanos());
    out.put_i64(summary.finished.as_nanos());
    out.put_u32(u32::from(summary.partial));
    summary.totals.put(&mut out);
    for count in [summary.read_bytes, summary.new_bytes, summary.stored_bytes] {
        out.put_u64(count);
    }
    for text in [&summary.lineage_name, &summary.source_kind, &summary.source_location, &summary.host] {
        out.put_text(text);
    }
    out.put_count(summary.tags.len());
    summary.tags.iter().for_each(|tag| out.put_text(tag));
    target.put_blob(&out);
}

pub(super) fn take_summary(fields: &mut Fields<'_>) -> Result<BackupSummary> {
    let fields = &mut Fields::new(fields.blob("summary")?);
    let lineage = LineageId::from_bytes(fields.array("lineage")?);
    let started = Timestamp::from_nanos(fields.i64("started")?);
    let finished = Timestamp::from_nanos(fields.i64("finished")?);
    let flags = fields.u32("backup flags")?;
    let totals = Totals::take(fields)?;
    let read_bytes = fields.u64("bytes read")?;
    let new_bytes = fields.u64("bytes new")?;
    let stored_bytes = fields.u64("bytes stored")?;
    let lineage_name = fields.text("lineage name")?;
    let source_kind = fields.text("source kind")?;
    let source_location = fields.text("source location")?;
    let host = fields.text("host")?;
    let tags = fields.count("tag count", 4)?;
    let tags = (0..tags).map(|_| fields.text("tag")).collect::<Result<_>>()?;
    Ok(BackupSummary {
        lineage,
        lineage_name,
        started,
        finished,
        partial: flags & 1 != 0,
        totals,
        read_bytes,
        new_bytes,
        stored_bytes,
        source_kind,
        source_location,
        host,
        tags,
    })
}
