//! The differential fuzz: segments of a few connections, well behaved and not, through a TAP that
//! merges them, a bridge, and another TAP. Each arrives byte by byte as it was sent, in the same order,
//! but for the identification where fragments are forbidden. `OFFLOAD_FUZZ_SECONDS` sets how long.

#[path = "../../src/endpoint/large/tests/senders.rs"]
mod senders;

use std::cell::RefCell;
use std::env;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};
use softnet::batch::{Batch, FRAMES_MAX};
use softnet::endpoint::tap::Offload;
use softnet::endpoint::{Received, Source};

use super::Bridged;
use super::program::as_root;
use senders::{Senders, comparable, segment};

/// A plain TAP, for which the kernel cuts, and one that this program reads and cuts for itself.
#[test]
fn what_comes_through_two_taps_is_what_was_sent() {
    let seconds = env::var("OFFLOAD_FUZZ_SECONDS").map_or(4, |it| it.parse().unwrap());
    for there in [Offload::Off, Offload::Auto] {
        as_root(move || {
            let bridged = Bridged::new(Offload::Auto, there);
            // Where the bridge has the firewall judge packets, that drops those with a wrong checksum.
            let judges = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
            if judges.exists() {
                fs::write(judges, "0").unwrap();
            }
            compare_for(Duration::from_secs(seconds) / 2, bridged);
        });
    }
}

fn compare_for(time: Duration, bridged: Bridged) {
    let end = Instant::now() + time;
    let before = bridged.writes();
    let (bridged, tried) = (RefCell::new(bridged), RefCell::new(0));
    while Instant::now() < end {
        let mut runner = TestRunner::new(Config {
            cases: 16,
            failure_persistence: None,
            // A frame that does not arrive is waited for.
            max_shrink_iters: 50,
            ..Config::default()
        });
        let outcome = runner.run(&vec(segment(), 1..300), |sent| {
            let mut senders = Senders::new();
            let frames: Vec<_> = sent.iter().map(|sent| senders.frame(sent)).collect();
            let mut bridged = bridged.borrow_mut();
            // What a case that failed has left.
            let mut batch = Batch::new(1514);
            while let Received::Frames = bridged.source.recv(&mut batch, FRAMES_MAX) {}
            bridged.send(&frames);
            let received = bridged.receive(frames.len());
            assert_eq!(received.len(), frames.len());
            for (received, sent) in received.iter().zip(&frames) {
                assert_eq!(comparable(received), comparable(sent));
            }
            *tried.borrow_mut() += frames.len();
            Ok(())
        });
        outcome.unwrap();
    }
    let (writes, tried) = (bridged.borrow().writes() - before, tried.into_inner());
    println!("{tried} frames in {writes} writes");
    assert!(writes * 4 < tried * 3, "next to nothing was merged");
}
