use super::super::fragment::{Fragment, FragmentEntry, FragmentPack};
use super::super::testing::{
    assert_bytes, documented_bytes, every_flip_is_refused, every_truncation_is_corrupt, fix_checksum, set_u32,
};
use super::golden::FRAGMENT;
use super::{assert_corrupt, assert_unsupported, name};
use crate::id::{ChunkId, ObjectKind};
use proptest::prelude::*;

fn entry(id: u8, pack: u16, offset: u32) -> FragmentEntry {
    FragmentEntry { id: ChunkId::from_bytes([id; 32]), pack, offset, stored_len: 100, plain_len: 200, coding: 0x12 }
}

fn sample() -> Fragment {
    Fragment {
        packs: vec![
            FragmentPack { name: name(ObjectKind::DataPack, 0xd1), size: 1000 },
            FragmentPack { name: name(ObjectKind::MetaPack, 0xe1), size: 400 },
        ],
        entries: vec![entry(0xa1, 0, 36), entry(0xa1, 1, 36), entry(0xa2, 0, 188)],
    }
}

fn refix(stored: &mut [u8]) {
    let end = stored.len();
    fix_checksum(stored, 28..end, 20);
    fix_checksum(stored, 0..24, 24);
}

#[test]
fn stored_bytes_have_not_changed() {
    let mut shuffled = sample();
    shuffled.entries.reverse();
    assert_bytes(&shuffled.encode(), &FRAGMENT, "encoded");
    assert_eq!(Fragment::decode(&FRAGMENT).unwrap(), sample());
    assert_bytes(&documented_bytes(include_str!("../../../docs/format/fragment.md"), "fragment"), &FRAGMENT, "page");
}

#[test]
fn damage_is_refused() {
    every_truncation_is_corrupt(&FRAGMENT, Fragment::decode);
    every_flip_is_refused(&FRAGMENT, Fragment::decode);
}

#[test]
fn a_longer_body_is_read_by_its_known_beginning() {
    let mut stored = [&FRAGMENT[..], b"a filter, say"].concat();
    assert_corrupt(Fragment::decode(&stored), "checksum");
    refix(&mut stored);
    assert_eq!(Fragment::decode(&stored).unwrap(), sample());
}

#[test]
fn what_is_sealed_newer_or_unknown_is_refused_by_name() {
    let mut stored = FRAGMENT;
    stored[10] = 1;
    assert_unsupported(Fragment::decode(&stored), "\"encryption\"");
    stored[8] = 9;
    assert_unsupported(Fragment::decode(&stored), "format version 9");
    // The flags of the first entry.
    let mut stored = FRAGMENT;
    stored[28 + 2 * 52 + 35] = 2;
    refix(&mut stored);
    assert_unsupported(Fragment::decode(&stored), "0x0002");
}

#[test]
fn entries_that_cannot_be_are_refused() {
    let refuse = |change: fn(&mut Fragment), why: &str| {
        let mut fragment = sample();
        change(&mut fragment);
        assert_corrupt(Fragment::decode(&fragment.encode()), why);
    };
    refuse(|fragment| fragment.entries[0].pack = 2, "pack 2 of 2");
    refuse(|fragment| fragment.entries[0].offset = 35, "does not lie in");
    refuse(|fragment| fragment.entries[2].stored_len = 761, "does not lie in");
    refuse(|fragment| fragment.entries[0].offset = u32::MAX, "does not lie in");
    refuse(|fragment| fragment.entries[0].plain_len = u32::MAX, "too long");
    refuse(|fragment| fragment.entries.push(entry(0xa1, 0, 36)), "not sorted");
    refuse(|fragment| fragment.packs[0].name.kind = ObjectKind::Fragment, "is not a pack");
    // Swapped by somebody who does not sort.
    let mut stored = FRAGMENT.to_vec();
    let first = 28 + 2 * 52;
    stored.copy_within(first..first + 48, first + 96);
    refix(&mut stored);
    assert_corrupt(Fragment::decode(&stored), "not sorted");
}

#[test]
fn hostile_counts_allocate_nothing() {
    for (packs, entries) in [(2, u32::MAX), (u32::MAX, 3), (65_536, 0), (u32::MAX, u32::MAX)] {
        let mut stored = FRAGMENT.to_vec();
        set_u32(&mut stored, 12, packs as usize);
        set_u32(&mut stored, 16, entries as usize);
        refix(&mut stored);
        assert_corrupt(Fragment::decode(&stored), "do not hold");
    }
}

proptest! {
    #[test]
    fn any_fragment_comes_back(rows in prop::collection::vec((any::<[u8; 32]>(), 0u16..3, 36u32..1 << 20, any::<u8>()), 0..40)) {
        let packs = [1, 2, 3].map(|byte| FragmentPack { name: name(ObjectKind::DataPack, byte), size: 2 << 20 });
        let mut fragment = Fragment { packs: packs.to_vec(), entries: Vec::new() };
        fragment.entries.extend(rows.iter().map(|(id, pack, offset, coding)| FragmentEntry {
            id: ChunkId::from_bytes(*id),
            pack: *pack,
            offset: *offset,
            stored_len: u32::from(*coding) * 100,
            plain_len: u32::from(*coding) * 300,
            coding: *coding,
        }));
        let stored = fragment.encode();
        prop_assert_eq!(Fragment::decode(&stored).unwrap(), fragment);
    }
}
