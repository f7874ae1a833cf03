//! Seeds of MatrixOne's files: objects written here, the same with nothing compressed, and a few of a real server.
//!
//! In an object without compression a changed byte is a changed field, behind LZ4 it is mostly a broken block: both are worth having.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::len_u32;
use crate::error::Result;
use crate::format::Put;
use crate::tae::{ExtentContent, describe, list_extents};
use crate::testing::fuzz::tae_checkpoint;
use crate::testing::tae_writer::{TaeName, TaeOptions, TaeWriter, Vector, filter_bytes, object_name};

/// No captured seed is longer.
const LEN_MAX: usize = 4 << 10;
/// A value that a few bytes of LZ4 stand for, and every row of a constant column repeats.
const LONG_VALUE: usize = 79 * 100;

fn name(number: u64) -> TaeName {
    object_name(number, 1_739_866_101_719 + number, 0)
}

const NOT_WRITTEN: &str = "a small object can be written";

/// `pushes` fills one column each.
fn column(oid: u8, fill: impl FnOnce(&mut Vector)) -> Vector {
    let mut vector = Vector::new(oid).expect("a type that is written");
    fill(&mut vector);
    vector
}

fn numbers(rows: u32) -> Vec<Vector> {
    vec![
        column(23, |vector| (0..rows).for_each(|row| vector.push_fixed(i64::from(row).to_le_bytes()))),
        column(61, |vector| {
            for row in 0..rows {
                match row % 5 {
                    0 => vector.push_null(),
                    1 => vector.push_bytes(&[b'x'; 40]),
                    _ => vector.push_bytes(format!("row {row}").as_bytes()),
                }
            }
        }),
    ]
}

fn write(options: TaeOptions, blocks: &[Vec<Vector>]) -> (Vec<u8>, [u8; 154]) {
    let mut writer = TaeWriter::new(options);
    for (number, block) in (0u64..).zip(blocks) {
        writer.push_block(block, filter_bytes(number, 10)).expect(NOT_WRITTEN);
    }
    let object = writer.finish().expect(NOT_WRITTEN);
    (object.bytes, object.stats)
}

/// The same object with every extent stored as it is. `None` if it is none.
fn inflated(object: &[u8]) -> Option<Vec<u8>> {
    rebuilt(object, false, |plain| plain)
}

/// The same object with the content of its columns changed, and extents compressed or not. `None` if it is none.
fn rebuilt(object: &[u8], lz4: bool, change: fn(Vec<u8>) -> Vec<u8>) -> Option<Vec<u8>> {
    let mut out = object[..64].to_vec();
    let mut moved: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for extent in list_extents(&object).ok()?.ok()? {
        let stored = &object[extent.offset as usize..][..extent.stored_len as usize];
        let mut plain = match extent.lz4 {
            true => lz4_flex::block::decompress(stored, extent.plain_len as usize).ok()?,
            false => stored.to_vec(),
        };
        match extent.content {
            ExtentContent::Column { .. } => plain = change(plain),
            ExtentContent::Meta => moved.iter().for_each(|(old, new)| replace(&mut plain, old, new)),
            ExtentContent::Bloom | ExtentContent::Zonemap => {}
        }
        let stored = if lz4 { lz4_flex::block::compress(&plain) } else { plain.clone() };
        let new = pointer(lz4, out.len(), stored.len(), plain.len());
        if extent.content == ExtentContent::Meta {
            out[10..23].copy_from_slice(&new);
        }
        let [offset, stored_len, plain_len] = [extent.offset, extent.stored_len, extent.plain_len].map(|n| n as usize);
        moved.push((pointer(extent.lz4, offset, stored_len, plain_len), new));
        out.extend_from_slice(&stored);
    }
    out.extend_from_slice(&object[object.len() - 64..]);
    Some(out)
}

fn pointer(lz4: bool, offset: usize, stored_len: usize, plain_len: usize) -> Vec<u8> {
    let mut pointer = vec![u8::from(lz4)];
    [offset, stored_len, plain_len].into_iter().for_each(|field| pointer.put_u32(len_u32(field)));
    pointer
}

/// A vector of which every row has the value of the first.
fn constant(plain: Vec<u8>) -> Vec<u8> {
    // Type and version 4, class 1, type of 16 with the length of a cell at 4, rows 4, data, area, nulls, sorted.
    let u32_at = |at: usize| u32::from_le_bytes(plain[at..at + 4].try_into().expect("four bytes")) as usize;
    let (cell_len, cells_len) = (u32_at(9), u32_at(25));
    let area_at = 29 + cells_len;
    let area = &plain[area_at + 4..][..u32_at(area_at).min(LONG_VALUE)];
    let mut out = plain[..25].to_vec();
    out[4] = 1;
    out.put_blob(&plain[29..29 + cell_len]);
    out.put_blob(area);
    out.put(&plain[area_at + 4 + u32_at(area_at)..]);
    out
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(old.len()).position(|window| window == old) {
        at += found;
        bytes[at..at + new.len()].copy_from_slice(new);
        at += new.len();
    }
}

fn with_inflated(objects: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let inflated: Vec<_> = objects.iter().filter_map(|object| inflated(object)).collect();
    objects.into_iter().chain(inflated).collect()
}

/// Objects, and the content of columns by itself.
pub(super) fn objects() -> Vec<Vec<u8>> {
    let plain = TaeOptions::new(name(1));
    let sorted = TaeOptions { sort_key: Some(0), special_columns: 1, ..plain };
    let empty = write(plain, &[]).0;
    let small = write(plain, &[numbers(10)]).0;
    let two = write(TaeOptions { appendable: true, ..sorted }, &[numbers(20), numbers(3)]).0;
    let rewritten = write(TaeOptions { tag: Some(*b"Writer_ETLXXXXXX"), ..plain }, &[numbers(2)]).0;
    let extents = list_extents(&small).expect("memory can be read").expect("an object");
    let columns = extents.iter().filter(|extent| matches!(extent.content, ExtentContent::Column { .. }));
    let vectors: Vec<_> = columns
        .map(|extent| {
            let stored = &small[extent.offset as usize..][..extent.stored_len as usize];
            lz4_flex::block::decompress(stored, extent.plain_len as usize).expect("written here")
        })
        .collect();
    with_inflated(vec![empty, small, two, rewritten]).into_iter().chain(vectors).collect()
}

fn low(number: u16) -> u8 {
    number.to_le_bytes()[0] & 0x7f
}

fn times(rows: u16, zero: bool) -> Vector {
    column(100, |vector| {
        for row in 0..rows {
            vector.push_fixed([0, 0, 0, 0, if zero { 0 } else { low(row) + 1 }, 0, 0, 0, 0, 0, 0, 0]);
        }
    })
}

fn longs(rows: u16) -> Vector {
    column(28, |vector| (0..rows).for_each(|row| vector.push_fixed(u64::from(row).to_le_bytes())))
}

fn ints(rows: u16, value: u32) -> Vector {
    column(27, |vector| (0..rows).for_each(|_| vector.push_fixed(value.to_le_bytes())))
}

fn bytes(rows: u16, value: &[u8]) -> Vector {
    column(61, |vector| (0..rows).for_each(|_| vector.push_bytes(value)))
}

fn tiny(oid: u8, rows: u16, value: u8) -> Vector {
    column(oid, |vector| (0..rows).for_each(|_| vector.push_fixed([value])))
}

fn row_ids(rows: u16) -> Vector {
    column(101, |vector| (0..rows).for_each(|row| vector.push_fixed([low(row); 24])))
}

/// A checkpoint file, an index object and a data object.
pub(super) fn checkpoints() -> Vec<Vec<u8>> {
    const ROWS: u16 = 3;
    let (_, stats) = write(TaeOptions::new(name(1)), &[numbers(10)]);
    // A location is a name, where its meta lies, rows and block.
    let location = [&stats[..77], &[0; 2]].concat();
    let file = |rows, table_ids| {
        vec![
            times(rows, true),
            times(rows, false),
            bytes(rows, &location),
            tiny(10, rows, 1),
            ints(rows, 13),
            ints(rows, 0),
            longs(rows),
            longs(rows),
            tiny(20, rows, 2),
            bytes(rows, &location.repeat(table_ids)),
        ]
    };
    let file_options = TaeOptions { tag: Some(*b"CheckPoint_MetaX"), ..TaeOptions::new(name(2)) };
    let index = vec![longs(ROWS), tiny(20, ROWS, 1), row_ids(ROWS), row_ids(ROWS), bytes(ROWS, &stats)];
    let data = vec![
        ints(ROWS, 0),
        longs(ROWS),
        longs(ROWS),
        tiny(20, ROWS, 1),
        bytes(ROWS, &stats),
        times(ROWS, false),
        times(ROWS, true),
        bytes(ROWS, b""),
    ];
    let many = write(file_options, &[file(8000, LONG_VALUE / 79)]).0;
    let constant = rebuilt(&many, true, constant).expect("an object");
    let objects = with_inflated(vec![
        write(file_options, &[file(ROWS, 2)]).0,
        write(TaeOptions::new(name(3)), &[index]).0,
        write(TaeOptions::new(name(4)), &[data]).0,
    ]);
    objects.into_iter().chain([constant]).collect()
}

pub(super) fn names() -> Vec<Vec<u8>> {
    let ts = "1739866101719036581";
    let mut names: Vec<Vec<u8>> = vec![
        name(1).to_string().into_bytes(),
        format!("mo-data/shared/{}", name(2).with_num(1000)).into_bytes(),
        format!("ckp/meta_0-0_{ts}-0.ckp").into_bytes(),
        format!("x/ckp/meta_{ts}-1_{ts}-4294967295.cpt").into_bytes(),
        format!("gc/gc_0-0_{ts}-0.ckp").into_bytes(),
        format!("gc/snap_0-0_{ts}-0.snap").into_bytes(),
        format!("gc/acct_0-0_{ts}-0.acct").into_bytes(),
        format!("{ts}-7").into_bytes(),
    ];
    let (_, stats) = write(TaeOptions::new(name(1)), &[numbers(10)]);
    names.push(stats.to_vec());
    names.push([&stats[..77], &[0; 2]].concat());
    names
}

/// Small objects of a real server that a target accepts: two of every kind, below a directory of captures.
pub fn captured(target: &str, captures: &Path) -> Result<Vec<Vec<u8>>> {
    if !matches!(target, "tae_object" | "tae_checkpoint") {
        return Ok(Vec::new());
    }
    let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for path in small_files(captures)? {
        let object =
            std::fs::read(&path).map_err(|error| crate::error::Error::io(path.display().to_string(), error))?;
        let Ok(description) = describe(&object, None)? else { continue };
        let kept = found.entry(format!("{:?}", description.kind)).or_default();
        if kept.len() < 2 && !kept.contains(&object) && (target == "tae_object" || tae_checkpoint(&object)) {
            kept.push(object);
        }
    }
    Ok(found.into_values().flatten().collect())
}

fn small_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let fail = |error| crate::error::Error::io(format!("list {}", directory.display()), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let metadata = entry.metadata().map_err(fail)?;
        if metadata.is_dir() {
            files.extend(small_files(&entry.path())?);
        } else if metadata.is_file() && metadata.len() <= LEN_MAX as u64 {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
