//! A repository of millions of chunks that were never stored: packs are files of the right length and no content, fragments, lists of files and
//! log are real. For prune's memory and speed, which never look into a data pack before something is written anew.

use std::path::Path;

use bytes::Bytes;

use crate::codec::{Encoder, Level, chunk_id, lineage_id, object_hash};
use crate::error::{Error, ErrorKind, Result};
use crate::format::fragment::{Fragment, FragmentEntry, FragmentPack};
use crate::format::log_record::{BackupSummary, Purpose, Record};
use crate::format::log_state::LogState;
use crate::format::manifest::SegmentRef;
use crate::id::{FileHash, ObjectHash, ObjectKind, ObjectName, SourceIdentity};
use crate::manifest::{FinishedSegment, SegmentCutter};
use crate::repo::{
    Entry, EntryKind, FileFormat, Manifest, PackSink, Piece, Pieces, Repository, Session, SessionRequest, Totals,
    Transform,
};
use crate::store::{ObjectPath, StoredObject};
use crate::testing::scale::chunk;

/// Chunks of a file.
const CHUNKS_PER_FILE: u64 = 50;
const STORED_LEN: u32 = 20_000;
const PLAIN_LEN: u32 = 32_000;
const FRAGMENT_CHUNKS: u64 = 150_000;

/// Fills a new repository on a local disk: `chunks` chunks in packs of `per_pack`, a backup that names all of them, and one that names three of
/// four files.
pub async fn fill(repository: &Repository, chunks: u64, per_pack: u64) -> Result<()> {
    let root = repository.store().local_path().map(Path::to_path_buf);
    let root = root.ok_or_else(|| Error::invalid("a repository of this size wants a local disk"))?;
    let session = open(repository).await?;
    let mut names = Vec::new();
    let mut from = 0;
    while from < chunks {
        let to = (from + FRAGMENT_CHUNKS).min(chunks);
        let mut fragment = fragment_of(from, to, per_pack, &session);
        for pack in &fragment.packs {
            make_empty(&root, pack)?;
        }
        names.push(repository.store_fragment(&session, &mut fragment).await?);
        from = to;
    }
    let publish = async |_: &LogState| Ok(vec![Record::FragmentsPublished { fragments: names.clone() }]);
    session.say(publish).await?;
    commit(repository, session, chunks, |_| true).await?;
    let session = open(repository).await?;
    commit(repository, session, chunks, |file| file % 4 != 0).await
}

async fn open(repository: &Repository) -> Result<Session> {
    let request = SessionRequest {
        purpose: Purpose::Backup,
        lineage: Some(lineage_id("scale")),
        fence_after: std::time::Duration::from_secs(3600),
        takeover: false,
    };
    Session::open(repository, request).await
}

fn fragment_of(from: u64, to: u64, per_pack: u64, session: &Session) -> Fragment {
    let mut fragment = Fragment::default();
    let record = u64::from(STORED_LEN) + 64;
    for n in from..to {
        if (n - from).is_multiple_of(per_pack) {
            let hash = ObjectHash::from_bytes(*chunk(n | 1 << 50).as_bytes());
            let name = ObjectName { kind: ObjectKind::DataPack, hash, session: session.suffix() };
            fragment.packs.push(FragmentPack { name, size: per_pack * record + 128 });
        }
        fragment.entries.push(FragmentEntry {
            id: chunk(n),
            pack: u16::try_from(fragment.packs.len() - 1).expect("few packs"),
            offset: u32::try_from(64 + (n - from) % per_pack * record).expect("a small pack"),
            stored_len: STORED_LEN,
            plain_len: PLAIN_LEN,
            coding: 1,
        });
    }
    fragment
}

/// A file of the right length that takes no room.
fn make_empty(root: &Path, pack: &FragmentPack) -> Result<()> {
    let path = root.join(ObjectPath::from(pack.name).as_str());
    let make = || -> std::io::Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::File::create(&path)?.set_len(pack.size)
    };
    make().map_err(|error| Error::with_source(ErrorKind::Unavailable, format!("make {}", path.display()), error))
}

/// Commits a backup of those files that `is_in` wants.
async fn commit(repository: &Repository, session: Session, chunks: u64, is_in: impl Fn(u64) -> bool) -> Result<()> {
    let mut sink = PackSink::new(repository, &session);
    let mut encoder = Encoder::new(Level::new(1)?)?;
    let mut cutter = SegmentCutter::default();
    let mut segments = Vec::new();
    let mut totals = Totals::default();
    for file in (0..chunks / CHUNKS_PER_FILE).filter(|file| is_in(*file)) {
        let entry = entry_of(file);
        totals.files += 1;
        totals.bytes += entry.size;
        if let Some(segment) = cutter.push(&entry)? {
            store(&mut sink, &mut encoder, segment, &mut segments).await?;
        }
    }
    if let Some(segment) = cutter.finish() {
        store(&mut sink, &mut encoder, segment, &mut segments).await?;
    }
    let fragments: Vec<ObjectName> = sink.finish().await?.fragments.into_iter().map(|(name, _)| name).collect();
    let now = repository.environment().clock.now();
    let manifest = Manifest {
        lineage: lineage_id("scale"),
        lineage_name: "scale".to_owned(),
        parent: None,
        started: now,
        finished: now,
        partial: false,
        source_kind: "synthetic".to_owned(),
        source_location: "/".to_owned(),
        host: "scale".to_owned(),
        tool: crate::TOOL.to_owned(),
        tags: Vec::new(),
        facts: Default::default(),
        totals,
        segments,
    };
    let summary = BackupSummary {
        lineage: manifest.lineage,
        lineage_name: manifest.lineage_name.clone(),
        started: now,
        finished: now,
        partial: false,
        totals,
        read_bytes: 0,
        new_bytes: 0,
        stored_bytes: 0,
        source_kind: manifest.source_kind.clone(),
        source_location: manifest.source_location.clone(),
        host: manifest.host.clone(),
        tags: Vec::new(),
    };
    let stored = Bytes::from(manifest.encode());
    let name = ObjectName { kind: ObjectKind::Manifest, hash: object_hash(&stored), session: session.suffix() };
    repository.store().put_new(StoredObject::Named(name), vec![stored]).await?;
    let say = async |_: &LogState| {
        let record = Record::BackupCommitted { manifest: name, fragments: fragments.clone(), summary: summary.clone() };
        Ok(vec![record])
    };
    session.say(say).await?;
    session.close().await
}

async fn store(
    sink: &mut PackSink<'_>,
    encoder: &mut Encoder,
    segment: FinishedSegment,
    segments: &mut Vec<SegmentRef>,
) -> Result<()> {
    let FinishedSegment { plain, entry_count, first_key } = segment;
    let id = chunk_id(&plain);
    let plain_len = u32::try_from(plain.len()).expect("segments are small");
    let encoded = encoder.encode(&plain, None);
    sink.push(ObjectKind::MetaPack, id, plain_len, encoded.coding, encoded.payload).await?;
    segments.push(SegmentRef { chunk: id, plain_len, entry_count, first_key });
    Ok(())
}

fn entry_of(file: u64) -> Entry {
    let piece = |n| Piece { chunk: chunk(file * CHUNKS_PER_FILE + n), offset: 0, len: PLAIN_LEN };
    Entry {
        path: format!("part-{:03}/object-{file:09}", file / 10_000).into_bytes(),
        kind: EntryKind::File,
        transform: Transform::None,
        format: FileFormat::Opaque,
        stable: true,
        sparse: false,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: crate::clock::Timestamp::default(),
        size: u64::from(PLAIN_LEN) * CHUNKS_PER_FILE,
        hash: FileHash::from_bytes(*chunk(file | 1 << 45).as_bytes()),
        identity: SourceIdentity::from_bytes([1; SourceIdentity::LEN]),
        link_target: Vec::new(),
        pieces: Pieces::Direct((0..CHUNKS_PER_FILE).map(piece).collect()),
        extension: Vec::new(),
    }
}
