//! The log folded up to an entry, kept so that opening a repository of many years reads one object and a few entries. Page:
//! docs/format/log-state.md. Only a hint: it is believed if a later entry names its hash, and `check` folds from entry 1.

use std::collections::{BTreeMap, BTreeSet};

use super::bytes::{Fields, Put, check_sum, checksum, put_magic, seal, take_magic};
use super::log_record::{
    BackupSummary, SessionInfo, put_name, put_session, put_summary, take_name, take_session, take_summary,
};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{EntryHash, ObjectHash, ObjectName, RepositoryId, SessionId};

const MAGIC: [u8; 8] = *b"EVPKSTAT";
const VERSION: u16 = 1;
/// magic 8, version 2, flags 2, body length 4, body checksum 4, checksum 4.
const HEADER_LEN: usize = 24;
/// Which rules the state was folded by. A release that folds more than the writer did may fold again from further back.
const RULES: u32 = 1;

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionState {
    /// The entry that opened it.
    pub opened: u64,
    /// The newest entry that it wrote.
    pub last_seen: u64,
    /// The entry that closed or fenced it.
    pub over: Option<u64>,
    /// It was declared dead.
    pub fenced: bool,
    /// Who it is; dropped when it is over.
    pub info: Option<SessionInfo>,
}

/// A committed backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupState {
    /// Its root object.
    pub manifest: ObjectName,
    /// The entry that committed it.
    pub entry: u64,
    /// The entry that forgot it.
    pub forgotten: Option<u64>,
    /// Cannot be forgotten until then.
    pub held_until: Option<Timestamp>,
    /// What `list` prints.
    pub summary: BackupSummary,
}

/// What the log says, folded up to and including entry `head`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct LogState {
    /// The newest entry; 0 for none.
    pub head: u64,
    /// Its hash; that of `config` for none.
    pub head_hash: Option<EntryHash>,
    /// Every session that ever was.
    pub sessions: BTreeMap<SessionId, SessionState>,
    /// Every backup that was ever committed and whose manifest is still there, by commit.
    pub backups: BTreeMap<ObjectHash, BackupState>,
    /// Live fragments in log order (the order in which locations count), with the entry that published each.
    pub fragments: Vec<(u64, ObjectName)>,
    /// Retired objects that are not yet known to be deleted, with the entry that retired them.
    pub retired: BTreeMap<ObjectName, u64>,
    /// Damaged packs.
    pub quarantined: BTreeMap<ObjectName, String>,
    /// Changed settings.
    pub settings: BTreeMap<String, String>,
    /// The newest synchronisation with each other repository.
    pub replicas: BTreeMap<RepositoryId, (u64, EntryHash)>,
    /// Mandatory record kinds that this release does not know: it may read but not write.
    ///
    /// Stored are all that were ever met beyond kinds 1 to 17, also by a writer that knows them: an older reader of the state must learn
    /// of them.
    pub unknown_mandatory: BTreeSet<u16>,
    /// Backups whose manifest was retired: gone for good, but a replica must not send them again unasked.
    pub purged: BTreeSet<ObjectHash>,
    /// The newest entry whose state is kept in an object, with the object's hash. Not stored: the entry that says so comes later.
    pub checkpoint: Option<(u64, ObjectHash)>,
}

impl LogState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u32(RULES);
        body.put_u64(self.head);
        body.put(self.head_hash.as_ref().map_or(&[0; 32][..], |hash| hash.as_bytes()));
        put_map(&mut body, self.sessions.iter(), |out, (id, session)| {
            let mut item = Vec::new();
            item.put(id.as_bytes());
            item.put_u64(session.opened);
            item.put_u64(session.last_seen);
            item.put_u64(session.over.unwrap_or(0));
            item.put_u8(u8::from(session.fenced) | u8::from(session.info.is_some()) << 1);
            if let Some(info) = &session.info {
                let mut blob = Vec::new();
                put_session(&mut blob, info);
                item.put_blob(&blob);
            }
            out.put_blob(&item);
        });
        put_map(&mut body, self.backups.values(), |out, backup| {
            let mut item = Vec::new();
            put_name(&mut item, &backup.manifest);
            item.put_u64(backup.entry);
            item.put_u64(backup.forgotten.unwrap_or(0));
            item.put_u8(u8::from(backup.held_until.is_some()));
            item.put_i64(backup.held_until.unwrap_or_default().as_nanos());
            put_summary(&mut item, &backup.summary);
            out.put_blob(&item);
        });
        put_map(&mut body, self.fragments.iter(), |out, (entry, name)| {
            out.put_u64(*entry);
            put_name(out, name);
        });
        put_map(&mut body, self.retired.iter(), |out, (name, entry)| {
            put_name(out, name);
            out.put_u64(*entry);
        });
        put_map(&mut body, self.quarantined.iter(), |out, (name, why)| {
            put_name(out, name);
            out.put_text(why);
        });
        put_map(&mut body, self.settings.iter(), |out, (key, value)| {
            out.put_text(key);
            out.put_text(value);
        });
        put_map(&mut body, self.replicas.iter(), |out, (id, (head, hash))| {
            out.put(id.as_bytes());
            out.put_u64(*head);
            out.put(hash.as_bytes());
        });
        put_map(&mut body, self.unknown_mandatory.iter(), |out, code| out.put_u16(*code));
        put_map(&mut body, self.purged.iter(), |out, id| out.put(id.as_bytes()));

        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        put_magic(&mut out, MAGIC, VERSION, 0);
        out.put_count(body.len());
        out.put_u32(checksum(&body));
        seal(&mut out, 0);
        out.put(&body);
        out
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        take_magic(&mut fields, "log state", MAGIC, VERSION)?;
        let body_len = fields.u32("body length")? as usize;
        let body_checksum = fields.u32("body checksum")?;
        check_sum("log state header", fields.u32("header checksum")?, &stored[..HEADER_LEN - 4])?;
        let body = fields.bytes("body", body_len)?;
        fields.end("log state")?;
        check_sum("log state body", body_checksum, body)?;
        Self::decode_body(&mut Fields::new(body))
    }

    /// Bytes behind the known ones, of the whole and of each session and backup, are a later release's, and optional by definition.
    fn decode_body(fields: &mut Fields<'_>) -> Result<Self> {
        if fields.u32("rules")? == 0 {
            return Err(Error::corrupt("log state: folded by no rules"));
        }
        let head = fields.u64("head")?;
        let head_hash: [u8; 32] = fields.array("head hash")?;
        let mut state = Self {
            head,
            head_hash: (head_hash != [0; 32]).then(|| EntryHash::from_bytes(head_hash)),
            ..Self::default()
        };
        for _ in 0..fields.count("session count", 37)? {
            let (id, session) = decode_session(&mut Fields::new(fields.blob("session")?))?;
            insert_next(&mut state.sessions, id, session, "sessions")?;
        }
        for _ in 0..fields.count("backup count", 74)? {
            let backup = decode_backup(&mut Fields::new(fields.blob("backup")?))?;
            insert_next(&mut state.backups, backup.manifest.hash, backup, "backups")?;
        }
        for _ in 0..fields.count("fragment count", 49)? {
            state.fragments.push((fields.u64("fragment entry")?, take_name(fields)?));
        }
        for _ in 0..fields.count("retired count", 49)? {
            insert_next(&mut state.retired, take_name(fields)?, fields.u64("retiring entry")?, "retired objects")?;
        }
        for _ in 0..fields.count("quarantine count", 45)? {
            insert_next(&mut state.quarantined, take_name(fields)?, fields.text("why")?, "quarantined packs")?;
        }
        for _ in 0..fields.count("setting count", 8)? {
            insert_next(&mut state.settings, fields.text("key")?, fields.text("value")?, "settings")?;
        }
        for _ in 0..fields.count("replica count", 56)? {
            let id = RepositoryId::from_bytes(fields.array("repository")?);
            let head = (fields.u64("head")?, EntryHash::from_bytes(fields.array("head hash")?));
            insert_next(&mut state.replicas, id, head, "replicas")?;
        }
        for _ in 0..fields.count("mandatory kind count", 2)? {
            let kind = fields.u16("mandatory kind")?;
            check_next(state.unknown_mandatory.last(), &kind, "mandatory kinds")?;
            state.unknown_mandatory.insert(kind);
        }
        for _ in 0..fields.count("purged count", 32)? {
            let id = ObjectHash::from_bytes(fields.array("purged backup")?);
            check_next(state.purged.last(), &id, "purged backups")?;
            state.purged.insert(id);
        }
        Ok(state)
    }
}

fn put_map<T>(out: &mut Vec<u8>, items: impl ExactSizeIterator<Item = T>, mut put: impl FnMut(&mut Vec<u8>, T)) {
    out.put_count(items.len());
    items.for_each(|item| put(out, item));
}

fn insert_next<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V, what: &str) -> Result<()> {
    check_next(map.last_key_value().map(|(last, _)| last), &key, what)?;
    map.insert(key, value);
    Ok(())
}

/// Keys are stored in ascending order, so that a state has one form and a repeated key is not silently the last one's.
fn check_next<K: Ord>(last: Option<&K>, key: &K, what: &str) -> Result<()> {
    if last.is_some_and(|last| last >= key) {
        return Err(Error::corrupt(format!("log state: {what} are not sorted")));
    }
    Ok(())
}

fn decode_session(fields: &mut Fields<'_>) -> Result<(SessionId, SessionState)> {
    let id = SessionId::from_bytes(fields.array("session")?);
    let opened = fields.u64("opened")?;
    let last_seen = fields.u64("last seen")?;
    let over = fields.u64("over")?;
    let flags = fields.u8("session flags")?;
    let info = match flags & 2 {
        0 => None,
        _ => Some(take_session(&mut Fields::new(fields.blob("session info")?))?),
    };
    Ok((id, SessionState { opened, last_seen, over: (over != 0).then_some(over), fenced: flags & 1 != 0, info }))
}

fn decode_backup(fields: &mut Fields<'_>) -> Result<BackupState> {
    let manifest = take_name(fields)?;
    let entry = fields.u64("committing entry")?;
    let forgotten = fields.u64("forgetting entry")?;
    let held = fields.u8("backup flags")? & 1 != 0;
    let until = Timestamp::from_nanos(fields.i64("held until")?);
    Ok(BackupState {
        manifest,
        entry,
        forgotten: (forgotten != 0).then_some(forgotten),
        held_until: held.then_some(until),
        summary: take_summary(fields)?,
    })
}
