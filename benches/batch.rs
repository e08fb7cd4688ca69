//! What keeping the books of a batch costs, without any system call: `batch/CASE`, per batch.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use softnet::batch::{Batch, FRAMES_MAX};

fn batch(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    group.throughput(Throughput::Elements(FRAMES_MAX as u64));
    let mut batch = Batch::new(1514);
    group.bench_function("round", |b| b.iter(|| round(&mut batch)));
    group.bench_function("new", |b| b.iter(|| Batch::new(black_box(1514))));
    group.finish();
}

/// From empty to empty: filled, queued, read for sending, advanced.
fn round(batch: &mut Batch) -> usize {
    let (slots, lens) = batch.fill(FRAMES_MAX);
    for (slot, len) in slots.zip(lens) {
        black_box(slot);
        *len = 64;
    }
    batch.set_received(FRAMES_MAX);
    for index in 0..batch.received() {
        batch.queue(index);
    }
    let bytes = batch.pending().map(|frame| black_box(frame).len()).sum();
    batch.advance(FRAMES_MAX);
    bytes
}

criterion_group!(benches, batch);
criterion_main!(benches);
