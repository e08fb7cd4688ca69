//! How many instructions the work on a frame takes, counted by Valgrind: the same number each
//! time, on a busy machine too. `make perf-check` holds them against perf/baseline.
#![allow(missing_docs, unused_qualifications, clippy::exit)] // Of what the macros make.

use std::hint::black_box;

use etherparse::{Ipv4Header, TcpHeader};
use gungraun::{LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use softnet::batch::{Batch, FRAMES_MAX, Slot};
use softnet::bench::network::{Conversation, LAB, NOW, Slowed};
use softnet::bench::traffic::{Traffic, lease_exchange};
use softnet::direction::Direction;
use softnet::endpoint::large::{Carry, Run, spread};
use softnet::filter::{Filter, Inbound, Outbound, Step, Verdict};

#[library_benchmark]
#[bench::flow(outbound(Traffic::Flow(64), 32))]
#[bench::mixed(outbound(Traffic::Mixed, 32))]
#[bench::mixed_4096_rules(outbound(Traffic::Mixed, 4096))]
#[bench::spoofed(outbound(Traffic::Spoofed, 32))]
fn filter_outbound((mut filter, frames): Judged<Outbound>) -> Judged<Outbound> {
    judge(&mut filter, &frames);
    // Given back, so that tearing them down is not counted.
    (filter, frames)
}

#[library_benchmark]
#[bench::flow(inbound(Traffic::Flow(64)))]
#[bench::mixed(inbound(Traffic::Mixed))]
fn filter_inbound((mut filter, frames): Judged<Inbound>) -> Judged<Inbound> {
    judge(&mut filter, &frames);
    (filter, frames)
}

#[library_benchmark]
#[bench::outbound(tracked(Traffic::Flow(64), 32).0)]
fn filter_tracked_outbound((mut filter, mut frames): Judged<Outbound>) -> Judged<Outbound> {
    decide(&mut filter, &mut frames);
    (filter, frames)
}

#[library_benchmark]
#[bench::inbound(tracked(Traffic::Flow(64), 32).1)]
fn filter_tracked_inbound((mut filter, mut frames): Judged<Inbound>) -> Judged<Inbound> {
    decide(&mut filter, &mut frames);
    (filter, frames)
}

#[library_benchmark]
#[bench::exchange(dhcp())]
fn filter_dhcp((mut outbound, mut inbound, mut messages): Dhcp) -> Dhcp {
    for (direction, message) in &mut messages {
        let len = message.len() - ROOM;
        match direction {
            Direction::Outbound => pass(&mut outbound, message, len),
            Direction::Inbound => pass(&mut inbound, message, len),
        }
    }
    (outbound, inbound, messages)
}

#[library_benchmark]
#[bench::round(Batch::new(1514))]
fn batch(mut batch: Batch) -> Batch {
    for _ in 0..FRAMES_BATCHED / FRAMES_MAX {
        let (slots, lens) = batch.fill(black_box(FRAMES_MAX));
        for (slot, len) in slots.zip(lens) {
            black_box(slot);
            *len = 64;
        }
        batch.set_received(black_box(FRAMES_MAX));
        black_box(batch.received_bytes());
        for index in 0..batch.received() {
            batch.queue(index);
        }
        for frame in batch.pending() {
            black_box(frame);
        }
        batch.advance(black_box(FRAMES_MAX));
    }
    batch
}

// A batch of one connection is merged: 64 segments, in two runs.
#[library_benchmark]
#[bench::merge(segments(1))]
#[bench::in_vain(segments(FRAMES_MAX))]
fn large_outbound(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut rest = frames.iter().map(Vec::as_slice);
    while let Some(first) = rest.next() {
        if let Some(run) = Run::of(black_box(first), rest.clone()) {
            rest.nth(run.data.len() - 2);
            black_box(run);
        }
    }
    frames
}

// A large segment is cut into 45 frames.
#[library_benchmark]
#[bench::split(large_segment())]
fn large_inbound((mut batch, mut carry, segment): Cut) -> Cut {
    let mut room = batch.room();
    room.behind(0, 0)[..segment.len()].copy_from_slice(&segment);
    let frames = spread(&mut room, 0, segment.len(), black_box(1448), &mut carry);
    assert_eq!(black_box(frames), 45);
    (batch, carry, segment)
}

type Cut = (Batch, Carry, Vec<u8>);

/// A batch of full segments of so many connections in turn.
fn segments(connections: usize) -> Vec<Vec<u8>> {
    (0..FRAMES_MAX)
        .map(|index| segment(index % connections, index / connections, 1448))
        .collect()
}

fn large_segment() -> Cut {
    let segment = segment(0, 0, 45 * 1448);
    (Batch::new(1514), Carry::new(), segment)
}

/// The segment of a connection that comes after so many others.
fn segment(connection: usize, number: usize, len: usize) -> Vec<u8> {
    let [port, id] = [40_000 + connection, number].map(|it| u16::try_from(it).unwrap());
    let sequence = u32::try_from(number * len).unwrap();
    let data = vec![7; len];
    let mut tcp = TcpHeader::new(port, 443, sequence, 500);
    (tcp.ack, tcp.acknowledgment_number) = (true, 1);
    let (vm, peer) = ([192, 168, 64, 2], [1, 2, 3, 4]);
    let packet_len = u16::try_from(tcp.header_len() + len).unwrap();
    let mut ip = Ipv4Header::new(packet_len, 64, 6.into(), vm, peer).unwrap();
    ip.identification = id;
    ip.header_checksum = ip.calc_header_checksum();
    tcp.checksum = tcp.calc_checksum_ipv4(&ip, &data).unwrap();
    let ethernet = [&[2, 0, 0, 0, 0, 1][..], &[0x52, 0x54, 0, 0, 0, 2], &[8, 0]].concat();
    [&ethernet[..], &ip.to_bytes(), &tcp.to_bytes(), &data].concat()
}

type Judged<F> = (Slowed<F>, Vec<Vec<u8>>);
type Dhcp = (Outbound, Inbound, Vec<(Direction, Vec<u8>)>);

fn outbound(traffic: Traffic, rules: usize) -> Judged<Outbound> {
    let (outbound, _) = LAB.filters_with_lease(rules, 1514).unwrap();
    (
        Slowed::new(outbound, slow()),
        frames(traffic, Direction::Outbound),
    )
}

fn inbound(traffic: Traffic) -> Judged<Inbound> {
    let (_, inbound) = LAB.filters_with_lease(32, 1514).unwrap();
    (
        Slowed::new(inbound, slow()),
        frames(traffic, Direction::Inbound),
    )
}

/// Both filters while a rule names a direction, and the frames of connections that are open.
fn tracked(traffic: Traffic, rules: usize) -> (Judged<Outbound>, Judged<Inbound>) {
    let (mut outbound, mut inbound) = LAB.tracking_filters_with_lease(rules, 1514).unwrap();
    outbound.begin(NOW);
    inbound.begin(NOW);
    let [mut sent, mut received] = Direction::ALL.map(|direction| frames(traffic, direction));
    decide(&mut outbound, &mut sent);
    decide(&mut inbound, &mut received);
    (
        (Slowed::new(outbound, slow()), sent),
        (Slowed::new(inbound, slow()), received),
    )
}

/// How many iterations slower to make the filter: perf/check.py shows with it that it can fail.
fn slow() -> u32 {
    std::env::var(SLOW).map_or(0, |iterations| iterations.parse().unwrap())
}

fn frames(traffic: Traffic, direction: Direction) -> Vec<Vec<u8>> {
    traffic
        .frames(direction, &Conversation::LAB)
        .into_iter()
        .cycle()
        .take(FRAMES)
        .collect()
}

fn dhcp() -> Dhcp {
    let (outbound, inbound) = LAB.filters(32, 1514).unwrap();
    let mut messages = Vec::from(lease_exchange(&LAB));
    for (_, message) in &mut messages {
        message.resize(message.len() + ROOM, 0);
    }
    (outbound, inbound, messages)
}

fn judge(filter: &mut impl Filter, frames: &[Vec<u8>]) {
    for frame in frames {
        black_box(filter.judge(black_box(frame)));
    }
}

/// To the end, which where connections are tracked takes the second look.
fn decide(filter: &mut impl Filter, frames: &mut [Vec<u8>]) {
    for frame in frames {
        let mut len = u32::try_from(frame.len()).unwrap();
        let verdict = filter.decide(&mut Slot::new(black_box(frame), &mut len));
        assert_eq!(verdict, Verdict::Forward);
    }
}

fn pass(filter: &mut impl Filter, slot: &mut [u8], len: usize) {
    let mut len = u32::try_from(len).unwrap();
    let mut slot = Slot::new(slot, &mut len);
    let why = filter.judge(slot.frame());
    assert_eq!(why, Step::Dhcp);
    assert_eq!(black_box(filter.inspect(&mut slot, why)), Verdict::Forward);
}

const SLOW: &str = "SOFTNET_SLOW_FILTER";
const FRAMES: usize = 1024;
/// However many a batch has.
const FRAMES_BATCHED: usize = 3200;
/// What a message may grow by.
const ROOM: usize = 64;

library_benchmark_group!(
    name = data_path,
    benchmarks = [
        filter_outbound,
        filter_inbound,
        filter_tracked_outbound,
        filter_tracked_inbound,
        filter_dhcp,
        batch,
        large_outbound,
        large_inbound
    ]
);
main!(
    config = LibraryBenchmarkConfig::default().pass_through_env(SLOW);
    library_benchmark_groups = data_path
);
