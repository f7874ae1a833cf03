use super::super::pack::{PackHeader, PackTrailer, RecordHeader, TableEntry, decode_table, encode_table};
use super::super::testing::{
    assert_bytes, documented_bytes, every_flip_is_refused, every_truncation_is_corrupt, fix_checksum, set_u32,
};
use super::golden::PACK;
use super::{assert_corrupt, assert_unsupported};
use crate::error::{Error, Result};
use crate::id::{ChunkId, FamilyId, ObjectKind};

fn records() -> [(RecordHeader, &'static [u8]); 2] {
    let record = |id, stored_len, plain_len, coding| RecordHeader {
        id: ChunkId::from_bytes([id; 32]),
        stored_len,
        plain_len,
        coding,
    };
    [(record(0xa1, 5, 5, 0), b"hello"), (record(0xa2, 3, 4096, 1), b"zzz")]
}

/// A pack of two chunks, whose payloads nobody decodes here.
fn sample() -> Vec<u8> {
    let header = PackHeader { kind: ObjectKind::DataPack, family: FamilyId::from_bytes([0x22; 16]) };
    let mut stored = header.encode();
    let mut table = Vec::new();
    for (record, payload) in records() {
        table.push(TableEntry { record, offset: u32::try_from(stored.len()).unwrap() });
        stored.extend_from_slice(&record.encode());
        stored.extend_from_slice(payload);
    }
    let trailer = PackTrailer {
        table_offset: u32::try_from(stored.len()).unwrap(),
        count: 2,
        table_checksum: crc32c::crc32c(&encode_table(&table)),
    };
    stored.extend_from_slice(&encode_table(&table));
    stored.extend_from_slice(&trailer.encode());
    stored
}

/// Everything of a pack but the payloads.
fn decode(stored: &[u8]) -> Result<(PackHeader, Vec<TableEntry>)> {
    let header = PackHeader::decode(stored)?;
    let short = || Error::corrupt("pack: too short");
    let at = stored.len().checked_sub(PackTrailer::LEN).ok_or_else(short)?;
    let trailer = PackTrailer::decode(&stored[at..], stored.len() as u64)?;
    let table = decode_table(stored.get(trailer.table_offset as usize..at).ok_or_else(short)?, &trailer)?;
    for entry in &table {
        let record = RecordHeader::decode(stored.get(entry.offset as usize..).ok_or_else(short)?)?;
        if record != entry.record {
            return Err(Error::corrupt("record and table differ"));
        }
    }
    Ok((header, table))
}

#[test]
fn stored_bytes_have_not_changed() {
    assert_bytes(&sample(), &PACK, "encoded");
    let (header, table) = decode(&PACK).unwrap();
    assert_eq!(header, PackHeader { kind: ObjectKind::DataPack, family: FamilyId::from_bytes([0x22; 16]) });
    assert_eq!(
        table.iter().map(|entry| (entry.offset, entry.record)).collect::<Vec<_>>(),
        [(36, records()[0].0), (93, records()[1].0)]
    );
    assert_bytes(&documented_bytes(include_str!("../../../docs/format/pack.md"), "pack"), &PACK, "page");
}

#[test]
fn damage_is_refused() {
    every_truncation_is_corrupt(&PACK, decode);
    let payloads = [88..93, 145..148];
    every_flip_is_refused(&PACK, |stored| match decode(stored) {
        // A payload is verified by its chunk's id, which is not done here.
        Ok(_) if payloads.iter().any(|range| stored[range.clone()] != PACK[range.clone()]) => {
            Err(Error::corrupt("payload"))
        }
        other => other,
    });
    every_truncation_is_corrupt(&PACK[36..88], RecordHeader::decode);
    every_flip_is_refused(&PACK[36..88], RecordHeader::decode);
    every_truncation_is_corrupt(&PACK[..36], PackHeader::decode);
}

#[test]
fn what_is_sealed_newer_or_unknown_is_refused_by_name() {
    let with = |at: usize, value: u8| {
        let mut stored = PACK;
        stored[at] = value;
        stored
    };
    assert_unsupported(PackHeader::decode(&with(8, 2)), "format version 2");
    assert_unsupported(PackHeader::decode(&with(10, 1)), "\"encryption\"");
    assert_unsupported(RecordHeader::decode(&with(36 + 8, 1)[36..]), "\"encryption\"");
    assert_unsupported(RecordHeader::decode(&with(36 + 8, 2)[36..]), "0x0002");
    // Whoever reads from the end never sees the header.
    let trailer = PACK.len() - PackTrailer::LEN;
    let tail = |at, value| PackTrailer::decode(&with(trailer + at, value)[trailer..], PACK.len() as u64);
    assert_unsupported(tail(12, 2), "format version 2");
    assert_unsupported(tail(14, 1), "\"encryption\"");
}

#[test]
fn records_must_tile_the_pack_and_be_of_bearable_length() {
    let refuse = |at: usize, value: u32, why: &str| {
        let mut stored = PACK.to_vec();
        let (table, trailer) = (148, PACK.len() - PackTrailer::LEN);
        set_u32(&mut stored, at, value as usize);
        fix_checksum(&mut stored, table..trailer, trailer + 8);
        fix_checksum(&mut stored, trailer..trailer + 16, trailer + 16);
        assert_corrupt(decode(&stored), why);
    };
    refuse(148 + 48 + 32, 94, "a record at 94, the one before ends at 93");
    refuse(148 + 36, 6, "the one before ends at 94");
    refuse(148 + 48 + 36, 2, "the records end at 147");
    refuse(148 + 48 + 40, u32::MAX, "too long");
    refuse(148 + 48 + 36, u32::MAX, "too long");
    // The trailer's count and offset must fill the pack exactly, also where 32 bits would wrap.
    refuse(244 + 4, 3, "does not fit a pack of");
    refuse(244 + 4, u32::MAX, "does not fit a pack of");
    refuse(244, u32::MAX, "does not fit a pack of");

    let mut record = PACK[36..88].to_vec();
    set_u32(&mut record, 12, u32::MAX as usize);
    fix_checksum(&mut record, 0..48, 48);
    assert_corrupt(RecordHeader::decode(&record), "too long");
}

#[test]
fn only_packs_are_packs() {
    let stored = PackHeader { kind: ObjectKind::Manifest, family: FamilyId::from_bytes([0; 16]) }.encode();
    assert_corrupt(PackHeader::decode(&stored), "a manifest is not a pack");
}

#[test]
fn an_empty_table_is_a_table() {
    let trailer = PackTrailer { table_offset: 36, count: 0, table_checksum: crc32c::crc32c(&[]) };
    assert_eq!(PackTrailer::decode(&trailer.encode(), 64).unwrap(), trailer);
    assert_eq!(decode_table(&[], &trailer).unwrap(), []);
}
