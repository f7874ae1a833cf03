//! The parent's entries read beside an unchanged source, and cut again: `cargo bench --bench manifest`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use everpack::testing::scale::ScaleManifest;

const FILES: u64 = 1_000_000;

fn merge(c: &mut Criterion) {
    let manifest = ScaleManifest::create(FILES).expect("a manifest");
    let mut group = c.benchmark_group("manifest");
    group.sample_size(10);
    group.throughput(Throughput::Elements(FILES));
    group.bench_function("merge-unchanged", |b| {
        b.iter(|| assert_eq!(manifest.merge().expect("merged"), manifest.segment_count()));
    });
    group.finish();
}

criterion_group!(benches, merge);
criterion_main!(benches);
