use super::super::segment::{
    Entry, EntryKind, FileFormat, Piece, Pieces, SegmentBuilder, SegmentReader, Transform, decode_piece_list,
    encode_piece_list, for_each_chunk,
};
use super::super::testing::{
    assert_bytes, documented_bytes, every_flip_is_survived, every_truncation_is_corrupt, set_u32,
};
use super::golden::{PIECE_LIST, SEGMENT};
use super::{assert_corrupt, assert_unsupported};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::id::{ChunkId, FileHash, SourceIdentity};
use proptest::prelude::*;

fn piece(id: u8, offset: u32, len: u32) -> Piece {
    Piece { chunk: ChunkId::from_bytes([id; 32]), offset, len }
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
        mtime: Timestamp::from_nanos(3),
        size: 0,
        hash: FileHash::from_bytes([0; 32]),
        identity: SourceIdentity::from_bytes([0x1d; 16]),
        link_target: Vec::new(),
        pieces: Pieces::NONE,
        extension: Vec::new(),
    }
}

/// A file that sorts before the directory of which its name begins with the name, a file below it, and a link.
fn sample() -> Vec<Entry> {
    vec![
        Entry {
            size: 1 << 40,
            hash: FileHash::from_bytes([0xf1; 32]),
            pieces: Pieces::Lists(vec![piece(0xb1, 0, 52)]),
            sparse: true,
            ..entry(b"a-b", EntryKind::File)
        },
        Entry { mode: 0o755, ..entry(b"a", EntryKind::Directory) },
        Entry {
            size: 300,
            hash: FileHash::from_bytes([0xf2; 32]),
            transform: Transform::DiskCrc,
            format: FileFormat::Tae,
            stable: true,
            pieces: Pieces::Direct(vec![piece(0xb2, 64, 100), piece(0xb3, 0, 200)]),
            ..entry(b"a/x", EntryKind::File)
        },
        Entry { link_target: b"x".to_vec(), extension: b"xt".to_vec(), ..entry(b"a/y", EntryKind::Symlink) },
    ]
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut builder = SegmentBuilder::default();
    for entry in entries {
        builder.push(entry).unwrap();
    }
    let len = builder.len();
    let plain = builder.finish();
    assert_eq!(plain.len(), len);
    plain
}

fn decode(plain: &[u8]) -> Result<Vec<Entry>> {
    SegmentReader::new(plain)?.collect()
}

#[test]
fn stored_bytes_have_not_changed() {
    assert_bytes(&encode(&sample()), &SEGMENT, "encoded");
    assert_eq!(decode(&SEGMENT).unwrap(), sample());
    let list = [piece(0xb4, 7, 100), piece(0xb5, 0, 200)];
    assert_bytes(&encode_piece_list(&list), &PIECE_LIST, "encoded");
    assert_eq!(decode_piece_list(&PIECE_LIST).unwrap(), list);
    let page = include_str!("../../../docs/format/manifest.md");
    assert_bytes(&documented_bytes(page, "segment"), &SEGMENT, "page");
    assert_bytes(&documented_bytes(page, "piece-list"), &PIECE_LIST, "page");
}

#[test]
fn damage_is_refused_or_survived() {
    every_truncation_is_corrupt(&SEGMENT, decode);
    every_truncation_is_corrupt(&PIECE_LIST, decode_piece_list);
    every_flip_is_survived(&SEGMENT, decode);
    every_flip_is_survived(&SEGMENT, |plain| for_each_chunk(plain, |_, _| {}));
    every_flip_is_survived(&PIECE_LIST, decode_piece_list);
    assert_corrupt(decode(&[&SEGMENT[..], &[0]].concat()), "1 bytes too many");
    assert_corrupt(decode_piece_list(&[&PIECE_LIST[..], &[0]].concat()), "1 bytes too many");
}

#[test]
fn a_reader_ends_after_its_first_error() {
    // Names that belong to no entry are an error behind the last one, told once.
    let mut plain = SEGMENT.to_vec();
    let names_len = u32::from_le_bytes(plain[12..16].try_into().unwrap()) as usize;
    plain.splice(28 + names_len..28 + names_len, *b"extra");
    set_u32(&mut plain, 12, names_len + 5);
    let results: Vec<_> = SegmentReader::new(&plain).unwrap().take(100).map(|entry| entry.is_ok()).collect();
    assert_eq!(results, [true, true, true, true, false]);
    // Nothing is taken for an entry behind one that is damaged.
    plain[28] = 0;
    let results: Vec<_> = SegmentReader::new(&plain).unwrap().take(100).map(|entry| entry.is_ok()).collect();
    assert_eq!(results, [false]);
    let mut reader = SegmentReader::new(&SEGMENT[..]).unwrap();
    assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 4);
    assert!(reader.next().is_none());
}

#[test]
fn what_is_sealed_newer_or_unknown_is_refused_by_name() {
    let with = |at: usize, value: u8| {
        let mut plain = SEGMENT;
        plain[at] = value;
        decode(&plain)
    };
    assert_unsupported(with(4, 2), "format version 2");
    assert_unsupported(with(6, 1), "\"encryption\"");
    // The first entry's flags begin the names.
    assert_unsupported(with(28, 4), "kind 4");
    assert_unsupported(with(28, 0x81), "0x0081");
    assert_unsupported(with(29, 0x10), "0x1041");
    assert_eq!(with(29, 0x0f).unwrap()[0].format, FileFormat::Other(15));
    let mut list = PIECE_LIST;
    list[6] = 1;
    assert_unsupported(decode_piece_list(&list), "\"encryption\"");
}

#[test]
fn pieces_are_read_without_names() {
    let mut seen = Vec::new();
    // Every byte of the names is wrong, as it would be to whoever has no key for them.
    let mut plain = SEGMENT.to_vec();
    let names_len = u32::from_le_bytes(plain[12..16].try_into().unwrap()) as usize;
    plain[28..28 + names_len].fill(0xff);
    for_each_chunk(&plain, |piece, is_list| seen.push((piece, is_list))).unwrap();
    let expected = [(piece(0xb1, 0, 52), true), (piece(0xb2, 64, 100), false), (piece(0xb3, 0, 200), false)];
    assert_eq!(seen, expected);
}

#[test]
fn hostile_counts_allocate_nothing() {
    for at in [8, 12, 20] {
        let mut plain = SEGMENT.to_vec();
        set_u32(&mut plain, at, u32::MAX as usize);
        assert_eq!(decode(&plain).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(for_each_chunk(&plain, |_, _| {}).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let counts = SEGMENT.len() - 3 * 40 - 4 * 4;
    let mut plain = SEGMENT.to_vec();
    set_u32(&mut plain, counts, 0x7fff_ffff);
    assert_corrupt(decode(&plain), "an entry of 2147483647 pieces");
    // One piece too few: the rest has no owner.
    set_u32(&mut plain, counts, 0);
    assert_corrupt(decode(&plain), "manifest segment pieces: 32 bytes too many");
    assert_corrupt(for_each_chunk(&plain, |_, _| {}), "manifest segment pieces: 32 bytes too many");
    let mut list = PIECE_LIST.to_vec();
    set_u32(&mut list, 8, u32::MAX as usize);
    assert_corrupt(decode_piece_list(&list), "piece count: 4294967295");
}

#[test]
fn entries_are_stored_once_and_in_order() {
    let refuse = |entries: &[Entry]| {
        let mut builder = SegmentBuilder::default();
        let error = entries.iter().try_for_each(|entry| builder.push(entry)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        // And a reader refuses what a writer without that check would store.
        let parts: Vec<_> = entries.iter().map(|entry| encode(std::slice::from_ref(entry))).collect();
        let names: Vec<_> = parts.iter().map(|part| &part[28..part.len() - 4]).collect();
        let mut plain = parts[0][..28].to_vec();
        set_u32(&mut plain, 8, entries.len());
        set_u32(&mut plain, 12, names.iter().map(|names| names.len()).sum());
        set_u32(&mut plain, 20, entries.len() * 4);
        plain.extend(names.concat());
        plain.extend(vec![0; entries.len() * 4]);
        assert_corrupt(decode(&plain), "not sorted");
    };
    let file = |path: &[u8]| entry(path, EntryKind::File);
    refuse(&[file(b"a"), file(b"a")]);
    refuse(&[file(b"b"), file(b"a")]);
    refuse(&[file(b"ab"), file(b"a")]);
    refuse(&[entry(b"a", EntryKind::Directory), file(b"a-b")]);
    refuse(&[entry(b"a", EntryKind::Directory), entry(b"a", EntryKind::Directory)]);
    refuse(&[file(b""), file(b"")]);
    refuse(&[file(b"a/x"), entry(b"a", EntryKind::Directory)]);
}

#[test]
fn an_entry_that_no_reader_would_take_is_not_stored() {
    let refuse = |entry: Entry, why: &str| {
        let mut builder = SegmentBuilder::default();
        let error = builder.push(&entry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(why), "{error}");
        assert_eq!(builder.entry_count(), 0);
        assert_eq!(builder.len(), 28);
    };
    refuse(entry(&[b'x'; 65_536], EntryKind::File), "longer than 65535");
    refuse(Entry { size: 1, ..entry(b"a", EntryKind::File) }, "its size is 1");
    refuse(Entry { link_target: b"x".to_vec(), ..entry(b"a", EntryKind::File) }, "only a link");
    refuse(Entry { pieces: Pieces::Lists(vec![]), ..entry(b"a", EntryKind::Directory) }, "only a file");
    refuse(Entry { hash: FileHash::from_bytes([1; 32]), ..entry(b"a", EntryKind::Symlink) }, "only a file");
    refuse(Entry { format: FileFormat::Other(2), ..entry(b"a", EntryKind::File) }, "no number of its own");

    let longest = [entry(&[b'x'; 65_535], EntryKind::File)];
    assert_eq!(decode(&encode(&longest)).unwrap(), longest);
    // A path grown beyond by sharing.
    let mut plain = encode(&[entry(&[b'x'; 65_535], EntryKind::File), entry(b"y", EntryKind::File)]);
    let second = plain.len() - 8 - (2 + 2 + 4 + 1 + 4 * 3 + 8 + 8 + 16 + 32 + 4);
    plain[second + 2..second + 4].copy_from_slice(&[0xff, 0xff]);
    assert_corrupt(decode(&plain), "too long");
}

fn any_pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = (any::<[u8; 32]>(), any::<u32>(), any::<u32>());
    let piece = piece.prop_map(|(id, offset, len)| Piece { chunk: ChunkId::from_bytes(id), offset, len });
    prop::collection::vec(piece, 0..6)
}

prop_compose! {
    /// Few letters, so that paths share much; `\xff` and NUL among them.
    fn any_path()(letters in prop::collection::vec(0usize..6, 0..7)) -> Vec<u8> {
        letters.iter().map(|letter| b"ab/-\xff\0"[*letter]).collect()
    }
}

prop_compose! {
    fn any_entry()(
        path in any_path(),
        kind in 0usize..3,
        (disk_crc, stable, sparse, lists) in any::<(bool, bool, bool, bool)>(),
        format in 0u8..16,
        (mode, uid, gid, mtime, size) in any::<(u32, u32, u32, i64, u64)>(),
        hash in any::<[u8; 32]>(),
        identity in any::<[u8; 16]>(),
        link_target in any_path(),
        pieces in any_pieces(),
        extension in any_path(),
    ) -> Entry {
        let kind = [EntryKind::File, EntryKind::Directory, EntryKind::Symlink][kind];
        let is_file = kind == EntryKind::File;
        let sum = pieces.iter().map(|piece| u64::from(piece.len)).sum();
        let direct = is_file && !lists;
        Entry {
            transform: if disk_crc { Transform::DiskCrc } else { Transform::None },
            format: match format {
                0 => FileFormat::Opaque,
                1 => FileFormat::Tae,
                2 => FileFormat::InnoDb,
                code => FileFormat::Other(code),
            },
            stable,
            sparse,
            mode,
            uid,
            gid,
            mtime: Timestamp::from_nanos(mtime),
            size: if direct { sum } else { size },
            hash: FileHash::from_bytes(if is_file { hash } else { [0; 32] }),
            identity: SourceIdentity::from_bytes(identity),
            link_target: if kind == EntryKind::Symlink { link_target } else { Vec::new() },
            pieces: match (is_file, lists) {
                (true, true) => Pieces::Lists(pieces),
                (true, false) => Pieces::Direct(pieces),
                _ => Pieces::NONE,
            },
            extension,
            ..entry(&path, kind)
        }
    }
}

fn sort_key(entry: &Entry) -> Vec<u8> {
    entry.sort_key().collect()
}

proptest! {
    #[test]
    fn any_segment_comes_back(mut entries in prop::collection::vec(any_entry(), 0..30)) {
        entries.sort_by_key(sort_key);
        entries.dedup_by_key(|entry| sort_key(entry));
        let plain = encode(&entries);
        let mut pieces = Vec::new();
        for_each_chunk(&plain, |piece, is_list| pieces.push((piece, is_list))).unwrap();
        let expected: Vec<_> = entries
            .iter()
            .flat_map(|entry| entry.pieces.as_slice().iter().map(|piece| (*piece, matches!(entry.pieces, Pieces::Lists(_)))))
            .collect();
        prop_assert_eq!(pieces, expected);
        prop_assert_eq!(decode(&plain).unwrap(), entries);
    }

    #[test]
    fn order_is_checked_as_the_keys_say(a in any_entry(), b in any_entry()) {
        let mut builder = SegmentBuilder::default();
        builder.push(&a).unwrap();
        prop_assert_eq!(builder.push(&b).is_ok(), sort_key(&a) < sort_key(&b));
    }

    #[test]
    fn any_piece_list_comes_back(pieces in any_pieces()) {
        prop_assert_eq!(decode_piece_list(&encode_piece_list(&pieces)).unwrap(), pieces);
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..200), entries in 0u32..4) {
        let head = [b"EvSg", &[1, 0, 0, 0][..], &entries.to_le_bytes()].concat();
        let take = bytes.len().min(head.len());
        bytes[..take].copy_from_slice(&head[..take]);
        std::hint::black_box(decode(&bytes).is_ok());
    }
}
