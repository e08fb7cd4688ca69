//! What asking the lease cell costs: `lease/CASE`. The path of every frame reads one word of
//! it, within `filter/...`; these are the rarer questions.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use softnet::batch::Slot;
use softnet::bench::network::{Conversation, LAB};
use softnet::bench::traffic::{Traffic, lease_exchange};
use softnet::direction::Direction;
use softnet::filter::{Filter, LeaseCell, Step};

fn lease(c: &mut Criterion) {
    let mut group = c.benchmark_group("lease");
    let cell = LeaseCell::new(Some(LAB.gateway_mac));
    group.bench_function("read-all", |b| b.iter(|| black_box(&cell).lease()));
    group.bench_function("gateway-mac", |b| b.iter(|| black_box(&cell).gateway_mac()));
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
    let frame = Traffic::Flow(64)
        .frames(Direction::Outbound, &Conversation::LAB)
        .remove(0);
    group.bench_function("none-yet", |b| {
        b.iter(|| outbound.judge(black_box(&frame)));
    });
    group.finish();
}

criterion_group!(benches, lease);
criterion_main!(benches);
