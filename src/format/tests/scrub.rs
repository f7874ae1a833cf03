use super::super::scrub::{ScrubFact, ScrubPart, ScrubResult};
use super::super::testing::{
    assert_bytes, documented_bytes, every_flip_is_refused, every_truncation_is_corrupt, fix_checksum, set_u32,
};
use super::golden::SCRUB;
use super::{assert_corrupt, assert_unsupported, name};
use crate::clock::Timestamp;
use crate::id::ObjectKind;
use proptest::prelude::*;

fn fact(kind: ObjectKind, byte: u8, size: u64, time: i64, result: ScrubResult) -> ScrubFact {
    ScrubFact { pack: name(kind, byte), size, time: Timestamp::from_nanos(time), result }
}

fn sample() -> ScrubPart {
    ScrubPart {
        facts: vec![
            fact(ObjectKind::DataPack, 0xd1, 1000, 5, ScrubResult::Whole),
            fact(ObjectKind::DataPack, 0xd2, 2000, 6, ScrubResult::Damaged),
            fact(ObjectKind::MetaPack, 0xe1, 400, 7, ScrubResult::Missing),
        ],
    }
}

fn refix(stored: &mut [u8]) {
    let end = stored.len();
    fix_checksum(stored, 24..end, 16);
    fix_checksum(stored, 0..20, 20);
}

#[test]
fn stored_bytes_have_not_changed() {
    let mut shuffled = sample();
    shuffled.facts.reverse();
    assert_bytes(&shuffled.encode(), &SCRUB, "encoded");
    assert_eq!(ScrubPart::decode(&SCRUB).unwrap(), sample());
    assert_bytes(&documented_bytes(include_str!("../../../docs/format/scrub.md"), "scrub"), &SCRUB, "page");
}

#[test]
fn of_one_pack_the_newest_fact_is_written() {
    let mut part = sample();
    part.facts.push(fact(ObjectKind::DataPack, 0xd2, 2000, 3, ScrubResult::Whole));
    part.facts.insert(0, fact(ObjectKind::DataPack, 0xd2, 2000, 5, ScrubResult::Whole));
    assert_bytes(&part.encode(), &SCRUB, "encoded");
}

#[test]
fn damage_is_refused() {
    every_truncation_is_corrupt(&SCRUB, ScrubPart::decode);
    every_flip_is_refused(&SCRUB, ScrubPart::decode);
}

#[test]
fn a_longer_body_is_read_by_its_known_beginning() {
    let mut stored = [&SCRUB[..], b"who read it, say"].concat();
    assert_corrupt(ScrubPart::decode(&stored), "checksum");
    refix(&mut stored);
    assert_eq!(ScrubPart::decode(&stored).unwrap(), sample());
}

#[test]
fn what_is_sealed_newer_or_unknown_is_refused_by_name() {
    let changed = |at: usize, value: u8| {
        let mut stored = SCRUB.to_vec();
        stored[at] = value;
        refix(&mut stored);
        ScrubPart::decode(&stored)
    };
    assert_unsupported(changed(10, 1), "\"encryption\"");
    assert_unsupported(changed(8, 9), "format version 9");
    assert_unsupported(changed(25, 4), "result 4");
    assert_unsupported(changed(26, 2), "0x0002");
}

#[test]
fn facts_that_cannot_be_are_refused() {
    let mut stored = SCRUB.to_vec();
    stored[24] = 3;
    refix(&mut stored);
    assert_corrupt(ScrubPart::decode(&stored), "is not a pack");
    let mut stored = SCRUB.to_vec();
    stored.copy_within(24..84, 84);
    refix(&mut stored);
    assert_corrupt(ScrubPart::decode(&stored), "not sorted");
}

#[test]
fn hostile_counts_allocate_nothing() {
    for count in [4, 1 << 20, u32::MAX] {
        let mut stored = SCRUB.to_vec();
        set_u32(&mut stored, 12, count as usize);
        refix(&mut stored);
        assert_corrupt(ScrubPart::decode(&stored), "do not hold");
    }
}

proptest! {
    #[test]
    fn any_part_comes_back(rows in prop::collection::vec((any::<u8>(), any::<u64>(), any::<i64>(), 0u8..3), 0..40)) {
        let results = [ScrubResult::Whole, ScrubResult::Damaged, ScrubResult::Missing];
        let facts = rows.iter().map(|(byte, size, time, result)| {
            fact(ObjectKind::DataPack, *byte, *size, *time, results[usize::from(*result)])
        });
        let mut part = ScrubPart { facts: facts.collect() };
        let stored = part.encode();
        prop_assert_eq!(ScrubPart::decode(&stored).unwrap(), part);
    }
}
