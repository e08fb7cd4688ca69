//! What a decision costs, headers in cache: `filter/DIRECTION/TRAFFIC/RULES`, per frame.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use softnet::batch::Slot;
use softnet::bench::network::{Conversation, LAB};
use softnet::bench::traffic::Traffic;
use softnet::clock::Tick;
use softnet::direction::Direction;
use softnet::filter::{DropReason, Filter, Verdict};

fn filter(c: &mut Criterion) {
    for rules in [0, 8, 32, 4096] {
        let (mut outbound, mut inbound) = LAB.filters_with_lease(rules, 1514).unwrap();
        let kinds = [
            ("flow", Traffic::Flow(64)),
            ("mixed", Traffic::Mixed),
            ("spoofed", Traffic::Spoofed),
        ];
        for (kind, traffic) in kinds {
            direction(c, &mut outbound, Direction::Outbound, kind, traffic, rules);
            direction(c, &mut inbound, Direction::Inbound, kind, traffic, rules);
        }
    }
    let (mut outbound, mut inbound) = LAB.tracking_filters_with_lease(32, 1514).unwrap();
    let (kind, flow) = ("tracked", Traffic::Flow(64));
    // Confirmed by both sides, as most connections are.
    outbound.begin(Tick::from_secs(1));
    inbound.begin(Tick::from_secs(1));
    decide_all(
        &mut outbound,
        &mut flow.frames(Direction::Outbound, &Conversation::LAB),
    );
    decide_all(
        &mut inbound,
        &mut flow.frames(Direction::Inbound, &Conversation::LAB),
    );
    decide_all(
        &mut outbound,
        &mut flow.frames(Direction::Outbound, &Conversation::LAB),
    );
    direction(c, &mut outbound, Direction::Outbound, kind, flow, 32);
    direction(c, &mut inbound, Direction::Inbound, kind, flow, 32);
    opening(c);
}

/// Datagrams of which each opens a connection, between ever new ports. The table is soon full, and
/// old connections have to go.
fn opening(c: &mut Criterion) {
    let (mut outbound, _) = LAB.tracking_filters_with_lease(32, 1514).unwrap();
    let mut frame = Traffic::Flow(64).frames(Direction::Outbound, &Conversation::LAB);
    let frame = frame.first_mut().unwrap();
    outbound.begin(Tick::from_secs(1));
    let (mut number, mut round) = (0_u32, 0);
    let mut group = c.benchmark_group("filter/outbound");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function(BenchmarkId::new("opening", 32), |b| {
        b.iter(|| {
            // Time passes, so that no limit for a server is reached, but not beyond the lease.
            round = (round + 1) % 8000;
            outbound.begin(Tick::from_secs(1).after_ticks(64 * round));
            for _ in 0..FRAMES {
                number = number.wrapping_add(1);
                // No port that means something.
                let ports = (number | 0x4000_4000).to_be_bytes();
                frame[SOURCE_PORT..SOURCE_PORT + 4].copy_from_slice(&ports);
                let mut len = u32::try_from(frame.len()).unwrap();
                let verdict = outbound.decide(&mut Slot::new(black_box(frame), &mut len));
                // Where nothing in the new connection's set may go, it is refused.
                let full = Verdict::Drop(DropReason::FlowsFull);
                assert!(
                    verdict == Verdict::Forward || verdict == full,
                    "{verdict:?}"
                );
            }
        });
    });
    group.finish();
}

fn direction(
    c: &mut Criterion,
    filter: &mut impl Filter,
    direction: Direction,
    kind: &str,
    traffic: Traffic,
    rules: usize,
) {
    let way = match direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    };
    // As many frames for each kind, so that the loop around them costs each the same.
    let mut frames: Vec<_> = traffic
        .frames(direction, &Conversation::LAB)
        .into_iter()
        .cycle()
        .take(FRAMES)
        .collect();
    filter.begin(Tick::from_secs(1));
    let mut group = c.benchmark_group(format!("filter/{way}"));
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function(BenchmarkId::new(kind, rules), |b| {
        b.iter(|| decide_all(filter, &mut frames));
    });
    group.finish();
}

#[inline]
fn decide_all(filter: &mut impl Filter, frames: &mut [Vec<u8>]) {
    for frame in frames {
        let mut len = u32::try_from(frame.len()).unwrap();
        black_box(filter.decide(&mut Slot::new(black_box(frame), &mut len)));
    }
}

const FRAMES: usize = 1024;

/// Where the ports are, behind the headers of Ethernet and IPv4.
const SOURCE_PORT: usize = 14 + 20;

criterion_group!(benches, filter);
criterion_main!(benches);
