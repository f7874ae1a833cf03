//! A repository as a later minor release would have written it: every object that may grow has grown (docs/format/README.md, "How it grows").
//!
//! What has grown has another hash, so everything that names it is written anew as well, in the order in which it was written first: meta packs,
//! fragments, manifests, parts of the scrub ledger, and at last the log, folded on the way for its state objects. Data packs and piece lists
//! are fixed to the byte and stay.
//!
//! Not done here: anything that a reader must refuse. `tests/repo/bad_input.rs` has that.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::codec::{Decoder, Encoder, Level, chunk_id, entry_hash, object_hash};
use crate::error::{Error, Result};
use crate::format::config::Config;
use crate::format::fragment::Fragment;
use crate::format::log_entry::LogEntry;
use crate::format::log_record::{Purpose, Record};
use crate::format::log_state::LogState;
use crate::format::manifest::Manifest;
use crate::format::scrub::ScrubPart;
use crate::format::segment::{EntryKind, SegmentBuilder, SegmentReader};
use crate::format::{Fields, Put, checksum};
use crate::id::{ChunkId, ObjectHash, ObjectKind, ObjectName};
use crate::pack::{PackBuilder, PackScan};
use crate::repo::{FileFormat, Pieces};
use crate::store::{ObjectPath, StoredObject};

/// Every object of a store, by path.
pub type Objects = BTreeMap<String, Bytes>;

/// Kinds of records that no release of format 1 has used yet.
const OPTIONAL_KIND: u16 = 999;
const MANDATORY_KIND: u16 = 1000;
/// A purpose and a file format that this release keeps as a number.
const PURPOSE: u8 = 42;
const FORMAT: u8 = 9;
/// What stands behind the last field that this release knows.
const MORE: &[u8] = b"what a later release knows";

/// What a later release's records are to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewRecords {
    /// It may skip them.
    Optional,
    /// Whoever does not know them may read, not write.
    Mandatory,
}

/// A grown repository.
#[derive(Clone, Debug)]
pub struct Later {
    /// All of it.
    pub objects: Objects,
    /// What its backups were called before.
    pub backups: BTreeMap<ObjectHash, ObjectHash>,
    /// How many objects grew, by the folder they lie in.
    pub grown: BTreeMap<String, u64>,
}

/// What a stored repository has examples of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Kinds of log records.
    pub records: BTreeSet<u16>,
    /// Methods by which chunks are coded.
    pub methods: BTreeSet<u8>,
    /// File formats of entries: 0 opaque, 1 TAE, 2 InnoDB.
    pub formats: BTreeSet<u8>,
    /// Kinds of entries: 1 file, 2 directory, 3 link.
    pub entries: BTreeSet<u8>,
    /// Files whose framing was taken off.
    pub framed: u64,
    /// Files of so many pieces that they are in lists.
    pub long_files: u64,
    /// Entries with an extension.
    pub extended: u64,
    /// Objects in each folder.
    pub objects: BTreeMap<String, u64>,
}

fn parsed(path: &str) -> Result<StoredObject> {
    Ok(StoredObject::parse(&ObjectPath::parse(path)?))
}

fn folder(path: &str) -> String {
    path.split('/').next().unwrap_or_default().to_owned()
}

fn config_of(objects: &Objects) -> Result<Config> {
    Config::decode(objects.get("config").ok_or_else(|| Error::invalid("no config"))?)
}

/// Every named object of one kind.
fn named(objects: &Objects, kind: ObjectKind) -> Result<Vec<(ObjectName, Bytes)>> {
    let mut found = Vec::new();
    for (path, stored) in objects {
        if let StoredObject::Named(name) = parsed(path)?
            && name.kind == kind
        {
            found.push((name, stored.clone()));
        }
    }
    Ok(found)
}

fn is_segment(plain: &[u8]) -> bool {
    plain.starts_with(b"EvSg")
}

/// What these objects have examples of.
pub fn inventory(objects: &Objects) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    let family = config_of(objects)?.family;
    let (mut decoder, mut plain) = (Decoder::new()?, Vec::new());
    for (path, stored) in objects {
        *inventory.objects.entry(folder(path)).or_default() += 1;
        match parsed(path)? {
            StoredObject::Log(_) => {
                let mut entry = Fields::new(stored.get(LOG_HEADER..).unwrap_or_default());
                entry.bytes("session and time", 16)?;
                entry.text("tool")?;
                for _ in 0..entry.u32("record count")? {
                    inventory.records.insert(entry.u16("kind")?);
                    entry.u16("flags")?;
                    entry.blob("body")?;
                }
            }
            StoredObject::Named(name) if matches!(name.kind, ObjectKind::DataPack | ObjectKind::MetaPack) => {
                for (record, payload) in PackScan::new(stored, family)?.records() {
                    inventory.methods.insert(record.coding & 15);
                    decoder.decode_into(record.coding, payload, record.plain_len, &mut plain)?;
                    if name.kind == ObjectKind::MetaPack && is_segment(&plain) {
                        inventory.add_segment(&plain)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(inventory)
}

impl Inventory {
    fn add_segment(&mut self, plain: &[u8]) -> Result<()> {
        for entry in SegmentReader::new(plain)? {
            let entry = entry?;
            self.entries.insert(match entry.kind {
                EntryKind::File => 1,
                EntryKind::Directory => 2,
                EntryKind::Symlink => 3,
            });
            self.formats.insert(match entry.format {
                FileFormat::Opaque => 0,
                FileFormat::Tae => 1,
                FileFormat::InnoDb => 2,
                FileFormat::Other(code) => code,
            });
            self.framed += u64::from(entry.transform == crate::repo::Transform::DiskCrc);
            self.extended += u64::from(!entry.extension.is_empty());
            self.long_files += u64::from(matches!(entry.pieces, Pieces::Lists(_)));
        }
        Ok(())
    }
}

/// The same repository, grown in every way in which it may grow.
pub fn grown(objects: &Objects, records: NewRecords) -> Result<Later> {
    let mut growth = Growth {
        config: config_of(objects)?,
        out: Objects::new(),
        names: BTreeMap::new(),
        sizes: BTreeMap::new(),
        segments: BTreeMap::new(),
        backups: BTreeMap::new(),
        grown: BTreeMap::new(),
    };
    let fixed = |path: &str| matches!(parsed(path), Ok(StoredObject::Named(name)) if name.kind == ObjectKind::DataPack);
    growth
        .out
        .extend(objects.iter().filter(|(path, _)| fixed(path)).map(|(path, stored)| (path.clone(), stored.clone())));
    for (name, stored) in named(objects, ObjectKind::MetaPack)? {
        growth.meta_pack(name, &stored)?;
    }
    for (name, stored) in named(objects, ObjectKind::Fragment)? {
        growth.fragment(name, &stored)?;
    }
    growth.manifests(named(objects, ObjectKind::Manifest)?)?;
    for (name, stored) in named(objects, ObjectKind::Scrub)? {
        growth.scrub(name, &stored)?;
    }
    let config = growth.config()?;
    growth.log(objects, &config, records)?;
    Ok(Later { objects: growth.out, backups: growth.backups, grown: growth.grown })
}

struct Growth {
    config: Config,
    out: Objects,
    names: BTreeMap<ObjectName, ObjectName>,
    /// Bytes of the packs that were written anew, by their new names.
    sizes: BTreeMap<ObjectName, u64>,
    segments: BTreeMap<ChunkId, (ChunkId, u32)>,
    backups: BTreeMap<ObjectHash, ObjectHash>,
    grown: BTreeMap<String, u64>,
}

impl Growth {
    fn put(&mut self, object: &StoredObject, stored: Vec<u8>) {
        let path = object.path().to_string();
        *self.grown.entry(folder(&path)).or_default() += 1;
        self.out.insert(path, stored.into());
    }

    fn put_named(&mut self, old: ObjectName, stored: Vec<u8>) -> ObjectName {
        let name = ObjectName { hash: object_hash(&stored), ..old };
        self.names.insert(old, name);
        self.put(&StoredObject::Named(name), stored);
        name
    }

    /// An optional feature, and a longer body.
    fn config(&mut self) -> Result<Vec<u8>> {
        self.config.optional_features.push("deep".to_owned());
        let mut stored = self.config.encode();
        stored.truncate(stored.len() - 4);
        stored.put(MORE);
        put_len(&mut stored, 12, 20);
        reseal(&mut stored, 16);
        let sum = checksum(&stored[20..]);
        stored.put_u32(sum);
        Config::decode(&stored)?;
        self.put(&StoredObject::Config, stored.clone());
        Ok(stored)
    }

    /// Segments get extensions, and formats that this release does not know.
    fn meta_pack(&mut self, name: ObjectName, stored: &[u8]) -> Result<()> {
        let scan = PackScan::new(stored, self.config.family)?;
        let mut builder = PackBuilder::new(ObjectKind::MetaPack, self.config.family, stored.len() * 2);
        let (mut decoder, mut encoder, mut plain) = (Decoder::new()?, Encoder::new(Level::default())?, Vec::new());
        for (record, payload) in scan.records() {
            decoder.decode_into(record.coding, payload, record.plain_len, &mut plain)?;
            if !is_segment(&plain) {
                builder.push(record.id, record.plain_len, record.coding, payload);
                continue;
            }
            let longer = longer_segment(&plain)?;
            let (id, len) = (chunk_id(&longer), len_u32(longer.len()));
            self.segments.insert(record.id, (id, len));
            let encoded = encoder.encode(&longer, None);
            builder.push(id, len, encoded.coding, encoded.payload);
        }
        let sealed = builder.seal().ok_or_else(|| Error::invalid("a pack without records"))?.name(name.session);
        self.names.insert(name, sealed.name);
        self.sizes.insert(sealed.name, sealed.stored.len() as u64);
        self.put(&StoredObject::Named(sealed.name), sealed.stored.to_vec());
        Ok(())
    }

    fn fragment(&mut self, name: ObjectName, stored: &[u8]) -> Result<()> {
        let old = Fragment::decode(stored)?;
        let mut new = Fragment::default();
        for (at, pack) in old.packs.iter().enumerate() {
            let renamed = self.name(pack.name);
            let path = StoredObject::Named(renamed).path().to_string();
            let bytes = self.out.get(&path).ok_or_else(|| Error::invalid(format!("{path} is not there")))?;
            let scan = PackScan::new(bytes, self.config.family)?;
            let kept: BTreeSet<ChunkId> = old
                .entries
                .iter()
                .filter(|entry| usize::from(entry.pack) == at)
                .map(|entry| self.segments.get(&entry.id).map_or(entry.id, |(id, _)| *id))
                .collect();
            let table: Vec<_> = scan.table().iter().filter(|entry| kept.contains(&entry.record.id)).copied().collect();
            new.push_pack(renamed, bytes.len() as u64, &table)?;
        }
        let mut stored = new.encode();
        stored.put(MORE);
        put_sum(&mut stored, 20, 28);
        reseal(&mut stored, 24);
        if Fragment::decode(&stored)? != new {
            return Err(Error::invalid("a longer fragment is read as another"));
        }
        self.put_named(name, stored);
        Ok(())
    }

    /// Parents before children, since a child names its parent by hash.
    fn manifests(&mut self, mut left: Vec<(ObjectName, Bytes)>) -> Result<()> {
        while !left.is_empty() {
            let waiting: BTreeSet<ObjectHash> = left.iter().map(|(name, _)| name.hash).collect();
            let mut next = Vec::new();
            let before = left.len();
            for (name, stored) in left {
                let mut manifest = Manifest::decode(&stored)?;
                if manifest.parent.is_some_and(|parent| waiting.contains(&parent)) {
                    next.push((name, stored));
                    continue;
                }
                manifest.parent = manifest.parent.map(|parent| self.backup(parent));
                for segment in &mut manifest.segments {
                    let segment_of = self.segments.get(&segment.chunk);
                    let (chunk, len) = segment_of.ok_or_else(|| Error::invalid("a segment in no meta pack"))?;
                    (segment.chunk, segment.plain_len) = (*chunk, *len);
                }
                let stored = longer_manifest(&manifest);
                if Manifest::decode(&stored)? != manifest {
                    return Err(Error::invalid("a longer manifest is read as another"));
                }
                let renamed = self.put_named(name, stored);
                self.backups.insert(name.hash, renamed.hash);
            }
            left = next;
            if left.len() == before {
                return Err(Error::invalid("backups are each other's parents"));
            }
        }
        Ok(())
    }

    fn scrub(&mut self, name: ObjectName, stored: &[u8]) -> Result<()> {
        let mut part = ScrubPart::decode(stored)?;
        for fact in &mut part.facts {
            fact.pack = self.name(fact.pack);
            fact.size = self.sizes.get(&fact.pack).copied().unwrap_or(fact.size);
        }
        let mut stored = part.encode();
        stored.put(MORE);
        put_sum(&mut stored, 16, 24);
        reseal(&mut stored, 20);
        if ScrubPart::decode(&stored)? != part {
            return Err(Error::invalid("a longer part of the ledger is read as another"));
        }
        self.put_named(name, stored);
        Ok(())
    }

    fn log(&mut self, objects: &Objects, config: &[u8], new: NewRecords) -> Result<()> {
        let mut state = LogState::empty(entry_hash(config));
        for (path, stored) in objects {
            let StoredObject::Log(number) = parsed(path)? else { continue };
            let mut entry = LogEntry::decode(stored)?;
            let old = std::mem::take(&mut entry.records);
            for record in old {
                let record = match record {
                    Record::StateCheckpointed { number: at, hash } => {
                        let object = StoredObject::LogState { n: at, hash };
                        self.state(objects.contains_key(object.path().as_str()), &state, at)?
                    }
                    other => self.record(other),
                };
                entry.records.push(record);
            }
            entry.previous = state.head_hash.ok_or_else(|| Error::invalid("a log without a beginning"))?;
            let stored = longer_entry(&entry.encode(), number == 1 && new == NewRecords::Mandatory)?;
            let odd = state.apply(&LogEntry::decode(&stored)?, entry_hash(&stored))?;
            if !odd.is_empty() {
                return Err(Error::invalid(format!("a longer log folds to something odd: {odd:?}")));
            }
            self.put(&StoredObject::Log(number), stored);
        }
        Ok(())
    }

    /// The record that names a state object, and the object if there was one.
    fn state(&mut self, is_stored: bool, state: &LogState, number: u64) -> Result<Record> {
        if state.head != number {
            return Err(Error::invalid(format!("a state of entry {number} is named behind entry {}", state.head)));
        }
        let stored = longer_state(&state.encode())?;
        let known = LogState { checkpoint: None, ..state.clone() };
        if LogState::decode(&stored)? != known {
            return Err(Error::invalid("a longer state is read as another"));
        }
        let hash = object_hash(&stored);
        if is_stored {
            self.put(&StoredObject::LogState { n: number, hash }, stored);
        }
        Ok(Record::StateCheckpointed { number, hash })
    }

    fn name(&self, name: ObjectName) -> ObjectName {
        self.names.get(&name).copied().unwrap_or(name)
    }

    fn all(&self, names: Vec<ObjectName>) -> Vec<ObjectName> {
        names.into_iter().map(|name| self.name(name)).collect()
    }

    fn backup(&self, id: ObjectHash) -> ObjectHash {
        self.backups.get(&id).copied().unwrap_or(id)
    }

    /// The same record, of objects under their new names.
    fn record(&self, record: Record) -> Record {
        let ids = |ids: Vec<ObjectHash>| ids.into_iter().map(|id| self.backup(id)).collect();
        match record {
            Record::SessionOpened(mut info) => {
                if info.purpose == Purpose::Restore {
                    info.purpose = Purpose::Other(PURPOSE);
                }
                Record::SessionOpened(info)
            }
            Record::FragmentsPublished { fragments } => Record::FragmentsPublished { fragments: self.all(fragments) },
            Record::BackupCommitted { manifest, fragments, summary } => {
                Record::BackupCommitted { manifest: self.name(manifest), fragments: self.all(fragments), summary }
            }
            Record::BackupsForgotten { backups, reason } => Record::BackupsForgotten { backups: ids(backups), reason },
            Record::BackupsUnforgotten { backups } => Record::BackupsUnforgotten { backups: ids(backups) },
            Record::ObjectsRetired { objects, superseded, added } => Record::ObjectsRetired {
                objects: self.all(objects),
                superseded: self.all(superseded),
                added: self.all(added),
            },
            Record::PacksQuarantined { packs, why } => Record::PacksQuarantined { packs: self.all(packs), why },
            Record::Held { backup, until } => Record::Held { backup: self.backup(backup), until },
            Record::Released { backup } => Record::Released { backup: self.backup(backup) },
            other => other,
        }
    }
}

const LOG_HEADER: usize = 80;
const STATE_HEADER: usize = 24;
const MANIFEST_HEADER: usize = 32;

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("what tests store is shorter than 4 GiB")
}

fn set_u32(stored: &mut [u8], at: usize, value: u32) {
    stored[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// At `at`, the length of the body that begins at `body`.
fn put_len(stored: &mut [u8], at: usize, body: usize) {
    let len = len_u32(stored.len() - body);
    set_u32(stored, at, len);
}

/// At `at`, the checksum of the body that begins at `body`.
fn put_sum(stored: &mut [u8], at: usize, body: usize) {
    let sum = checksum(&stored[body..]);
    set_u32(stored, at, sum);
}

/// At `at`, the checksum of everything before it.
fn reseal(stored: &mut [u8], at: usize) {
    let sum = checksum(&stored[..at]);
    set_u32(stored, at, sum);
}

fn longer_segment(plain: &[u8]) -> Result<Vec<u8>> {
    let mut builder = SegmentBuilder::default();
    for entry in SegmentReader::new(plain)? {
        let mut entry = entry?;
        // Rows of (tag u16, length u32, bytes).
        entry.extension.put_u16(7);
        entry.extension.put_blob(b"user.note=kept");
        if entry.kind == EntryKind::File && entry.format == FileFormat::Opaque {
            entry.format = FileFormat::Other(FORMAT);
        }
        builder.push(&entry)?;
    }
    Ok(builder.finish())
}

/// Bytes behind the body, and behind the names.
fn longer_manifest(manifest: &Manifest) -> Vec<u8> {
    let stored = manifest.encode();
    let body_len = u32::from_le_bytes([stored[12], stored[13], stored[14], stored[15]]) as usize;
    let (body, names) = stored[MANIFEST_HEADER..].split_at(body_len);
    let (body, names) = ([body, MORE].concat(), [names, MORE].concat());
    let mut longer = stored[..MANIFEST_HEADER].to_vec();
    for (at, value) in
        [(12, len_u32(body.len())), (16, len_u32(names.len())), (20, checksum(&body)), (24, checksum(&names))]
    {
        set_u32(&mut longer, at, value);
    }
    reseal(&mut longer, 28);
    [longer, body, names].concat()
}

/// Longer records with flags that are not known, a record more, and bytes behind the records.
fn longer_entry(stored: &[u8], mandatory: bool) -> Result<Vec<u8>> {
    let mut fields = Fields::new(&stored[LOG_HEADER..]);
    let mut longer = stored[..LOG_HEADER].to_vec();
    longer.put(fields.bytes("session and time", 16)?);
    longer.put_text(&fields.text("tool")?);
    let count = fields.u32("record count")?;
    longer.put_u32(count + 1);
    for _ in 0..count {
        let kind = fields.u16("kind")?;
        longer.put_u16(kind);
        longer.put_u16(fields.u16("flags")? | 0x8000);
        let body = fields.blob("body")?;
        let known = if kind == COMMIT { longer_summary(body, NAME_LEN)? } else { body.to_vec() };
        longer.put_blob(&[&known[..], MORE].concat());
    }
    longer.put_u16(if mandatory { MANDATORY_KIND } else { OPTIONAL_KIND });
    longer.put_u16(u16::from(mandatory));
    longer.put_blob(MORE);
    longer.put(MORE);
    put_len(&mut longer, 68, LOG_HEADER);
    put_sum(&mut longer, 72, LOG_HEADER);
    reseal(&mut longer, 76);
    Ok(longer)
}

const COMMIT: u16 = 4;
const NAME_LEN: usize = 41;

/// The body of a commit: the manifest's name, the fragments, and a summary that is longer.
fn longer_summary(body: &[u8], name_len: usize) -> Result<Vec<u8>> {
    let mut fields = Fields::new(body);
    let mut longer = fields.bytes("manifest", name_len)?.to_vec();
    let count = fields.u32("fragment count")?;
    longer.put_u32(count);
    longer.put(fields.bytes("fragments", count as usize * name_len)?);
    longer.put_blob(&[fields.blob("summary")?, MORE].concat());
    Ok(longer)
}

/// Folded by later rules; longer sessions, session infos, backups, summaries, and bytes behind it all.
fn longer_state(stored: &[u8]) -> Result<Vec<u8>> {
    let mut fields = Fields::new(&stored[STATE_HEADER..]);
    let mut longer = stored[..STATE_HEADER].to_vec();
    longer.put_u32(fields.u32("rules")? + 1);
    longer.put(fields.bytes("head", 40)?);
    // Of a session 33 bytes come first, the last of them flags; of a backup 66, with the flags before a time. Then a blob, if there is more.
    for (what, fixed, flags) in [("session", 33, 32), ("backup", 66, 57)] {
        let count = fields.u32(what)?;
        longer.put_u32(count);
        for _ in 0..count {
            let mut item = Fields::new(fields.blob(what)?);
            let mut known = item.bytes(what, fixed)?.to_vec();
            known[flags] |= 0x80;
            let rest = item.rest();
            if !rest.is_empty() {
                known.put_blob(&[Fields::new(rest).blob(what)?, MORE].concat());
            }
            longer.put_blob(&[&known[..], MORE].concat());
        }
    }
    longer.put(fields.rest());
    longer.put(MORE);
    put_len(&mut longer, 12, STATE_HEADER);
    put_sum(&mut longer, 16, STATE_HEADER);
    reseal(&mut longer, 20);
    Ok(longer)
}
