//! What the small parts cost, without any system call: reading a header (`wire/CASE`, per frame),
//! keeping the books of a batch (`batch/CASE`, per batch), and asking the lease cell (`lease/CASE`).
//! The path of every frame reads one word of that, within `filter/...`; these are the rarer
//! questions.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use softnet::batch::{Batch, FRAMES_MAX, Slot};
use softnet::bench::network::{Conversation, LAB};
use softnet::bench::traffic::{Traffic, lease_exchange};
use softnet::direction::Direction;
use softnet::filter::{Filter, LeaseCell, Step};
use softnet::wire::dhcp::Message;
use softnet::wire::ethernet::Ethernet;
use softnet::wire::ipv4::Ipv4;
use softnet::wire::udp::Udp;

fn wire(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    let frame = frame();
    group.bench_function("ethernet", |b| {
        b.iter(|| Ethernet::split(black_box(&frame)));
    });
    group.bench_function("ethernet-ipv4-udp", |b| {
        b.iter(|| {
            let (_, packet) = Ethernet::split(black_box(&frame))?;
            let packet = Ipv4::parse(packet)?;
            Udp::split(packet.payload).map(|(udp, _)| udp.destination.get())
        });
    });
    let [.., (_, ack)] = lease_exchange(&LAB);
    let message = &ack[14 + 20 + 8..];
    group.bench_function("dhcp", |b| {
        b.iter(|| Message::parse(black_box(message)).map(|message| message.kind));
    });
    group.finish();
}

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

fn lease(c: &mut Criterion) {
    let mut group = c.benchmark_group("lease");
    let cell = LeaseCell::default();
    group.bench_function("read-all", |b| b.iter(|| black_box(&cell).lease()));
    let (_, mut inbound) = LAB.filters_with_lease(0, 1514).unwrap();
    let [.., (_, ack)] = lease_exchange(&LAB);
    group.bench_function("renew", |b| {
        b.iter(|| {
            let mut slot = ack.clone();
            let mut len = u32::try_from(slot.len()).unwrap();
            black_box(inbound.inspect(&mut Slot::new(&mut slot, &mut len), Step::Dhcp))
        });
    });
    let (mut outbound, _) = LAB.filters(0, 1514).unwrap();
    let frame = frame();
    group.bench_function("none-yet", |b| {
        b.iter(|| outbound.judge(black_box(&frame)));
    });
    group.finish();
}

/// The VM's, of 64 bytes.
fn frame() -> Vec<u8> {
    let mut frames = Traffic::Flow(64).frames(Direction::Outbound, &Conversation::LAB);
    frames.remove(0)
}

criterion_group!(benches, wire, batch, lease);
criterion_main!(benches);
