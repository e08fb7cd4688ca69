//! The whole forwarder within one process, socket to socket: `forward/DIRECTION/HAND-OVER`,
//! per frame. `softnet bench` measures the same in a process of its own, and better; this one
//! is here to be looked at with a profiler.

use std::os::unix::net::UnixDatagram;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nix::sys::socket::{setsockopt, sockopt};
use softnet::bench::network::{Conversation, LAB};
use softnet::bench::traffic::{Traffic, lease_exchange};
use softnet::direction::Direction;
use softnet::endpoint::synthetic::SyntheticHost;
use softnet::endpoint::vm_socket::VmSocket;
use softnet::forward::{self, HandOver, Options};
use softnet::stop::Stop;

fn forward(c: &mut Criterion) {
    for (name, hand_over) in [
        ("auto", HandOver::Auto),
        ("load", HandOver::Load),
        ("always", HandOver::Always),
        ("never", HandOver::Never),
    ] {
        let (vm, vm_inner) = pair();
        let (host, host_inner) = pair();
        let (outbound, inbound) = LAB.filters(32, MAX_FRAME).unwrap();
        let stop = Stop::new().unwrap();
        let options = Options {
            hand_over,
            ..Options::default()
        };
        let forwarding = forward::start(
            VmSocket::new(vm_inner.into(), MAX_FRAME).unwrap(),
            SyntheticHost::new(host_inner, MAX_FRAME),
            outbound,
            inbound,
            &options,
            &stop,
        )
        .unwrap();
        let ends = |direction| match direction {
            Direction::Outbound => (&vm, &host),
            Direction::Inbound => (&host, &vm),
        };
        let mut buffer = [0; 2048];
        for (direction, message) in lease_exchange(&LAB) {
            let (from, to) = ends(direction);
            from.send(&message).unwrap();
            to.recv(&mut buffer).unwrap();
        }
        for (direction, way) in [
            (Direction::Outbound, "outbound"),
            (Direction::Inbound, "inbound"),
        ] {
            let frame = &Traffic::Flow(64).frames(direction, &Conversation::LAB)[0];
            let (from, to) = ends(direction);
            let mut group = c.benchmark_group(format!("forward/{way}"));
            group.throughput(Throughput::Elements(FRAMES));
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| {
                    for _ in 0..FRAMES {
                        from.send(frame).unwrap();
                    }
                    for _ in 0..FRAMES {
                        to.recv(&mut buffer).unwrap();
                    }
                });
            });
            group.finish();
        }
        assert!(
            forwarding
                .finish()
                .iter()
                .all(softnet::stats::Counts::balance)
        );
    }
}

/// A socketpair with Tart's buffers, as far as the system allows.
fn pair() -> (UnixDatagram, UnixDatagram) {
    let pair = UnixDatagram::pair().unwrap();
    for end in [&pair.0, &pair.1] {
        setsockopt(end, sockopt::SndBuf, &(1 << 20)).unwrap();
        setsockopt(end, sockopt::RcvBuf, &(4 << 20)).unwrap();
    }
    pair
}

const MAX_FRAME: usize = 1514;
/// Few enough for any socket's queue.
const FRAMES: u64 = 64;

criterion_group!(benches, forward);
criterion_main!(benches);
