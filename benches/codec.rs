//! What the codec costs per byte: cutting, naming, walking, splitting, coding and decoding.
//!
//! The data are columns made up here and compressed with LZ4, one block each: numbers that climb, short texts, prices,
//! noise. Throughput is in stored bytes, as in design.md §15. Run with `cargo bench --bench codec`.

#![allow(missing_docs, reason = "criterion's macros write public functions")]
#![allow(clippy::print_stdout, reason = "a bench prints")]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "numbers made up here")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use everpack::bench_support::{Coder, Lz4Chunk, Record, cut_fast_cdc, cut_gear, hash, walk};

/// The average chunk of a new repository.
const AVERAGE: u32 = 32 << 10;

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An LZ4 block, what it decodes to, and its chunks.
struct Column {
    block: Vec<u8>,
    plain_len: u32,
    lens: Vec<usize>,
    skips: Vec<u32>,
}

impl Column {
    fn new(kind: usize, state: &mut u64) -> Self {
        let mut plain = Vec::new();
        for row in 0..160_000u64 {
            let noise = splitmix64(state);
            match kind % 4 {
                0 => plain.extend_from_slice(&(row * 3 + noise % 3).to_le_bytes()),
                1 => plain.extend_from_slice(&(noise % 100_000).to_le_bytes()),
                2 => plain.extend_from_slice(
                    ["packed and shipped ", "returned ", "open ", "paid "][noise as usize % 4].as_bytes(),
                ),
                _ => plain.extend_from_slice(format!("user{:05}@example.com", noise % 50_000).as_bytes()),
            }
        }
        let block = lz4_flex::block::compress(&plain);
        let plain_len = u32::try_from(plain.len()).expect("a few megabytes");
        let lens = cut_gear(&block, AVERAGE).expect("a good average");
        let skips = walk(&block, plain_len, &lens).expect("a sound block");
        Self { block, plain_len, lens, skips }
    }

    fn chunks(&self) -> impl Iterator<Item = Lz4Chunk<'_>> {
        let mut rest = &self.block[..];
        self.lens.iter().zip(&self.skips).map(move |(&len, &skip)| {
            let (bytes, behind) = rest.split_at(len);
            rest = behind;
            Lz4Chunk { bytes, skip }
        })
    }
}

fn group<'a>(criterion: &'a mut Criterion, name: &str, bytes: u64) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes));
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

fn reading(criterion: &mut Criterion, columns: &[Column], bytes: u64) {
    let mut group = group(criterion, "read", bytes);
    group.bench_function("cut, gear 32K", |b| {
        b.iter(|| columns.iter().map(|column| cut_gear(&column.block, AVERAGE).expect("cut").len()).sum::<usize>());
    });
    group.bench_function("cut, FastCDC 1M", |b| {
        b.iter(|| columns.iter().map(|column| cut_fast_cdc(&column.block).len()).sum::<usize>());
    });
    group.bench_function("hash chunks", |b| {
        b.iter(|| columns.iter().flat_map(Column::chunks).fold(0, |all, chunk| all ^ hash(chunk.bytes)));
    });
    group.bench_function("walk LZ4", |b| {
        b.iter(|| {
            for column in columns {
                black_box(walk(&column.block, column.plain_len, &column.lens).expect("a sound block"));
            }
        });
    });
    group.finish();
}

fn coding(criterion: &mut Criterion, columns: &[Column], bytes: u64) {
    let mut coder = Coder::new().expect("memory");
    let mut group = group(criterion, "code", bytes);
    let chunks = || columns.iter().flat_map(Column::chunks);
    group.bench_function("split", |b| {
        b.iter(|| chunks().map(|chunk| coder.split(chunk).expect("split")).sum::<usize>());
    });
    group.bench_function("split and merge", |b| {
        b.iter(|| chunks().for_each(|chunk| coder.split_and_merge(chunk).expect("merge")));
    });
    group.bench_function("encode, split", |b| {
        b.iter(|| chunks().map(|chunk| coder.encode_split(chunk).expect("encode").1.len()).sum::<usize>());
    });
    group.bench_function("encode, zstd", |b| {
        b.iter(|| chunks().map(|chunk| coder.encode_opaque(chunk.bytes).1.len()).sum::<usize>());
    });
    for split in [true, false] {
        let records: Vec<_> = chunks()
            .map(|chunk| {
                let (coding, payload) =
                    if split { coder.encode_split(chunk).expect("encode") } else { coder.encode_opaque(chunk.bytes) };
                let plain_len = u32::try_from(chunk.bytes.len()).expect("short");
                Record { coding, payload: payload.to_vec(), plain_len }
            })
            .collect();
        let stored: usize = records.iter().map(|record| record.payload.len()).sum();
        let name = if split { "decode, split" } else { "decode, zstd" };
        println!("{name}: {:.1} % of the bytes as stored", stored as f64 * 100.0 / bytes as f64);
        group.bench_function(name, |b| {
            b.iter(|| records.iter().map(|record| coder.decode(record).expect("decode")).sum::<usize>());
        });
    }
    group.finish();
}

fn noise(criterion: &mut Criterion) {
    let mut coder = Coder::new().expect("memory");
    let mut state = 1;
    let chunk: Vec<u8> = (0..1 << 17).flat_map(|_| splitmix64(&mut state).to_le_bytes()).collect();
    let mut group = group(criterion, "noise", chunk.len() as u64);
    group.bench_function("encode, zstd", |b| b.iter(|| coder.encode_opaque(&chunk).0));
    group.finish();
}

fn all(criterion: &mut Criterion) {
    let mut state = 1;
    let columns: Vec<_> = (0..8).map(|kind| Column::new(kind, &mut state)).collect();
    let bytes = columns.iter().map(|column| column.block.len() as u64).sum();
    reading(criterion, &columns, bytes);
    coding(criterion, &columns, bytes);
    noise(criterion);
}

criterion_group!(benches, all);
criterion_main!(benches);
