//! From plans to bytes: table objects, and the checkpoint and GC files that name them.

use everpack::error::{Context, Error, Result};
use everpack::testing::tae_writer::{
    SplitMix, TaeName, TaeObject, TaeOptions, TaeWriter, Vector, filter_bytes, object_name,
};

use crate::plan::{Options, Spec, night_millis};

const BLOCK_ROWS: usize = 8192;

/// The bytes of a planned object.
pub(crate) fn object_bytes(spec: &Spec, seed: u64) -> Result<TaeObject> {
    let mut options = TaeOptions::new(spec.name);
    let address = SplitMix(seed ^ spec.name.millis()).next();
    options.process_address = 0xC0_0000_0000 | address & 0x3FFF_FFE0;
    options.sort_key = spec.table.sort_key();
    options.schema_version = 1;
    options.tag = spec.synthesized.then_some(*b"Writer_ETLXXXXXX");
    let mut writer = TaeWriter::new(options);
    let mut columns = spec.table.columns()?;
    let ids = row_ids(spec);
    for block in ids.chunks(BLOCK_ROWS) {
        columns.iter_mut().for_each(Vector::clear);
        for &id in block {
            spec.table.push_row(&mut columns, seed, id);
        }
        let filter = match options.sort_key {
            Some(_) => filter_bytes(seed ^ block[0], columns[0].rows()),
            None => Vec::new(),
        };
        writer.push_block(&columns, filter)?;
    }
    writer.finish()
}

/// In the order of the sort key.
fn row_ids(spec: &Spec) -> Vec<u64> {
    let ids = spec.runs.iter().flat_map(|run| (0..run.count).map(|i| run.first + i * run.stride));
    let deleted =
        |id: &u64| spec.delete_one_in != 0 && SplitMix(*id ^ u64::from(spec.night)).below(spec.delete_one_in) == 0;
    let mut ids: Vec<u64> = ids.filter(|id| !deleted(id)).collect();
    ids.sort_unstable();
    ids
}

/// A file below the tree's root.
pub(crate) struct MetaFile {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
}

/// What a checkpoint says about one object.
pub(crate) struct Known {
    pub(crate) stats: [u8; 154],
    pub(crate) table: u64,
    pub(crate) tombstone: bool,
    pub(crate) millis: u64,
}

/// Recovers an object's statistics from the start of its logical bytes and its object meta.
pub(crate) fn stats_of(name: TaeName, len: u64, header: &[u8; 64], meta: &[u8]) -> Result<[u8; 154]> {
    let damaged = || Error::corrupt(format!("read {name}: the object meta is not one"));
    let field = |at: usize| header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let plain_len = field(19).ok_or_else(damaged)? as usize;
    let plain = lz4_flex::block::decompress(meta, plain_len).map_err(|_| damaged())?;
    let slot = plain.get(38..38 + 179).ok_or_else(damaged)?;
    let mut stats = [0; 154];
    stats[..60].copy_from_slice(&name.long_form());
    stats[60..73].copy_from_slice(&header[10..23]);
    stats[73..77].copy_from_slice(&slot[36..40]);
    stats[77..79].copy_from_slice(&slot[34..36]);
    stats[145..149].copy_from_slice(&u32::try_from(len).map_err(|_| damaged())?.to_le_bytes());
    Ok(stats)
}

/// Where an object's meta lies.
pub(crate) fn meta_place(header: &[u8; 64]) -> (u64, usize) {
    let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    (u64::from(field(11)), field(15) as usize)
}

/// The checkpoint of a night: a global one with `old`, an incremental one with `new`, and the GC file.
pub(crate) fn checkpoint_files(options: &Options, night: u32, old: &[Known], new: &[Known]) -> Result<Vec<MetaFile>> {
    let end = night_millis(night) * 1_000_000;
    let mut files = Vec::new();
    let mut entries = Vec::new();
    let spans =
        if night == 1 { vec![(0, end, new)] } else { vec![(0, end - 1_000_000, old), (end - 1_000_000, end, new)] };
    for (number, (from, to, known)) in (0u64..).zip(spans) {
        let seed = options.seed ^ u64::from(night) << 8 ^ number;
        let [data, index] = [1, 2].map(|kind| object_name(seed ^ kind << 40, night_millis(night), 0));
        let data_object = checkpoint_data(data, known).context(|| "write checkpoint data")?;
        let index_object = checkpoint_index(index, known, &data_object.stats).context(|| "write checkpoint index")?;
        entries.push((from, to, location(index, &index_object), number == 0));
        files.push(MetaFile { path: data.to_string(), bytes: data_object.bytes });
        files.push(MetaFile { path: index.to_string(), bytes: index_object.bytes });
        let start = if from == 0 { "0-0".to_owned() } else { format!("{from}-1") };
        let bytes = checkpoint_meta(&entries)?;
        files.push(MetaFile { path: format!("ckp/meta_{start}_{to}-0.ckp"), bytes });
    }
    let collected = object_name(options.seed ^ 3 << 40, night_millis(night), 0);
    let table = gc_table(collected, new)?;
    let mut names = Vector::new(60)?;
    names.push_bytes(&table.stats);
    let gc = special(*b"Disk_CleanerXXXX", &[names])?;
    files.push(MetaFile { path: collected.to_string(), bytes: table.bytes });
    files.push(MetaFile { path: format!("gc/gc_{}-0_{end}-0.ckp", end - 86_400_000_000_000), bytes: gc });
    Ok(files)
}

fn timestamp(nanos: u64, logical: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&logical.to_le_bytes());
    bytes[4..].copy_from_slice(&nanos.to_le_bytes());
    bytes
}

fn vectors<const N: usize>(oids: [u8; N]) -> Result<Vec<Vector>> {
    oids.into_iter().map(Vector::new).collect()
}

fn write_rows(name: TaeName, sort_key: u16, columns: &[Vector]) -> Result<TaeObject> {
    let mut options = TaeOptions::new(name);
    options.sort_key = Some(sort_key);
    let mut writer = TaeWriter::new(options);
    writer.push_block(columns, Vec::new())?;
    writer.finish()
}

fn special(tag: [u8; 16], columns: &[Vector]) -> Result<Vec<u8>> {
    let mut options = TaeOptions::new(object_name(0, 0, 0));
    options.tag = Some(tag);
    let mut writer = TaeWriter::new(options);
    writer.push_block(columns, Vec::new())?;
    Ok(writer.finish()?.bytes)
}

fn checkpoint_data(name: TaeName, known: &[Known]) -> Result<TaeObject> {
    let mut columns = vectors([27, 28, 28, 20, 60, 100, 100, 60])?;
    for object in known {
        columns[0].push_fixed(0u32.to_le_bytes());
        columns[1].push_fixed(272_400u64.to_le_bytes());
        columns[2].push_fixed(object.table.to_le_bytes());
        columns[3].push_fixed([if object.tombstone { 2 } else { 1 }]);
        columns[4].push_bytes(&object.stats);
        columns[5].push_fixed(timestamp(object.millis * 1_000_000, 0));
        columns[6].push_fixed(timestamp(0, 0));
        columns[7].push_bytes(&[&object.table.to_le_bytes()[..], &object.stats[..18]].concat());
    }
    write_rows(name, 7, &columns)
}

fn checkpoint_index(name: TaeName, known: &[Known], data_stats: &[u8; 154]) -> Result<TaeObject> {
    let mut columns = vectors([28, 20, 101, 101, 60])?;
    let mut tables: Vec<(u64, bool)> = known.iter().map(|object| (object.table, object.tombstone)).collect();
    tables.sort_unstable();
    tables.dedup();
    let mut row = [0; 24];
    row[..18].copy_from_slice(&data_stats[..18]);
    for (table, tombstone) in tables {
        columns[0].push_fixed(table.to_le_bytes());
        columns[1].push_fixed([if tombstone { 2 } else { 1 }]);
        columns[2].push_fixed(row);
        row[20..].copy_from_slice(&u32::try_from(known.len().saturating_sub(1)).unwrap_or(0).to_le_bytes());
        columns[3].push_fixed(row);
        columns[4].push_bytes(data_stats);
    }
    write_rows(name, 0, &columns)
}

fn location(name: TaeName, object: &TaeObject) -> [u8; 79] {
    let mut location = [0; 79];
    location[..60].copy_from_slice(&name.long_form());
    location[60..73].copy_from_slice(&object.stats[60..73]);
    location[73..77].copy_from_slice(&object.stats[73..77]);
    location
}

/// Each checkpoint file lists every entry known when it was written.
fn checkpoint_meta(entries: &[(u64, u64, [u8; 79], bool)]) -> Result<Vec<u8>> {
    let mut columns = vectors([100, 100, 61, 10, 27, 61, 28, 28, 20, 61])?;
    for (from, to, location, global) in entries {
        columns[0].push_fixed(timestamp(*from, u32::from(*from != 0)));
        columns[1].push_fixed(timestamp(*to, 0));
        columns[2].push_bytes(location);
        columns[3].push_fixed([u8::from(!global)]);
        columns[4].push_fixed(13u32.to_le_bytes());
        columns[5].push_bytes(b"");
        columns[6].push_fixed(0u64.to_le_bytes());
        columns[7].push_fixed(0u64.to_le_bytes());
        columns[8].push_fixed([u8::from(!global)]);
        columns[9].push_bytes(b"");
    }
    special(*b"CheckPoint_MetaX", &columns)
}

fn gc_table(name: TaeName, known: &[Known]) -> Result<TaeObject> {
    let mut columns = vectors([60, 100, 100, 28, 28])?;
    for object in known {
        columns[0].push_bytes(&object.stats);
        columns[1].push_fixed(timestamp(object.millis * 1_000_000, 0));
        columns[2].push_fixed(timestamp(0, 0));
        columns[3].push_fixed(272_400u64.to_le_bytes());
        columns[4].push_fixed(object.table.to_le_bytes());
    }
    write_rows(name, 0, &columns)
}
