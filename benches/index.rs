//! The local index: `cargo bench --bench index`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use everpack::testing::scale::ScaleIndex;
use tempfile::TempDir;

const CHUNKS: u64 = 1_000_000;
const FRAGMENT: u64 = 150_000;
const ADDED: u64 = 100_000;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn catch_up(c: &mut Criterion) {
    let runtime = runtime();
    let scratch = TempDir::new().expect("a directory");
    let mut scale = runtime.block_on(ScaleIndex::create(scratch.path())).expect("a store");
    runtime.block_on(scale.publish(CHUNKS, FRAGMENT)).expect("fragments");
    let mut group = c.benchmark_group("index/catch-up");
    group.sample_size(10);
    group.throughput(Throughput::Elements(CHUNKS));
    group.bench_function(BenchmarkId::new("from-nothing", CHUNKS), |b| {
        b.iter_custom(|times| {
            (0..times)
                .map(|_| {
                    scale.forget_index();
                    runtime.block_on(scale.catch_up()).expect("caught up").1
                })
                .sum()
        });
    });
    group.throughput(Throughput::Elements(ADDED));
    group.bench_function(BenchmarkId::new("one-more-fragment", ADDED), |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                runtime.block_on(scale.publish(ADDED, ADDED)).expect("fragments");
                took += runtime.block_on(scale.catch_up()).expect("caught up").1;
            }
            took
        });
    });
    group.finish();
}

fn look_up(c: &mut Criterion) {
    let runtime = runtime();
    let scratch = TempDir::new().expect("a directory");
    let mut scale = runtime.block_on(ScaleIndex::create(scratch.path())).expect("a store");
    runtime.block_on(scale.publish(CHUNKS, FRAGMENT)).expect("fragments");
    runtime.block_on(scale.catch_up()).expect("caught up");
    let mut group = c.benchmark_group("index/look-up, half of them new");
    group.sample_size(10);
    for size in [100, 1000, 100_000] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_custom(|times| black_box(scale.look_up(times, size).expect("looked up")).1);
        });
    }
    group.finish();
}

criterion_group!(benches, catch_up, look_up);
criterion_main!(benches);
