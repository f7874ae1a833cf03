//! Targets of everything in `format`, and of packs as a whole.

use super::repair::{self, Repair};
use super::{accepted, script};
use crate::format::config::Config;
use crate::format::fragment::Fragment;
use crate::format::log_entry::LogEntry;
use crate::format::log_state::LogState;
use crate::format::manifest::Manifest;
use crate::format::pack::{PackHeader, PackTrailer, RecordHeader, decode_table, encode_table};
use crate::format::scrub::ScrubPart;
use crate::format::segment::{
    Entry, SegmentBuilder, SegmentReader, decode_piece_list, encode_piece_list, for_each_chunk,
};
use crate::id::{EntryHash, FamilyId};
use crate::log::NO_SESSION;
use crate::pack::{Location, PackScan, parse_table, read_record, table_range};

/// Tries the bytes as they are and with all that was made to fit; true if some form was accepted.
fn with_repairs(bytes: &[u8], repair: fn(&mut [u8], Repair), try_one: impl Fn(&[u8]) -> bool) -> bool {
    let mut any = try_one(bytes);
    for how in [Repair::Checksums, Repair::All] {
        let mut repaired = bytes.to_vec();
        repair(&mut repaired, how);
        any |= try_one(&repaired);
    }
    any
}

/// The object `config`.
pub fn config(bytes: &[u8]) -> bool {
    with_repairs(bytes, repair::config, |stored| {
        let Some(config) = accepted(Config::decode(stored)) else { return false };
        let again = config.encode();
        assert_eq!(accepted(Config::decode(&again)).as_ref(), Some(&config), "decoded, encoded and decoded");
        assert!(again.len() <= stored.len(), "what was read is no longer than what it was read from");
        true
    })
}

/// An index fragment.
pub fn fragment(bytes: &[u8]) -> bool {
    with_repairs(bytes, repair::fragment, |stored| {
        let Some(mut fragment) = accepted(Fragment::decode(stored)) else { return false };
        assert!(fragment.packs.len() * 52 + fragment.entries.len() * 48 + 28 <= stored.len());
        let again = fragment.encode();
        assert_eq!(accepted(Fragment::decode(&again)), Some(fragment), "decoded, encoded and decoded");
        assert_eq!(again[28..], stored[28..again.len()], "entries have one order");
        true
    })
}

/// A part of the scrub ledger.
pub fn scrub(bytes: &[u8]) -> bool {
    with_repairs(bytes, repair::scrub, |stored| {
        let Some(mut part) = accepted(ScrubPart::decode(stored)) else { return false };
        assert!(part.facts.len() * 60 + 24 <= stored.len());
        let again = part.encode();
        assert_eq!(accepted(ScrubPart::decode(&again)), Some(part), "decoded, encoded and decoded");
        assert_eq!(again[24..], stored[24..again.len()], "facts have one order");
        true
    })
}

/// The root object of a backup.
pub fn manifest(bytes: &[u8]) -> bool {
    with_repairs(bytes, repair::manifest, |stored| {
        let Some(manifest) = accepted(Manifest::decode(stored)) else { return false };
        let again = manifest.encode();
        assert_eq!(accepted(Manifest::decode(&again)).as_ref(), Some(&manifest), "decoded, encoded and decoded");
        assert!(again.len() <= stored.len());
        true
    })
}

/// A manifest segment.
pub fn segment(plain: &[u8]) -> bool {
    let mut pieces = Vec::new();
    let maintained = accepted(for_each_chunk(plain, |piece, lists| pieces.push((piece, lists)))).is_some();
    let Some(reader) = accepted(SegmentReader::new(plain)) else { return false };
    let mut entries: Vec<Entry> = Vec::new();
    let mut whole = true;
    let mut paths = 0;
    for entry in reader {
        assert!(whole, "nothing comes behind an error");
        match accepted(entry) {
            Some(entry) => {
                paths += entry.path.len();
                entries.push(entry);
            }
            None => whole = false,
        }
        // Shared beginnings are stored once: a path of 64 KiB may come back with every entry, which a reader takes one by one.
        if paths > 1 << 20 {
            return false;
        }
    }
    if !whole {
        return false;
    }
    assert!(maintained, "what is read with names can be read without");
    let read = entries.iter().flat_map(|entry| entry.pieces.as_slice());
    assert!(read.eq(pieces.iter().map(|(piece, _)| piece)), "pieces are the same without names");
    assert!(entries.is_sorted_by(|a, b| a.sort_key().lt(b.sort_key())), "entries are sorted");
    rebuild(&entries);
    true
}

/// Entries that a builder takes come back as they were.
fn rebuild(entries: &[Entry]) {
    let mut builder = SegmentBuilder::default();
    let kept: Vec<&Entry> = entries.iter().filter(|entry| accepted(builder.push(entry)).is_some()).collect();
    let (count, len) = (builder.entry_count(), builder.len());
    let plain = builder.finish();
    assert_eq!((kept.len(), plain.len()), (count as usize, len));
    let reader = accepted(SegmentReader::new(&plain)).expect("what a builder made is a segment");
    let again: Vec<Entry> = reader.map(|entry| accepted(entry).expect("what was pushed is read")).collect();
    assert!(again.iter().eq(kept), "encoded and decoded");
}

/// A piece list.
pub fn piece_list(plain: &[u8]) -> bool {
    let Some(pieces) = accepted(decode_piece_list(plain)) else { return false };
    assert_eq!(encode_piece_list(&pieces), plain, "a piece list has one form");
    true
}

/// A pack: its parts by themselves, and the whole.
pub fn pack(bytes: &[u8]) -> bool {
    accepted(RecordHeader::decode(bytes));
    accepted(PackHeader::decode(bytes));
    with_repairs(bytes, repair::pack, |stored| {
        let tail_len = stored.len().min(PackTrailer::LEN);
        let size = stored.len() as u64;
        if let Some(tail) = accepted(table_range(&stored[stored.len() - tail_len..], size)) {
            assert!(tail.start <= tail.end && tail.end == size, "the table lies in the pack");
            let start = usize::try_from(tail.start).expect("inside the pack");
            accepted(parse_table(&stored[start..], size));
        }
        let family = accepted(PackHeader::decode(stored)).map_or(FamilyId::from_bytes([0; 16]), |header| {
            assert_eq!(header.encode(), stored[..PackHeader::LEN], "a header has one form");
            header.family
        });
        let Some(scan) = accepted(PackScan::new(stored, family)) else { return false };
        check_scan(stored, &scan);
        true
    })
}

/// What a scan gives is what the table says, record by record, and tiles the pack.
fn check_scan(stored: &[u8], scan: &PackScan<'_>) {
    let trailer = PackTrailer::decode(&stored[stored.len() - PackTrailer::LEN..], stored.len() as u64);
    let trailer = trailer.expect("a scanned pack has a trailer");
    let table_at = trailer.table_offset as usize;
    let table_bytes = &stored[table_at..stored.len() - PackTrailer::LEN];
    let table = decode_table(table_bytes, &trailer).expect("a scanned pack has a table");
    let again = encode_table(&table);
    assert_eq!(again.len(), table_bytes.len());
    let mut at = PackHeader::LEN;
    let mut count = 0;
    for ((header, payload), entry) in scan.records().zip(&table) {
        assert_eq!((entry.offset as usize, *header), (at, entry.record));
        assert_eq!(payload.len(), header.stored_len as usize, "a payload is all there");
        let RecordHeader { id, stored_len, plain_len, coding } = *header;
        let location = Location { pack: 0, offset: entry.offset, stored_len, plain_len, coding };
        let end = usize::try_from(location.range().end).expect("inside the pack");
        assert_eq!(read_record(id, &location, &stored[at..end]).expect("a scanned record"), (*header, payload));
        at = end;
        count += 1;
    }
    assert_eq!((at, count), (table_at, table.len()), "records tile the pack");
}

/// A log entry, and what it does to a state.
pub fn log_entry(bytes: &[u8]) -> bool {
    with_repairs(bytes, repair::log_entry, |stored| {
        let Some(mut entry) = accepted(LogEntry::decode(stored)) else { return false };
        let again = entry.encode();
        assert_eq!(accepted(LogEntry::decode(&again)).as_ref(), Some(&entry), "decoded, encoded and decoded");
        assert!(again.len() <= stored.len());
        let mut state = LogState::empty(entry.previous);
        entry.number = 1;
        if !script::opens_its_session(&entry) {
            entry.session = NO_SESSION;
        }
        assert!(accepted(state.apply(&entry, EntryHash::from_bytes([7; 32]))).is_some(), "the next entry is taken");
        script::check_state(&state);
        true
    })
}

/// A log state: from its bytes, with an entry behind it, and folded from entries that the bytes choose.
pub fn log_state(bytes: &[u8]) -> bool {
    script::fold(bytes);
    with_repairs(bytes, repair::log_state, |stored| {
        let Some(mut state) = accepted(LogState::decode(stored)) else { return false };
        script::check_state(&state);
        script::go_on(&mut state, bytes);
        true
    })
}
