//! What a decision costs, headers in cache: `filter/DIRECTION/TRAFFIC/RULES`, per frame.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use softnet::bench::network::{Conversation, LAB};
use softnet::bench::traffic::Traffic;
use softnet::direction::Direction;
use softnet::filter::Filter;

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
    let frames: Vec<_> = traffic
        .frames(direction, &Conversation::LAB)
        .into_iter()
        .cycle()
        .take(FRAMES)
        .collect();
    let mut group = c.benchmark_group(format!("filter/{way}"));
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function(BenchmarkId::new(kind, rules), |b| {
        b.iter(|| {
            for frame in &frames {
                black_box(filter.judge(black_box(frame)));
            }
        });
    });
    group.finish();
}

const FRAMES: usize = 1024;

criterion_group!(benches, filter);
criterion_main!(benches);
