use super::super::manifest::{Manifest, SegmentRef, Totals};
use super::super::testing::{
    assert_bytes, documented_bytes, every_flip_is_refused, every_truncation_is_corrupt, fix_checksum, set_u32,
};
use super::golden::MANIFEST;
use super::{assert_corrupt, assert_unsupported};
use crate::clock::Timestamp;
use crate::id::{ChunkId, LineageId, ObjectHash};

const HEADER: usize = 32;

fn sample() -> Manifest {
    let segment = |id, first_key: &[u8]| SegmentRef {
        chunk: ChunkId::from_bytes([id; 32]),
        plain_len: 1000,
        entry_count: 3,
        first_key: first_key.to_vec(),
    };
    Manifest {
        lineage: LineageId::from_bytes([0x4c; 16]),
        lineage_name: "shop".into(),
        parent: Some(ObjectHash::from_bytes([0x9a; 32])),
        started: Timestamp::from_nanos(1),
        finished: Timestamp::from_nanos(2),
        partial: true,
        source_kind: "directory".into(),
        source_location: "/d".into(),
        host: "h1".into(),
        tool: "everpack 0.1.0".into(),
        tags: vec!["t".into()],
        facts: vec![("release".into(), "v3".into())],
        totals: Totals { files: 4, directories: 2, symlinks: 0, bytes: 9 },
        // `a-b` stands before the directory `a`, whose key is `a/`.
        segments: vec![segment(0xb1, b"a-b"), segment(0xb2, b"a/")],
    }
}

/// Appends to the body and to the names, and makes all lengths and checksums fit.
fn grown(body_more: &[u8], names_more: &[u8]) -> Vec<u8> {
    let body_len = u32::from_le_bytes(MANIFEST[12..16].try_into().unwrap()) as usize;
    let (body, names) = MANIFEST[HEADER..].split_at(body_len);
    let mut stored = [&MANIFEST[..HEADER], body, body_more, names, names_more].concat();
    let names_at = HEADER + body_len + body_more.len();
    set_u32(&mut stored, 12, body_len + body_more.len());
    set_u32(&mut stored, 16, names.len() + names_more.len());
    let end = stored.len();
    fix_checksum(&mut stored, HEADER..names_at, 20);
    fix_checksum(&mut stored, names_at..end, 24);
    fix_checksum(&mut stored, 0..28, 28);
    stored
}

#[test]
fn stored_bytes_have_not_changed() {
    assert_bytes(&sample().encode(), &MANIFEST, "encoded");
    assert_eq!(Manifest::decode(&MANIFEST).unwrap(), sample());
    assert_bytes(&documented_bytes(include_str!("../../../docs/format/manifest.md"), "manifest"), &MANIFEST, "page");
}

#[test]
fn damage_is_refused() {
    every_truncation_is_corrupt(&MANIFEST, Manifest::decode);
    every_flip_is_refused(&MANIFEST, Manifest::decode);
    assert_corrupt(Manifest::decode(&[&MANIFEST[..], &[0]].concat()), "1 bytes too many");
}

#[test]
fn a_longer_body_is_read_by_its_known_beginning() {
    for (body, names) in [(&b"more"[..], &b""[..]), (b"", b"more"), (b"more", b"and more")] {
        assert_eq!(Manifest::decode(&grown(body, names)).unwrap(), sample());
    }
}

#[test]
fn what_is_sealed_or_newer_is_refused_by_name() {
    let mut stored = MANIFEST;
    stored[10] = 1;
    assert_unsupported(Manifest::decode(&stored), "\"encryption\"");
    stored[8] = 2;
    assert_unsupported(Manifest::decode(&stored), "format version 2");
}

#[test]
fn segments_must_ascend() {
    let mut manifest = sample();
    manifest.segments.swap(0, 1);
    assert_corrupt(Manifest::decode(&manifest.encode()), "not sorted");
    let mut manifest = sample();
    manifest.segments[1] = manifest.segments[0].clone();
    assert_corrupt(Manifest::decode(&manifest.encode()), "not sorted");
}

#[test]
fn a_backup_without_parent_tags_or_entries_comes_back() {
    let manifest = Manifest { parent: None, tags: vec![], facts: vec![], segments: vec![], partial: false, ..sample() };
    assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
}

#[test]
fn a_hostile_count_allocates_nothing() {
    let mut stored = grown(b"", b"");
    let body_len = u32::from_le_bytes(stored[12..16].try_into().unwrap()) as usize;
    // The segment count stands before two segments of 40 bytes.
    set_u32(&mut stored, HEADER + body_len - 84, u32::MAX as usize);
    fix_checksum(&mut stored, HEADER..HEADER + body_len, 20);
    fix_checksum(&mut stored, 0..28, 28);
    assert_corrupt(Manifest::decode(&stored), "segment count: 4294967295");
}
