//! Makes checksums fit, and on demand lengths and counts too, so that mutations reach what lies behind them.
//!
//! Written from the pages in docs/format, not with the encoders: offsets are those of the tables there. Too short an input stays as it is.

use crate::format::checksum;

/// How much is made to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// Checksums.
    Checksums,
    /// Checksums, and lengths and counts as far as the bytes tell what they should be.
    All,
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) {
        Some(field) => u32::from_le_bytes(*field) as usize,
        None => 0,
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *field = value.to_le_bytes();
    }
}

fn put_sum(bytes: &mut [u8], at: usize, range: std::ops::Range<usize>) {
    if let Some(summed) = bytes.get(range) {
        let sum = checksum(summed);
        put_u32(bytes, at, sum as usize);
    }
}

/// Header of 20, body, checksum of the body.
pub(super) fn config(bytes: &mut [u8], repair: Repair) {
    let Some(body_len) = bytes.len().checked_sub(24) else { return };
    if repair == Repair::All {
        put_u32(bytes, 12, body_len);
    }
    put_sum(bytes, 16, 0..16);
    put_sum(bytes, 20 + body_len, 20..20 + body_len);
}

/// Header of 28, packs of 52, entries of 48.
pub(super) fn fragment(bytes: &mut [u8], repair: Repair) {
    let Some(body_len) = bytes.len().checked_sub(28) else { return };
    if repair == Repair::All {
        let packs = u32_at(bytes, 12).min(body_len / 52);
        put_u32(bytes, 12, packs);
        put_u32(bytes, 16, (body_len - packs * 52) / 48);
    }
    put_sum(bytes, 20, 28..28 + body_len);
    put_sum(bytes, 24, 0..24);
}

/// Header of 24, facts of 60.
pub(super) fn scrub(bytes: &mut [u8], repair: Repair) {
    let Some(body_len) = bytes.len().checked_sub(24) else { return };
    if repair == Repair::All {
        put_u32(bytes, 12, body_len / 60);
    }
    put_sum(bytes, 16, 24..24 + body_len);
    put_sum(bytes, 20, 0..20);
}

/// Header of 32, body, names.
pub(super) fn manifest(bytes: &mut [u8], repair: Repair) {
    let Some(rest) = bytes.len().checked_sub(32) else { return };
    let body_len = u32_at(bytes, 12).min(rest);
    if repair == Repair::All {
        put_u32(bytes, 12, body_len);
        put_u32(bytes, 16, rest - body_len);
    }
    put_sum(bytes, 20, 32..32 + body_len);
    put_sum(bytes, 24, 32 + body_len..32 + rest);
    put_sum(bytes, 28, 0..28);
}

/// Header of 80, body.
pub(super) fn log_entry(bytes: &mut [u8], repair: Repair) {
    header_and_body(bytes, repair, 80);
}

/// Header of 24, body.
pub(super) fn log_state(bytes: &mut [u8], repair: Repair) {
    header_and_body(bytes, repair, 24);
}

/// A header that ends in body length, body checksum, checksum.
fn header_and_body(bytes: &mut [u8], repair: Repair, header_len: usize) {
    let Some(body_len) = bytes.len().checked_sub(header_len) else { return };
    if repair == Repair::All {
        put_u32(bytes, header_len - 12, body_len);
    }
    put_sum(bytes, header_len - 8, header_len..header_len + body_len);
    put_sum(bytes, header_len - 4, 0..header_len - 4);
}

/// Header of 36; records of 52 and payload; table of 48 each; trailer of 28.
pub(super) fn pack(bytes: &mut [u8], repair: Repair) {
    let Some(trailer_at) = bytes.len().checked_sub(28).filter(|&at| at >= 36) else { return };
    put_sum(bytes, 32, 0..32);
    let count = u32_at(bytes, trailer_at + 4);
    let (table_at, count) = match repair {
        Repair::Checksums => (u32_at(bytes, trailer_at), count.min(trailer_at / 48)),
        Repair::All => {
            let count = count.min((trailer_at - 36) / 48);
            (trailer_at - count * 48, count)
        }
    };
    if repair == Repair::All {
        put_u32(bytes, trailer_at, table_at);
        put_u32(bytes, trailer_at + 4, count);
        tile_records(bytes, table_at, count);
    }
    for entry in 0..count {
        let at = u32_at(bytes, table_at + entry * 48 + 32);
        put_sum(bytes, at + 48, at..at + 48);
    }
    put_sum(bytes, trailer_at + 8, table_at..trailer_at);
    put_sum(bytes, trailer_at + 16, trailer_at..trailer_at + 16);
}

/// Lays the records one behind the other up to the table, which says how long they are, and repeats in their headers what it says.
fn tile_records(bytes: &mut [u8], table_at: usize, count: usize) {
    let mut at = 36;
    for entry in 0..count {
        let entry_at = table_at + entry * 48;
        let Some(room) = table_at.checked_sub(at + 52) else { return };
        let is_last = entry + 1 == count;
        let stored_len = if is_last { room } else { u32_at(bytes, entry_at + 36).min(room) };
        put_u32(bytes, entry_at + 32, at);
        put_u32(bytes, entry_at + 36, stored_len);
        put_u32(bytes, at + 4, stored_len);
        // flags, coding, reserved; plain length; chunk id.
        bytes[at + 8..at + 12].fill(0);
        bytes[at + 9] = bytes[entry_at + 44];
        bytes.copy_within(entry_at + 40..entry_at + 44, at + 12);
        bytes.copy_within(entry_at..entry_at + 32, at + 16);
        at += 52 + stored_len;
    }
}

/// Blocks of 2048, each begins with the checksum of its content.
pub(super) fn framing(bytes: &mut [u8]) {
    for block in bytes.chunks_mut(2048) {
        let len = block.len();
        put_sum(block, 0, 4..len.max(4));
    }
}
