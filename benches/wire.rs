//! What reading a header costs: `wire/CASE`, per frame.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use softnet::bench::network::{Conversation, LAB};
use softnet::bench::traffic::{Traffic, lease_exchange};
use softnet::direction::Direction;
use softnet::wire::dhcp::Message;
use softnet::wire::ethernet::Ethernet;
use softnet::wire::ipv4::Ipv4;
use softnet::wire::udp::Udp;

fn wire(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    let frame = Traffic::Flow(64)
        .frames(Direction::Outbound, &Conversation::LAB)
        .remove(0);
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

criterion_group!(benches, wire);
criterion_main!(benches);
