//! Objects written here and objects of a real server go through one enumerating procedure, which knows nothing of the writer.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};

use super::*;

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()))
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Header,
    Column { slot: usize, block: usize, idx: usize, oid: u8 },
    Bloom(usize),
    ZoneMap(usize),
    Meta,
    Footer,
}

#[derive(Debug)]
struct Region {
    what: What,
    offset: usize,
    stored_len: usize,
    plain: Vec<u8>,
}

struct Parsed {
    /// In file order.
    regions: Vec<Region>,
    meta: Vec<u8>,
}

fn region(object: &[u8], what: What, extent: &[u8]) -> Region {
    let (offset, stored_len, plain_len) = (u32_at(extent, 1), u32_at(extent, 5), u32_at(extent, 9));
    let stored = &object[offset..offset + stored_len];
    let plain = match extent[0] {
        0 => stored.to_vec(),
        1 => lz4_flex::block::decompress(stored, plain_len).unwrap(),
        algorithm => panic!("{what:?}: algorithm {algorithm}"),
    };
    assert_eq!(plain.len(), plain_len, "{what:?}");
    Region { what, offset, stored_len, plain }
}

/// Finds every region of an object and asserts that they tile it.
fn enumerate(object: &[u8]) -> Parsed {
    assert_eq!(object[..10], [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 1, 0]);
    let whole = |what, offset: usize, len: usize| Region {
        what,
        offset,
        stored_len: len,
        plain: object[offset..offset + len].to_vec(),
    };
    let mut regions = vec![whole(What::Header, 0, 64), whole(What::Footer, object.len() - 64, 64)];
    regions.push(region(object, What::Meta, &object[10..23]));
    let meta = regions[2].plain.clone();
    assert_eq!(meta[..4], [1, 0, 3, 0]);
    let body = &meta[4..];
    assert_eq!(u16_at(body, 32), 0, "sub metas");
    let mut at = u32_at(body, 2);
    for slot in 0..2 {
        at += enumerate_slot(object, &body[at..], slot, &mut regions);
    }
    assert_eq!(at, body.len());

    regions.sort_by_key(|region| region.offset);
    let mut at = 0;
    for region in &regions {
        assert_eq!(region.offset, at, "{:?}", region.what);
        at += region.stored_len;
    }
    assert_eq!(at, object.len());
    Parsed { regions, meta }
}

fn enumerate_slot(object: &[u8], slot: &[u8], number: usize, regions: &mut Vec<Region>) -> usize {
    let (blocks, columns) = (u16_at(slot, 34), u16_at(slot, 140));
    regions.push(region(object, What::Bloom(number), &slot[55..68]));
    regions.push(region(object, What::ZoneMap(number), &slot[72..85]));
    let index = 179 + 124 * columns;
    assert_eq!(u32_at(slot, index), blocks);
    let mut end = index + 4 + 8 * blocks;
    for block in 0..blocks {
        assert_eq!(u32_at(slot, index + 4 + 8 * block), end);
        let len = u32_at(slot, index + 8 + 8 * block);
        let meta = &slot[end..end + len];
        end += len;
        let columns = u16_at(meta, 140);
        assert_eq!(len, 179 + 124 * columns);
        for column in meta[179..].chunks_exact(124) {
            if column[0] != 0 && u32_at(column, 16) != 0 {
                let what = What::Column { slot: number, block, idx: u16_at(column, 1), oid: column[0] };
                let region = region(object, what, &column[11..24]);
                check_vector(&region.plain, column[0]);
                regions.push(region);
            }
        }
    }
    end
}

fn check_vector(plain: &[u8], oid: u8) {
    assert_eq!(plain[..4], [2, 0, 2, 0]);
    assert_eq!(plain[5], oid);
    let data_len = u32_at(plain, 25);
    let area_len = u32_at(plain, 29 + data_len);
    let null_len = u32_at(plain, 33 + data_len + area_len);
    assert_eq!(plain.len(), 38 + data_len + area_len + null_len);
}

/// All about an object that does not depend on its values: kinds in file order and the lengths of fixed parts.
fn order(parsed: &Parsed) -> Vec<What> {
    parsed.regions.iter().map(|region| region.what).collect()
}

fn sample_columns(rows: u32, seed: u64) -> Vec<Vector> {
    let mut random = SplitMix(seed);
    let mut columns: Vec<Vector> = [23, 22, 61, 31, 63, 10].map(|oid| Vector::new(oid).unwrap()).into();
    for row in 0..rows {
        columns[0].push_fixed(i64::from(row).to_le_bytes());
        columns[1].push_fixed((i32::try_from(random.below(100)).unwrap() - 50).to_le_bytes());
        match row % 3 {
            0 => columns[2].push_null(),
            1 => columns[2].push_bytes(b"short"),
            _ => columns[2].push_bytes(format!("a value of more than thirty bytes {row}").as_bytes()),
        }
        columns[3].push_fixed((f64::from(row) / 3.0 - 10.0).to_le_bytes());
        columns[4].push_fixed([u8::try_from(row % 251).unwrap(); 16]);
        columns[5].push_fixed([u8::from(row % 2 == 0)]);
    }
    columns
}

fn sample_object(blocks: u32) -> TaeObject {
    let mut options = TaeOptions::new(object_name(7, 1_795_000_000_000, 0));
    options.process_address = 0xC0_1234_5678;
    options.sort_key = Some(0);
    let mut writer = TaeWriter::new(options);
    for block in 0..blocks {
        let rows = if block + 1 == blocks { 1000 } else { 8192 };
        writer.push_block(&sample_columns(rows, u64::from(block)), filter_bytes(u64::from(block), rows)).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn regions_tile_the_object_in_the_order_of_the_format() {
    let object = sample_object(3);
    let parsed = enumerate(&object.bytes);
    let mut expected = vec![What::Header];
    for (idx, oid) in [23, 22, 61, 31, 63, 10].into_iter().enumerate() {
        expected.extend((0..3).map(|block| What::Column { slot: 0, block, idx, oid }));
    }
    expected.extend([What::Bloom(0), What::ZoneMap(0), What::Bloom(1), What::ZoneMap(1), What::Meta, What::Footer]);
    assert_eq!(order(&parsed), expected);

    let footer = &parsed.regions.last().unwrap().plain;
    assert_eq!(footer[..48], [0; 48]);
    assert_eq!(footer[48..], [0x78, 0x56, 0x34, 0x12, 0xC0, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(object.stats[145..149], u32::try_from(object.bytes.len()).unwrap().to_le_bytes());
    assert_eq!(object.stats[60..73], object.bytes[10..23]);
}

#[test]
fn lengths_are_those_of_the_worked_example() {
    let mut writer = TaeWriter::new(TaeOptions::new(object_name(1, 2, 3)));
    writer.push_block(&sample_columns(5, 1)[..3], Vec::new()).unwrap();
    let parsed = enumerate(&writer.finish().unwrap().bytes);
    let lens: Vec<usize> = parsed.regions[4..].iter().map(|region| region.plain.len()).collect();
    assert_eq!(lens, [24, 208, 16, 8, 1335, 64]);
    assert_eq!(parsed.regions[7].stored_len, 9);
}

#[test]
fn blocks_with_different_columns_and_no_blocks_at_all_tile_too() {
    let mut writer = TaeWriter::new(TaeOptions::new(object_name(1, 2, 3)));
    writer.push_block(&sample_columns(5, 1)[..3], Vec::new()).unwrap();
    writer.push_block(&sample_columns(9, 1)[..5], Vec::new()).unwrap();
    assert_eq!(enumerate(&writer.finish().unwrap().bytes).regions.len(), 1 + 8 + 6);
    let empty = TaeWriter::new(TaeOptions::new(object_name(1, 2, 3)));
    assert_eq!(enumerate(&empty.finish().unwrap().bytes).regions.len(), 7);
}

#[test]
fn columns_of_unequal_length_and_unknown_types_are_refused() {
    let mut writer = TaeWriter::new(TaeOptions::new(object_name(1, 2, 3)));
    let columns = [sample_columns(5, 1)[..1].to_vec(), sample_columns(6, 1)[..1].to_vec()].concat();
    assert!(writer.push_block(&columns, Vec::new()).is_err());
    assert!(Vector::new(99).is_err());
}

#[test]
fn names_are_uuid_v7_and_say_when() {
    let name = object_name(42, 1_795_235_203_197, 17);
    let text = name.to_string();
    assert_eq!(text.len(), 42);
    assert_eq!(&text[14..15], "7");
    assert!("89ab".contains(&text[19..20]));
    assert!(text.ends_with("_00017"));
    assert_eq!(name.millis(), 1_795_235_203_197);
    assert!(object_name(9, 1, 0).to_string() < object_name(3, 1 << 40, 0).to_string());
    assert_eq!(name.with_num(1017).to_string()[..36], text[..36]);
    assert_ne!(object_name(1, 5, 0), object_name(2, 5, 0));
}

#[test]
fn zone_maps_bound_values_by_their_own_order() {
    let columns = sample_columns(8192, 3);
    let map = columns[1].zone_map();
    assert_eq!((map[..4].to_vec(), map[31..35].to_vec()), (vec![0xCE, 0xFF, 0xFF, 0xFF], 49i32.to_le_bytes().to_vec()));
    assert_eq!((map[30], map[61], map[62], map[63]), (4, 4, 0xBF, 22));
    let map = columns[3].zone_map();
    assert_eq!(map[..8], (-10f64).to_le_bytes());
    assert_eq!(columns[0].zone_map()[8..16], (8191i64 * 8192 / 2).to_le_bytes());
    let map = columns[2].zone_map();
    assert_eq!((&map[..4], map[30], map[61]), (&b"a va"[..], 30, 5));
    assert_eq!(Vector::new(61).unwrap().zone_map()[60..], [0, 0, 0, 61]);
    let mut long = Vector::new(61).unwrap();
    long.push_bytes(&[b'x'; 40]);
    assert_eq!(long.zone_map()[60..62], [b'y', 30]);
}

fn unpacked() -> Option<PathBuf> {
    crate::testing::data::captures("objects written again").map(Path::to_owned)
}

fn real_objects(tree: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = [tree.join("tae"), tree.join("tae/ckp")]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            path.is_file() && (name.as_bytes().get(36) == Some(&b'_') || name.starts_with("meta_"))
        })
        .collect();
    paths.sort();
    paths
}

/// A real vector taken apart, so that it can be written again.
fn decode_vector(plain: &[u8]) -> Option<Vector> {
    let mut vector = Vector::new(plain[5]).unwrap();
    let scale = |at: usize| i32::from_le_bytes(plain[at..at + 4].try_into().unwrap());
    vector = vector.with_width(scale(13), scale(17));
    let (rows, data_len) = (u32_at(plain, 21), u32_at(plain, 25));
    let area_len = u32_at(plain, 29 + data_len);
    let nulls_at = 37 + data_len + area_len;
    let null_len = u32_at(plain, nulls_at - 4);
    if plain[4] != 0 || plain[6..9] != [0; 3] || null_len != 0 {
        return None;
    }
    let cells = data_len.checked_div(rows).unwrap_or(0);
    for cell in plain[29..29 + data_len].chunks_exact(cells.max(1)) {
        match cell.len() {
            1 => vector.push_fixed::<1>(cell.try_into().unwrap()),
            2 => vector.push_fixed::<2>(cell.try_into().unwrap()),
            4 => vector.push_fixed::<4>(cell.try_into().unwrap()),
            8 => vector.push_fixed::<8>(cell.try_into().unwrap()),
            12 => vector.push_fixed::<12>(cell.try_into().unwrap()),
            16 => vector.push_fixed::<16>(cell.try_into().unwrap()),
            _ if !matches!(plain[5], 60..=62 | 65 | 70 | 71 | 224) => vector.push_fixed::<24>(cell.try_into().unwrap()),
            _ if cell[0] <= 23 => vector.push_bytes(&cell[1..=usize::from(cell[0])]),
            _ => vector.push_bytes(&plain[33 + data_len + u32_at(cell, 4)..][..u32_at(cell, 8)]),
        }
    }
    if plain[nulls_at..] == [1] {
        vector = vector.sorted();
    }
    Some(vector)
}

/// Puts zeros where two writers may differ: places and lengths of LZ4 bytes, distinct counts, bounds, kind of bloom filter.
fn masked_meta(parsed: &Parsed) -> Vec<u8> {
    let mut meta = parsed.meta.clone();
    let mut at = 4 + 34;
    for _ in 0..2 {
        let (blocks, columns) = (u16_at(&meta, at + 34), u16_at(&meta, at + 140));
        let mut headers = vec![(at, columns)];
        let index = at + 179 + 124 * columns;
        headers.extend((0..blocks).map(|block| {
            let start = at + u32_at(&meta, index + 4 + 8 * block);
            (start, u16_at(&meta, start + 140))
        }));
        let slot_len = u32_at(&meta, at + 42 + 9);
        for (start, columns) in headers {
            for field in [43..47, 56..60, 73..77, 77..81, 149..150] {
                meta[start + field.start..start + field.end].fill(0);
            }
            for column in meta[start + 179..start + 179 + 124 * columns].chunks_exact_mut(124) {
                column[3..7].fill(0);
                column[12..20].fill(0);
                column[28..92].fill(0);
            }
        }
        at += slot_len;
    }
    meta
}

/// Real objects, taken apart and written again: same regions, same plain bytes, same meta but for what `masked_meta` names.
#[test]
fn real_objects_have_the_layout_that_is_written_here() {
    let Some(dir) = unpacked() else { return };
    let (mut seen, mut rewritten, mut bounds, mut equal_bounds) = (0, 0, 0, 0);
    for path in real_objects(&dir.join("shop/full-5")) {
        let bytes = std::fs::read(&path).unwrap();
        if bytes.len() > 3 << 20 {
            continue;
        }
        let parsed = enumerate(&bytes);
        seen += 1;
        let Some((object, columns)) = write_again(&parsed, &path) else { continue };
        let again = enumerate(&object.bytes);
        assert_eq!(order(&again), order(&parsed), "{}", path.display());
        for (ours, real) in again.regions.iter().zip(&parsed.regions) {
            if !matches!(ours.what, What::Header | What::Meta | What::ZoneMap(_)) {
                assert!(ours.plain == real.plain, "{}: {:?}", path.display(), ours.what);
            }
        }
        let (ours, real) = (masked_meta(&again), masked_meta(&parsed));
        let differ: Vec<usize> = (0..ours.len().max(real.len())).filter(|&at| ours.get(at) != real.get(at)).collect();
        assert!(differ.is_empty(), "{}: meta differs at {differ:?}", path.display());
        rewritten += 1;
        if !path.to_str().unwrap().contains("/ckp/") {
            let maps = |parsed: &Parsed| {
                let region = parsed.regions.iter().find(|region| region.what == What::ZoneMap(0)).unwrap();
                region.plain[region.plain.len() - columns * 64..].to_vec()
            };
            for (ours, real) in maps(&again).chunks(64).zip(maps(&parsed).chunks(64)) {
                bounds += 1;
                equal_bounds += usize::from(ours == real);
            }
        }
    }
    eprintln!("{seen} real objects, {rewritten} written again, {equal_bounds} of {bounds} zonemaps equal");
    assert!(rewritten > 100, "{rewritten} of {seen}");
    assert!(equal_bounds * 10 > bounds * 9, "{equal_bounds} of {bounds} zonemaps");
}

/// `None` for what the writer does not do: NULLs in MatrixOne's bit lengths, gaps between columns, stale bytes in cells.
fn write_again(parsed: &Parsed, path: &Path) -> Option<(TaeObject, usize)> {
    let slot = &parsed.meta[38..];
    let mut options = TaeOptions::new(object_name(0, 0, 0));
    let stem = path.file_name().unwrap().to_str().unwrap();
    let id: [u8; 18] = slot[16..34].try_into().unwrap();
    if stem.ends_with(".ckp") || stem[37..].starts_with("01") && id[16..] == [0, 0] {
        options.tag = Some(id[..16].try_into().unwrap());
    } else {
        options.name = TaeName { segment: id[..16].try_into().unwrap(), num: u16::from_le_bytes([id[16], id[17]]) };
        assert_eq!(options.name.to_string(), stem);
    }
    let footer = &parsed.regions.last().unwrap().plain;
    options.process_address = u64::from_le_bytes(footer[48..56].try_into().unwrap());
    options.schema_version = u32::from_le_bytes(parsed.regions[0].plain[23..27].try_into().unwrap());
    options.appendable = slot[146] == 1;
    options.sort_key = Some(u16::from_le_bytes([slot[147], slot[148]])).filter(|key| *key != NO_SORT_KEY);
    let columns = u16_at(slot, 140);
    options.special_columns = u16::try_from(columns - 1 - u16_at(slot, 142)).unwrap();
    if u16_at(slot, 40) != columns {
        return None;
    }
    let bloom = &parsed.regions.iter().find(|region| region.what == What::Bloom(0))?.plain;
    let mut writer = TaeWriter::new(options);
    for block in 0..u16_at(slot, 34) {
        let mut vectors = vec![None; columns];
        for region in &parsed.regions {
            if let What::Column { slot: 0, block: at, idx, .. } = region.what
                && at == block
            {
                let vector = decode_vector(&region.plain)?;
                let mut plain = Vec::new();
                vector.encode_into(&mut plain).unwrap();
                if plain != region.plain {
                    return None;
                }
                vectors[idx] = Some(vector);
            }
        }
        let (at, len) = (u32_at(bloom, 8 + 8 * block), u32_at(bloom, 12 + 8 * block));
        let vectors: Option<Vec<Vector>> = vectors.into_iter().collect();
        writer.push_block(&vectors?, bloom[4 + at..4 + at + len].to_vec()).ok()?;
    }
    Some((writer.finish().unwrap(), columns))
}
