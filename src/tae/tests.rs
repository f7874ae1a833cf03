//! Hand-built objects, whole and damaged.

use super::sample::Sample;
use super::vector::tests::encode;
use super::*;
use crate::error::Result;

fn name() -> TaeName {
    TaeName::parse(b"018f7a41-1881-7999-bbd6-858c3d4acc18_00000").unwrap()
}

/// Two blocks of two rows and one row: int32 and varchar.
fn sample() -> Sample {
    let ints = encode(0, 22, 2, &[1, 0, 0, 0, 2, 0, 0, 0], &[], &[1]);
    let mut cells = vec![0; 48];
    cells[..4].copy_from_slice(b"\x03abc");
    let texts = encode(0, 61, 2, &cells, &[], &[]);
    let second = vec![(22, encode(0, 22, 1, &[9, 0, 0, 0], &[], &[])), (61, encode(0, 61, 1, &cells[..24], &[], &[]))];
    Sample::named(&name(), vec![(2, vec![(22, ints), (61, texts)]), (1, second)])
}

pub(super) fn layout(bytes: &[u8]) -> Result<ObjectLayout, NotTae> {
    ObjectLayout::read(&bytes).unwrap()
}

#[test]
fn a_hand_built_object_is_mapped() {
    let bytes = sample().build();
    assert_eq!(bytes[..10], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 0]);
    let layout = layout(&bytes).unwrap();
    assert_eq!(layout.file_len(), bytes.len() as u64);
    assert_eq!(layout.data_extents().len(), 4);
    assert_eq!(layout.filter_extents().iter().map(|e| e.lz4).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!(layout.extent_count(), 9);
    let regions = [layout.header(), layout.data(), layout.filters(), layout.meta(), layout.footer()];
    assert_eq!(regions[0].start, 0);
    for pair in regions.windows(2) {
        assert_eq!(pair[0].end, pair[1].start);
    }
    assert_eq!(layout.footer(), bytes.len() as u64 - 64..bytes.len() as u64);
    assert!(layout.belongs_to(&name()));
    assert!(!layout.belongs_to(&TaeName { num: 1, ..name() }));
    // 4 + 34 + slot 0 (179 + 2·124 + 4 + 2·8 + 2·(179 + 2·124)) + slot 1 (179 + 4)
    assert_eq!(layout.meta_extent().plain_len, 38 + 179 + 248 + 20 + 2 * 427 + 183);
}

#[test]
fn a_hand_built_object_is_described_and_valid() {
    let bytes = sample().build();
    let description = describe(&bytes, Some(&name())).unwrap().unwrap();
    assert_eq!(description.kind, ObjectKind::TableData);
    assert_eq!((description.rows, description.blocks.len(), description.schema_version), (3, 2, 7));
    assert_eq!(description.columns.iter().map(|c| c.data_type.to_string()).collect::<Vec<_>>(), ["int32", "varchar"]);
    assert_eq!(description.bloom_bytes, 4 + 4 + 3 * 8 + 16);
    assert!(description.findings.is_empty(), "{:?}", description.findings);
    let json = serde_json::to_value(&description).unwrap();
    assert_eq!(json["owner"]["object"], name().to_string());

    let report = validate(&bytes, Validation::Decode).unwrap().unwrap();
    assert_eq!((report.extents, report.lz4_extents), (9, 7));
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let other = TaeName { num: 3, ..name() };
    let findings = describe(&bytes, Some(&other)).unwrap().unwrap().findings;
    assert!(findings[0].what.contains("is named"), "{findings:?}");
}

#[test]
fn special_writers_are_known_by_their_tags() {
    let owner = |tag: &[u8; 16]| {
        let mut sample = sample();
        sample.id = [0; 18];
        sample.id[..16].copy_from_slice(tag);
        layout(&sample.build()).unwrap()
    };
    assert_eq!(owner(b"CheckPoint_MetaX").owner(), Owner::CheckpointMeta);
    assert_eq!(owner(b"Disk_CleanerXXXX").owner(), Owner::DiskCleaner);
    let rewritten = owner(b"Writer_ETLXXXXXX");
    assert!(rewritten.belongs_to(&TaeName { num: 1000, ..name() }));
    assert!(!rewritten.belongs_to(&name()));
}

#[test]
fn wrong_rows_and_broken_lz4_are_found() {
    let mut sample = sample();
    sample.blocks[0].0 = 3;
    let report = validate(&sample.build(), Validation::Decode).unwrap().unwrap();
    assert_eq!(report.findings.len(), 2);
    assert!(report.findings[0].what.contains("2 rows, its block 3"), "{:?}", report.findings);
    let description = describe(&sample.build(), None).unwrap().unwrap();
    assert!(description.findings.is_empty(), "its header says the same");

    let mut bytes = super::tests::sample().build();
    let extent = layout(&bytes).unwrap().data_extents()[1];
    // A token that promises more literals than the extent has.
    bytes[usize::try_from(extent.offset).unwrap()] = 0xf0;
    bytes[usize::try_from(extent.offset).unwrap() + 1] = 0xff;
    let report = validate(&bytes, Validation::Decode).unwrap().unwrap();
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].severity, Severity::Damage);
    assert!(report.findings[0].place.starts_with("block 1, column 0 (int32)"), "{:?}", report.findings);
}

#[test]
fn walking_gives_every_lz4_extent_and_notes_what_it_says() {
    let bytes = sample().build();
    let mut seen = Vec::new();
    let mut walk = |extent: &DataExtent, stored: &[u8]| {
        seen.push(*extent);
        assert_eq!(stored.len(), extent.stored_len as usize);
        if seen.len() == 2 { Err("the second is bad".to_owned()) } else { Ok(()) }
    };
    let report = validate(&bytes, Validation::Walk(&mut walk)).unwrap().unwrap();
    assert_eq!(report.findings.len(), 1);
    let layout = layout(&bytes).unwrap();
    let expected: Vec<_> =
        layout.data_extents().iter().chain(layout.filter_extents()).filter(|e| e.lz4).copied().collect();
    assert_eq!(seen, expected);
}

#[test]
fn what_is_no_object_is_told_apart_from_a_damaged_one() {
    assert!(!layout(b"").unwrap_err().begins_like_one);
    assert!(!layout(&[0; 500]).unwrap_err().begins_like_one);
    let bytes = sample().build();
    for len in 0..bytes.len() {
        assert_eq!(layout(&bytes[..len]).unwrap_err().begins_like_one, len >= 128, "{len}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(layout(&longer).unwrap_err().begins_like_one);
}

/// A meta that points to extents which overlap or leave a gap.
#[test]
fn extents_must_tile() {
    let bytes = sample().build();
    let meta = layout(&bytes).unwrap().meta_extent();
    let plain = lz4_flex::block::decompress(
        &bytes[usize::try_from(meta.offset).unwrap()..bytes.len() - 64],
        meta.plain_len as usize,
    )
    .unwrap();
    let first_extent = 38 + 179 + 248 + 20 + 179 + 11;
    for (at, reason) in [(first_extent + 1, "gap"), (first_extent + 5, "overlap"), (first_extent, "compression")] {
        let mut plain = plain.clone();
        plain[at] += 5;
        let mut file = bytes[..usize::try_from(meta.offset).unwrap()].to_vec();
        let stored = lz4_flex::block::compress(&plain);
        file[15..19].copy_from_slice(&u32::try_from(stored.len()).unwrap().to_le_bytes());
        file.extend_from_slice(&stored);
        file.extend_from_slice(&[0; 64]);
        let not_tae = layout(&file).unwrap_err();
        assert!(not_tae.begins_like_one);
        assert!(not_tae.reason.contains(reason) || reason == "gap" && not_tae.reason.contains("overlap"), "{not_tae}");
    }
}

/// Reads everything that can be read of bytes that may be anything.
pub(super) fn read_all(bytes: &[u8]) {
    let bytes = &bytes;
    let _any = ObjectLayout::read(bytes).unwrap();
    let _any = describe(bytes, Some(&name())).unwrap();
    let _any = list_extents(bytes).unwrap();
    let _any = validate(bytes, Validation::Decode).unwrap();
    let _any = read_checkpoint_rows(bytes);
    let _any = read_index(bytes);
    let _any = read_object_rows(bytes, &mut |_| Ok(()));
}

/// The same file with another meta, its bytes changed after decoding, where mutations reach the parser.
pub(super) fn with_mutated_meta(bytes: &[u8], mutate: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let meta = layout(bytes).unwrap().meta_extent();
    let at = usize::try_from(meta.offset).unwrap();
    let mut plain = lz4_flex::block::decompress(&bytes[at..bytes.len() - 64], meta.plain_len as usize).unwrap();
    mutate(&mut plain);
    let stored = lz4_flex::block::compress(&plain);
    let mut file = bytes[..at].to_vec();
    file[15..19].copy_from_slice(&u32::try_from(stored.len()).unwrap().to_le_bytes());
    file.extend_from_slice(&stored);
    file.extend_from_slice(&[0; 64]);
    file
}

#[test]
fn mutations_of_a_hand_built_object_never_panic() {
    let bytes = sample().build();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x80, 0xff] {
            let mut mutated = bytes.clone();
            mutated[at] = value;
            read_all(&mutated);
        }
    }
    for at in 0..layout(&bytes).unwrap().meta_extent().plain_len as usize {
        for value in [0, 1, 0x80, 0xff] {
            read_all(&with_mutated_meta(&bytes, |plain| plain[at] = value));
        }
    }
}
