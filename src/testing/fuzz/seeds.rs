//! Small valid inputs for every target, out of real encoders. They are written into fuzz/corpus once and read from there.

use super::{len_u32, script};
use crate::clock::Timestamp;
use crate::codec::{Encoder, Hint, Level, Segment, chunk_id, object_hash};
use crate::format::Put;
use crate::format::config::{Chunking, Config, StoreFacts};
use crate::format::fragment::{Fragment, FragmentEntry, FragmentPack};
use crate::format::log_record::BackupSummary;
use crate::format::manifest::{Manifest, SegmentRef};
use crate::format::scrub::{ScrubFact, ScrubPart, ScrubResult};
use crate::format::segment::{
    Entry, EntryKind, FileFormat, Piece, Pieces, SegmentBuilder, Transform, encode_piece_list,
};
use crate::id::{
    ChunkId, FamilyId, FileHash, LineageId, ObjectKind, ObjectName, RepositoryId, SessionId, SourceIdentity,
};
use crate::pack::PackBuilder;
use crate::testing::tae_writer::SplitMix;

mod objects;

pub use objects::captured;

/// Inputs that a target accepts, made here. No target of this name: none.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "config" => configs(),
        "pack" => packs(),
        "fragment" => fragments(),
        "segment" => segments(),
        "piece_list" => piece_lists(),
        "manifest" => manifests(),
        "log_entry" => logs().into_iter().map(|(entry, _)| entry).collect(),
        "log_state" => logs().into_iter().map(|(_, state)| state).collect(),
        "scrub" => scrubs(),
        "tae_object" => objects::objects(),
        "tae_checkpoint" => objects::checkpoints(),
        "tae_names" => objects::names(),
        "framing" => framings(),
        "codec_decode" => payloads(),
        "codec_split" => splits(),
        "codec_cut" => cuts(),
        "lz4_walk" => walks(),
        "restore_path" => restore_paths(),
        "parse_bytes" => sizes(),
        _ => Vec::new(),
    }
}

const SESSION: SessionId = SessionId::from_bytes([0x51; 8]);
const FAMILY: FamilyId = FamilyId::from_bytes([0x22; 16]);

fn object_name(kind: ObjectKind, byte: u8) -> ObjectName {
    ObjectName { kind, hash: object_hash(&[byte]), session: SESSION }
}

fn random_bytes(number: u64, len: usize) -> Vec<u8> {
    let mut random = SplitMix(number);
    (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(len).collect()
}

/// Compresses well, but not to nothing.
fn text(lines: u32) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("{line:>6},customer {},paid\n", line * line % 97).into_bytes()).collect()
}

fn configs() -> Vec<Vec<u8>> {
    let plain = Config {
        repository: RepositoryId::from_bytes([0x11; 16]),
        family: FAMILY,
        created: Timestamp::from_nanos(1_700_000_000_000_000_000),
        mandatory_features: Vec::new(),
        optional_features: Vec::new(),
        chunking: Chunking::default(),
        pack_target: 32 << 20,
        level: 1,
        store: StoreFacts::default(),
        tool: "everpack".into(),
    };
    let store = StoreFacts { create_only: true, create_race_safe: true, single_writer: true, ..StoreFacts::default() };
    let full = Config { optional_features: vec!["deep".into(), "parity".into()], level: -7, store, ..plain.clone() };
    vec![plain.encode(), full.encode()]
}

fn packs() -> Vec<Vec<u8>> {
    let seal = |kind, chunks: &[&[u8]]| {
        let mut builder = PackBuilder::new(kind, FAMILY, 64 << 10);
        chunks.iter().for_each(|chunk| builder.push(chunk_id(chunk), len_u32(chunk.len()), 0, chunk));
        builder.seal().expect("a chunk was pushed").name(SESSION).stored.to_vec()
    };
    vec![
        seal(ObjectKind::DataPack, &[b"one"]),
        seal(ObjectKind::DataPack, &[b"", b"two", &text(10), &random_bytes(1, 100)]),
        seal(ObjectKind::MetaPack, &[&segments()[0], &piece_lists()[0]]),
    ]
}

fn fragments() -> Vec<Vec<u8>> {
    let entry = |id: u8, pack, offset| FragmentEntry {
        id: chunk_id(&[id]),
        pack,
        offset,
        stored_len: 100,
        plain_len: 300,
        coding: 1,
    };
    let kinds = [ObjectKind::DataPack, ObjectKind::MetaPack];
    let packs: Vec<_> =
        (0u8..).zip(kinds).map(|(i, kind)| FragmentPack { name: object_name(kind, i), size: 1 << 20 }).collect();
    let entries = (0..20).map(|i| entry(i / 2, u16::from(i) % 2, 36 + 152 * u32::from(i))).collect();
    vec![Fragment::default().encode(), Fragment { packs, entries }.encode()]
}

fn scrubs() -> Vec<Vec<u8>> {
    let results = [ScrubResult::Whole, ScrubResult::Damaged, ScrubResult::Missing];
    let kinds = [ObjectKind::DataPack, ObjectKind::MetaPack];
    let facts = (0u8..12).map(|i| ScrubFact {
        pack: object_name(kinds[usize::from(i) % 2], i),
        size: 1 << 20,
        time: Timestamp::from_nanos(1_700_000_000_000_000_000 + i64::from(i)),
        result: results[usize::from(i) % 3],
    });
    vec![ScrubPart::default().encode(), ScrubPart { facts: facts.collect() }.encode()]
}

fn piece(id: u8, offset: u32, len: u32) -> Piece {
    Piece { chunk: chunk_id(&[id]), offset, len }
}

fn entry(path: &[u8], kind: EntryKind) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        transform: Transform::None,
        format: FileFormat::Opaque,
        stable: false,
        sparse: false,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        mtime: Timestamp::from_nanos(7),
        size: 0,
        hash: FileHash::from_bytes([0; 32]),
        identity: SourceIdentity::from_bytes([0x1d; 16]),
        link_target: Vec::new(),
        pieces: Pieces::NONE,
        extension: Vec::new(),
    }
}

fn segments() -> Vec<Vec<u8>> {
    let hash = FileHash::from_bytes([0xf1; 32]);
    let lists = Pieces::Lists(vec![piece(1, 0, 52)]);
    let pieces = Pieces::Direct(vec![piece(2, 64, 100), piece(3, 0, 200)]);
    let entries = [
        Entry { size: 1 << 40, hash, pieces: lists, sparse: true, ..entry(b"a-b", EntryKind::File) },
        entry(b"a", EntryKind::Directory),
        Entry { link_target: b"../b".to_vec(), extension: b"xt".to_vec(), ..entry(b"a/link", EntryKind::Symlink) },
        Entry { size: 300, hash, pieces, transform: Transform::DiskCrc, ..entry(b"a/x\xff", EntryKind::File) },
        Entry { format: FileFormat::Tae, stable: true, hash, ..entry(b"b", EntryKind::File) },
    ];
    let build = |entries: &[Entry]| {
        let mut builder = SegmentBuilder::default();
        entries.iter().for_each(|entry| builder.push(entry).expect("sorted and fit"));
        builder.finish()
    };
    vec![build(&entries), build(&entries[1..3]), build(&[])]
}

fn piece_lists() -> Vec<Vec<u8>> {
    let pieces: Vec<_> = (0..20).map(|i| piece(i, u32::from(i) * 3, 100)).collect();
    vec![encode_piece_list(&pieces), encode_piece_list(&[])]
}

fn manifests() -> Vec<Vec<u8>> {
    let BackupSummary { lineage_name, source_kind, source_location, host, tags, totals, .. } =
        script::summary(&mut super::Choices(&[]));
    let segment = |id: u8| SegmentRef {
        chunk: ChunkId::from_bytes([id; 32]),
        plain_len: 1000,
        entry_count: 10,
        first_key: vec![b'a' + id, b'/'],
    };
    let full = Manifest {
        lineage: LineageId::from_bytes([0x4c; 16]),
        lineage_name,
        parent: Some(object_hash(b"parent")),
        started: Timestamp::from_nanos(1),
        finished: Timestamp::from_nanos(2),
        partial: true,
        source_kind,
        source_location,
        host,
        tool: "everpack".into(),
        tags,
        facts: vec![("release".into(), "4.2.0".into()), ("warning".into(), String::new())],
        totals,
        segments: (0..4).map(segment).collect(),
    };
    let small = Manifest { parent: None, tags: Vec::new(), facts: Vec::new(), segments: Vec::new(), ..full.clone() };
    vec![full.encode(), small.encode()]
}

/// Entries of logs chosen by random bytes, each with the state behind it, until every kind of record was there.
fn logs() -> Vec<(Vec<u8>, Vec<u8>)> {
    (1..4)
        .flat_map(|number| script::stored_log(&random_bytes(number, 200)))
        .filter(|(entry, _)| entry.len() > 200)
        .collect()
}

fn framings() -> Vec<Vec<u8>> {
    let mut framer = crate::tae::Framer::new();
    let mut input = Vec::new();
    for cut in [100, 1900, 48, 2048] {
        input.put_u32(cut);
    }
    let short = [&input[..], b"logical bytes"].concat();
    framer.feed(&random_bytes(3, 2500), &mut input);
    framer.finish(&mut input);
    vec![input, short]
}

/// An LZ4 block of some text, and how long that is.
fn block(lines: u32) -> (Vec<u8>, u32) {
    let plain = text(lines);
    (lz4_flex::block::compress(&plain), len_u32(plain.len()))
}

fn payloads() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(Level::default()).expect("zstd has memory");
    let mut code = |plain: &[u8], hint: Option<&Hint>| {
        let encoded = encoder.encode(plain, hint);
        let mut input = vec![encoded.coding];
        input.put_u32(len_u32(plain.len()));
        input.put(encoded.payload);
        input
    };
    let (long, _) = block(200);
    let (short, _) = block(20);
    let two = [&long[..], &short[..], b"footer"].concat();
    let lz4 = |bytes: &[u8]| Segment { len: len_u32(bytes.len()), lz4: true };
    let one = Hint { skip: 0, segments: vec![lz4(&long)] };
    let three = Hint { skip: 0, segments: vec![lz4(&long), lz4(&short), Segment { len: 6, lz4: false }] };
    let inside = Hint { skip: 3, segments: vec![lz4(&long[100..])] };
    vec![
        code(b"", None),
        code(b"raw", None),
        code(&text(50), None),
        code(&long, Some(&one)),
        code(&two, Some(&three)),
        code(&long[100..], Some(&inside)),
    ]
}

fn splits() -> Vec<Vec<u8>> {
    let (long, _) = block(200);
    let (short, _) = block(20);
    let input = |segments: &[(usize, bool)], skip: u16, plain: &[u8]| {
        let mut input = vec![u8::try_from(segments.len()).expect("a few")];
        for &(len, lz4) in segments {
            input.put_u16(u16::try_from(len).expect("short") | u16::from(lz4) << 15);
        }
        input.put_u16(skip);
        input.put(plain);
        input
    };
    let many: Vec<_> = (0..20).map(|_| (short.len(), true)).collect();
    vec![
        input(&[(long.len(), true)], 0, &long),
        input(&[(long.len(), true), (short.len(), true), (6, false)], 0, &[&long[..], &short, b"footer"].concat()),
        input(&[(long.len() - 100, true)], 7, &long[100..]),
        input(&many, 0, &short.repeat(20)[..short.len() * 20 - 5]),
        input(&[(100, false), (400, true)], 3, &random_bytes(4, 500)),
    ]
}

fn cuts() -> Vec<Vec<u8>> {
    let units = random_bytes(6, 100);
    (0u8..12)
        .map(|choice| [&[choice, 20 * choice, choice][..], &random_bytes(choice.into(), 700), &units].concat())
        .collect()
}

fn walks() -> Vec<Vec<u8>> {
    let walk = |block: &[u8], plain_len: u32| {
        let mut input = Vec::new();
        input.put_u32(plain_len);
        input.put(&[1, 2, 3, 0, 50, 255, 7, 100]);
        input.put(block);
        input
    };
    let noise = random_bytes(5, 300);
    let mut inputs = vec![walk(&[0], 0), walk(&lz4_flex::block::compress(&noise), 300)];
    for lines in [1, 20, 200] {
        let (block, plain_len) = block(lines);
        inputs.push(walk(&block, plain_len));
    }
    let zeros = lz4_flex::block::compress(&[0; 5000]);
    inputs.push(walk(&zeros, 5000));
    inputs
}

fn restore_paths() -> Vec<Vec<u8>> {
    let paths: [&[u8]; 9] =
        [b"a", b"mo-data/shared/a_00000", b"...", b"a/..b/c", b"\xff\n", b"../etc", b"/etc", b"a//b", b"a/./b"];
    let long = [&[b'n'; 255][..], b"/", &[b'm'; 256]].concat();
    paths.into_iter().map(<[u8]>::to_vec).chain([long]).collect()
}

fn sizes() -> Vec<Vec<u8>> {
    let texts = ["64K", "1.5 MiB", "0", "18446744073709551615", "16383P", " 7 gb ", ".5t", "1.2.3", "10 EiB"];
    texts.into_iter().map(|text| text.as_bytes().to_vec()).collect()
}
