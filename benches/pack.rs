//! Packs built and named: `cargo bench --bench pack`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use everpack::testing::scale::build_pack;

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack/build");
    group.sample_size(20);
    for (chunks, len) in [(480, 64 << 10), (30_000, 1000)] {
        let payload = vec![0x5a; len];
        group.throughput(Throughput::Bytes(chunks * len as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{chunks} x {len}")), |b| {
            b.iter(|| assert!(build_pack(chunks, &payload) > len));
        });
    }
    group.finish();
}

criterion_group!(benches, build);
criterion_main!(benches);
