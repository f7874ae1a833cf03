//! A new repository out of ruins: packs of which log, index, `config`, and perhaps manifests are gone.
//!
//! The ruins are only read. Whole packs are copied as they are; whole chunks are taken out of the others. Each manifest that is left is a backup
//! again, exactly as it was, though what was forgotten is listed again and holds are gone. Segments that no manifest names become one backup
//! of the lineage `salvaged`: every file that was ever listed in them, the best version under its own name, others beside it with a suffix.
//! Which night a file belonged to is not known then.
//!
//! Memory: the salvaged backup's entries are held at once; whatever has a manifest is streamed.
//!
//! If we crash here: a repository with some packs and no or not all backups. Begin again in another empty place.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;

use super::open_session;
use super::packs::{Records, whole_table};
use super::workshop::Workshop;
use crate::codec::{Encoder, Level, chunk_id, lineage_id, object_hash};
use crate::error::{Error, ErrorKind, Result};
use crate::format::config::Config;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::format::manifest::SegmentRef;
use crate::format::pack::{PackHeader, TableEntry};
use crate::format::segment::SegmentReader;
use crate::id::{ChunkId, FamilyId, ObjectHash, ObjectKind, ObjectName, RepositoryId};
use crate::index::Index;
use crate::manifest::{FinishedSegment, SegmentCutter, order};
use crate::ops::check::{CheckOptions, Finding, Severity, check};
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{
    BackupSummary, CodedChunk, Entry, EntryKind, Environment, InitOptions, Manifest, Repository, Session, Totals,
    pieces_of,
};
use crate::store::{Folder, Store, StoreReader, StoredObject};
use crate::units::MIB;

/// The lineage of what has no manifest.
const LINEAGE: &str = "salvaged";
/// Headers looked at to learn the family.
const HEADERS: usize = 64;

/// How ruins are salvaged.
#[derive(Clone, Debug)]
pub struct SalvageOptions {
    /// How the new repository cuts files, where the ruins have no `config` that tells. Restores do not need it; another way of cutting finds
    /// less of the next backup again.
    pub init: InitOptions,
    /// Bytes of memory to stay below, apart from the entries of the salvaged backup.
    pub memory: u64,
}

impl Default for SalvageOptions {
    fn default() -> Self {
        Self { init: InitOptions::default(), memory: 256 * MIB }
    }
}

/// What came out of the ruins.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SalvageReport {
    /// The new repository.
    pub id: RepositoryId,
    /// Packs that were whole.
    pub packs: u64,
    /// Packs that were not, of which whole chunks were taken.
    pub packs_damaged: u64,
    /// Bytes stored.
    pub bytes_stored: u64,
    /// Backups that have their manifest: as they were.
    pub backups: Vec<ObjectHash>,
    /// The backup made of segments without a manifest.
    pub salvaged: Option<ObjectHash>,
    /// Entries in it.
    pub salvaged_entries: u64,
    /// Files in it that are not whole.
    pub salvaged_broken: u64,
    /// What is wrong with the new repository.
    pub remaining: Vec<Finding>,
    /// How many findings there are.
    pub remaining_count: u64,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// Makes a repository at `target` out of what is left at `ruins`.
pub async fn salvage(
    ruins: &StoreReader,
    target: Store,
    options: &SalvageOptions,
    environment: Environment,
    monitor: Arc<dyn Monitor>,
) -> Result<(Repository, SalvageReport)> {
    let begun = Instant::now();
    if ruins.display() == target.display() {
        return Err(Error::invalid(
            "salvage: the ruins are only read; give another, empty place for the new repository",
        ));
    }
    let packs = list_packs(ruins).await?;
    if packs.is_empty() {
        let message = format!("salvage {}: there are no packs below `packs/` or `meta/`", ruins.display());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let (init, family) = learn(ruins, &packs, options).await?;
    let repository = Repository::create_in_family(target, &init, Some(family), environment).await?;
    let mut report = SalvageReport {
        id: repository.id(),
        packs: 0,
        packs_damaged: 0,
        bytes_stored: 0,
        backups: Vec::new(),
        salvaged: None,
        salvaged_entries: 0,
        salvaged_broken: 0,
        remaining: Vec::new(),
        remaining_count: 0,
        remarks: Vec::new(),
        duration: Duration::ZERO,
    };
    let session = open_session(&repository).await?;
    let outcome = run(&repository, &session, ruins, packs, &monitor, &mut report).await;
    let closed = session.close().await;
    outcome?;
    closed?;
    let looking = CheckOptions { memory: options.memory, ..CheckOptions::default() };
    let found = check(&repository, &looking, monitor).await?;
    let lost = !found.suspects.chunks.is_empty();
    repository.say(async |state: &LogState| Ok(state.note_missing_chunks(lost).into_iter().collect())).await?;
    report.remaining = found.findings.into_iter().filter(|finding| finding.severity > Severity::Note).collect();
    report.remaining_count = report.remaining.len() as u64;
    report.duration = begun.elapsed();
    Ok((repository, report))
}

async fn list_packs(ruins: &StoreReader) -> Result<Vec<(ObjectName, u64)>> {
    let mut packs = Vec::new();
    for kind in [ObjectKind::MetaPack, ObjectKind::DataPack] {
        let mut listing = ruins.list(Folder::of(kind));
        while let Some(info) = listing.try_next().await? {
            if let StoredObject::Named(name) = info.object() {
                packs.push((name, info.len));
            }
        }
    }
    packs.sort_unstable();
    // Of the same bytes under two names one is enough, unless it turns out to be damaged.
    Ok(packs)
}

/// How the ruins were made: their `config` if it can be read, else the family that most pack headers name.
async fn learn(
    ruins: &StoreReader,
    packs: &[(ObjectName, u64)],
    options: &SalvageOptions,
) -> Result<(InitOptions, FamilyId)> {
    match ruins.get(StoredObject::Config).await {
        Ok(stored) => {
            if let Ok(config) = Config::decode(&stored) {
                let init = InitOptions {
                    chunking: config.chunking,
                    pack_target: config.pack_target,
                    level: config.level,
                    ..options.init.clone()
                };
                return Ok((init, config.family));
            }
        }
        Err(error) if error.is_damage() => {}
        Err(error) => return Err(error),
    }
    let mut families: BTreeMap<FamilyId, usize> = BTreeMap::new();
    let step = packs.len().div_ceil(HEADERS).max(1);
    for (name, len) in packs.iter().step_by(step).filter(|(_, len)| *len >= PackHeader::LEN as u64) {
        let range = 0..PackHeader::LEN.min(usize::try_from(*len).unwrap_or(usize::MAX)) as u64;
        match ruins.get_range(StoredObject::Named(*name), range).await {
            Ok(header) => {
                if let Ok(header) = PackHeader::decode(&header) {
                    *families.entry(header.family).or_default() += 1;
                }
            }
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    let family = families.into_iter().max_by_key(|(_, count)| *count).map(|(family, _)| family);
    let family = family
        .ok_or_else(|| Error::corrupt(format!("salvage {}: no pack has a header that can be read", ruins.display())))?;
    Ok((options.init.clone(), family))
}

async fn run(
    repository: &Repository,
    session: &Session,
    ruins: &StoreReader,
    packs: Vec<(ObjectName, u64)>,
    monitor: &Arc<dyn Monitor>,
    report: &mut SalvageReport,
) -> Result<()> {
    let bytes = packs.iter().map(|(_, len)| len).sum();
    monitor.event(Event::Begin { phase: Phase::Repairing, bytes, items: packs.len() as u64 });
    let mut workshop = Workshop::new(repository, Some(session))?;
    let mut meta: HashSet<ChunkId> = HashSet::new();
    copy_packs(&mut workshop, ruins, packs, &mut meta, monitor, report).await?;
    let index = repository.index().await?;
    let named = commit_manifests(repository, session, ruins, report).await?;
    let loose: Vec<ChunkId> = meta.into_iter().filter(|id| !named.contains(id)).collect();
    if let Some(manifest) = gather(&mut workshop, &index, ruins, loose, report).await? {
        report.salvaged = Some(commit(repository, session, &manifest).await?);
    }
    report.bytes_stored = workshop.stored_bytes;
    monitor.event(Event::End { phase: Phase::Repairing });
    Ok(())
}

/// Whole packs first, as they are; then whole chunks out of the others, where no whole pack has them.
async fn copy_packs(
    workshop: &mut Workshop<'_>,
    ruins: &StoreReader,
    packs: Vec<(ObjectName, u64)>,
    meta: &mut HashSet<ChunkId>,
    monitor: &Arc<dyn Monitor>,
    report: &mut SalvageReport,
) -> Result<()> {
    let repository = workshop.repository;
    let family = repository.config().family;
    let mut copied: HashSet<(ObjectKind, ObjectHash)> = HashSet::new();
    let mut damaged = Vec::new();
    for (name, len) in packs {
        if monitor.cancelled() {
            return Err(Error::new(ErrorKind::Unavailable, "salvage: stopped on request"));
        }
        monitor.advance(len, len, 1);
        if copied.contains(&(name.kind, name.hash)) {
            continue;
        }
        let stored = match ruins.get(StoredObject::Named(name)).await {
            Ok(stored) => stored,
            Err(error) if error.is_damage() => continue,
            Err(error) => {
                report.remarks.push(format!("{name}: cannot be read: {error}"));
                continue;
            }
        };
        let table = if object_hash(&stored) == name.hash { whole_table(&stored, family)? } else { None };
        let Some(table) = table else {
            damaged.push(name);
            continue;
        };
        note_meta(name.kind, &table, meta);
        workshop.push_pack(name.kind, name.hash, stored, &table).await?;
        copied.insert((name.kind, name.hash));
        report.packs += 1;
        workshop.tend().await?;
        workshop.forget();
    }
    workshop.publish().await?;
    workshop.forget();
    let index = repository.index().await?;
    for name in damaged.into_iter().filter(|name| !copied.contains(&(name.kind, name.hash))) {
        report.packs_damaged += 1;
        let Ok(stored) = ruins.get(StoredObject::Named(name)).await else { continue };
        let mut records = Records::new(&stored)?;
        let places = records.places();
        let ids: Vec<ChunkId> = places.iter().map(|place| place.record.id).collect();
        let known = index.lookup(&ids)?;
        for (place, known) in places.iter().zip(known) {
            if known.is_none()
                && !workshop.has(&place.record.id)
                && let Some(chunk) = records.take(place)
            {
                note_meta(name.kind, std::slice::from_ref(place), meta);
                workshop.push(name.kind, &chunk).await?;
            }
        }
        workshop.tend().await?;
    }
    workshop.publish().await
}

fn note_meta(kind: ObjectKind, table: &[TableEntry], meta: &mut HashSet<ChunkId>) {
    if kind == ObjectKind::MetaPack {
        meta.extend(table.iter().map(|entry| entry.record.id));
    }
}

/// Commits every manifest that is left; gives the segments that they name.
async fn commit_manifests(
    repository: &Repository,
    session: &Session,
    ruins: &StoreReader,
    report: &mut SalvageReport,
) -> Result<HashSet<ChunkId>> {
    let mut manifests: HashMap<ObjectHash, Manifest> = HashMap::new();
    let mut listing = ruins.list(Folder::Manifests);
    while let Some(info) = listing.try_next().await? {
        let StoredObject::Named(name) = info.object() else { continue };
        let stored = match ruins.get(StoredObject::Named(name)).await {
            Ok(stored) => stored,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        match Manifest::decode(&stored) {
            Ok(manifest) if object_hash(&stored) == name.hash => drop(manifests.insert(name.hash, manifest)),
            _ => report.remarks.push(format!("{name}: damaged; its files are looked for in segments")),
        }
    }
    let mut manifests: Vec<Manifest> = manifests.into_values().collect();
    manifests.sort_by(|a, b| (a.started, a.finished, &a.lineage).cmp(&(b.started, b.finished, &b.lineage)));
    let mut named = HashSet::new();
    for manifest in manifests {
        named.extend(manifest.segments.iter().map(|segment| segment.chunk));
        let id = commit(repository, session, &manifest).await?;
        report.backups.push(id);
    }
    Ok(named)
}

async fn commit(repository: &Repository, session: &Session, manifest: &Manifest) -> Result<ObjectHash> {
    let stored = Bytes::from(manifest.encode());
    let name = ObjectName { kind: ObjectKind::Manifest, hash: object_hash(&stored), session: session.suffix() };
    repository.store().put_new(StoredObject::Named(name), vec![stored]).await?;
    // What it cost is not known any more.
    let summary = BackupSummary {
        lineage: manifest.lineage,
        lineage_name: manifest.lineage_name.clone(),
        started: manifest.started,
        finished: manifest.finished,
        partial: manifest.partial,
        totals: manifest.totals,
        read_bytes: 0,
        new_bytes: 0,
        stored_bytes: 0,
        source_kind: manifest.source_kind.clone(),
        source_location: manifest.source_location.clone(),
        host: manifest.host.clone(),
        tags: manifest.tags.clone(),
    };
    session
        .say(async |_: &LogState| {
            Ok(vec![Record::BackupCommitted { manifest: name, fragments: Vec::new(), summary: summary.clone() }])
        })
        .await?;
    Ok(name.hash)
}

/// A version of a file, and whether all of it is there.
struct Version {
    entry: Entry,
    whole: bool,
}

/// One backup of every entry in segments that no manifest names; `None` if there is none.
async fn gather(
    workshop: &mut Workshop<'_>,
    index: &Arc<Index>,
    ruins: &StoreReader,
    loose: Vec<ChunkId>,
    report: &mut SalvageReport,
) -> Result<Option<Manifest>> {
    let repository = workshop.repository;
    repository.refresh().await?;
    let index = &repository.index().await.unwrap_or_else(|_| Arc::clone(index));
    let mut versions: BTreeMap<Vec<u8>, Vec<Version>> = BTreeMap::new();
    for id in loose {
        let Ok(plain) = repository.read_chunk(index, &id).await else { continue };
        // A piece list is no segment, and the other way round.
        let Ok(reader) = SegmentReader::new(&plain) else { continue };
        for entry in reader {
            let Ok(entry) = entry else { break };
            if entry.check().is_err() {
                continue;
            }
            let whole = is_whole(repository, index, &entry).await?;
            add_version(versions.entry(entry.path.clone()).or_default(), Version { entry, whole });
        }
    }
    if versions.is_empty() {
        return Ok(None);
    }
    let (entries, broken) = settle(versions);
    report.salvaged_entries = entries.len() as u64;
    report.salvaged_broken = broken;
    let (segments, totals) = store_segments(workshop, &entries).await?;
    workshop.publish().await?;
    let now = repository.environment().clock.now();
    Ok(Some(Manifest {
        lineage: lineage_id(LINEAGE),
        lineage_name: LINEAGE.to_owned(),
        parent: None,
        started: now,
        finished: now,
        // Nobody knows what is not in it.
        partial: true,
        source_kind: "salvage".to_owned(),
        source_location: ruins.display().to_owned(),
        host: repository.environment().process.host.clone(),
        tool: crate::TOOL.to_owned(),
        tags: Vec::new(),
        facts: Vec::new(),
        totals,
        segments,
    }))
}

/// Keeps one of each content, with its newest time.
fn add_version(known: &mut Vec<Version>, version: Version) {
    let same = |other: &&mut Version| {
        let (a, b) = (&other.entry, &version.entry);
        a.kind == b.kind && a.hash == b.hash && a.size == b.size && a.link_target == b.link_target
    };
    match known.iter_mut().find(same) {
        Some(other) if (other.whole, other.entry.mtime) < (version.whole, version.entry.mtime) => *other = version,
        Some(_) => {}
        None => known.push(version),
    }
}

async fn is_whole(repository: &Repository, index: &Arc<Index>, entry: &Entry) -> Result<bool> {
    let mut runs = pieces_of(repository, index, &entry.pieces);
    while let Some(run) = futures::StreamExt::next(&mut runs).await {
        let Ok(run) = run else { return Ok(false) };
        let ids: Vec<_> = run.iter().map(|piece| piece.chunk).collect();
        if index.lookup(&ids)?.iter().any(Option::is_none) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives each path its best version and the others a name beside it, in the order of entries; and how many files are not whole.
fn settle(versions: BTreeMap<Vec<u8>, Vec<Version>>) -> (Vec<Entry>, u64) {
    let mut taken: HashSet<Vec<u8>> = versions.keys().cloned().collect();
    // What has something below it must be a directory.
    let above: HashSet<Vec<u8>> = versions.keys().flat_map(|path| parents(path)).collect();
    let mut entries: Vec<Entry> = Vec::new();
    let mut broken = 0;
    for (path, mut versions) in versions {
        versions.sort_by(|a, b| {
            let rank = |v: &Version| (v.entry.kind == EntryKind::Directory, v.whole, v.entry.mtime, v.entry.size);
            rank(b).cmp(&rank(a))
        });
        let mut free = !above.contains(&path);
        let mut directory = false;
        for Version { mut entry, whole } in versions {
            if entry.kind == EntryKind::Directory {
                // Two of them differ in times only.
                if !std::mem::replace(&mut directory, true) {
                    free = false;
                    entries.push(entry);
                }
                continue;
            }
            broken += u64::from(!whole);
            if !std::mem::replace(&mut free, false) {
                entry.path = beside(&path, &mut taken);
                // Its name does not tell its content any more.
                entry.stable = false;
            }
            entries.push(entry);
        }
    }
    let is_directory = |entry: &Entry| entry.kind == EntryKind::Directory;
    entries.sort_by(|a, b| order::compare(&a.path, is_directory(a), &b.path, is_directory(b)));
    (entries, broken)
}

fn parents(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..path.len()).filter(|at| path[*at] == b'/').map(|at| path[..at].to_vec())
}

/// `path.salvaged-2`, or the next number that nobody has.
fn beside(path: &[u8], taken: &mut HashSet<Vec<u8>>) -> Vec<u8> {
    for number in 2u64.. {
        let name = [path, format!(".salvaged-{number}").as_bytes()].concat();
        if taken.insert(name.clone()) {
            return name;
        }
    }
    unreachable!("there are more numbers than paths")
}

async fn store_segments(workshop: &mut Workshop<'_>, entries: &[Entry]) -> Result<(Vec<SegmentRef>, Totals)> {
    let mut encoder = Encoder::new(Level::new(workshop.repository.config().level)?)?;
    let mut cutter = SegmentCutter::default();
    let mut segments = Vec::new();
    let mut totals = Totals::default();
    for at in 0..=entries.len() {
        let finished = match entries.get(at) {
            Some(entry) => {
                match entry.kind {
                    EntryKind::File => totals.files += 1,
                    EntryKind::Directory => totals.directories += 1,
                    EntryKind::Symlink => totals.symlinks += 1,
                }
                totals.bytes = totals.bytes.saturating_add(entry.size);
                cutter.push(entry)?
            }
            None => cutter.finish(),
        };
        let Some(FinishedSegment { plain, entry_count, first_key }) = finished else { continue };
        let plain_len = u32::try_from(plain.len()).map_err(|_| Error::invalid("salvage: a segment is too large"))?;
        let chunk = chunk_id(&plain);
        let encoded = encoder.encode(&plain, None);
        let coded = CodedChunk { id: chunk, plain_len, coding: encoded.coding, payload: encoded.payload.to_vec() };
        workshop.push(ObjectKind::MetaPack, &coded).await?;
        segments.push(SegmentRef { chunk, plain_len, entry_count, first_key });
    }
    Ok((segments, totals))
}
