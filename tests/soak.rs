//! Garbage from both sides at full rate: nothing ends the forwarder, nothing goes uncounted,
//! and the VM's good frames still pass in the end.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use common::{Bridge, HAND_OVERS, TART_SNDBUF, filtering_bridge};
use nix::sys::socket::{MsgFlags, recv};
use softnet::filter::DropReason;
use softnet::forward::HandOver;

#[test]
fn random_bytes_from_both_sides_are_all_accounted_for() {
    for hand_over in HAND_OVERS {
        soak(hand_over, SOAK);
    }
}

fn soak(hand_over: HandOver, time: Duration) {
    let Bridge {
        vm,
        host,
        forwarding,
        stop,
    } = filtering_bridge(hand_over, TART_SNDBUF);
    let (sent, received) = thread::scope(|scope| {
        let sent = [
            scope.spawn(|| send_garbage(&vm, &common::outbound(&[1; 400]), 1, time)),
            scope.spawn(|| send_garbage(&host, &common::inbound(&[2; 400]), 2, time)),
        ];
        let received = [
            scope.spawn(|| drain(&host, time)),
            scope.spawn(|| drain(&vm, time)),
        ];
        (
            sent.map(|sender| sender.join().unwrap()),
            received.map(|receiver| receiver.join().unwrap()),
        )
    });
    assert!(!stop.is_set(), "garbage ended the forwarder");

    // The VM may have been made to give its lease back: garbage can be a DHCPRELEASE.
    let good = [common::dhcp_request(), common::dhcp_ack()];
    let mut buffer = [0; 2048];
    for (from, to, frame) in [(&vm, &host, &good[0]), (&host, &vm, &good[1])] {
        from.send(frame).unwrap();
        while to.recv(&mut buffer).unwrap() != frame.len() {}
    }
    let frame = common::outbound(b"still here");
    vm.send(&frame).unwrap();
    while to_vec(&host, &mut buffer) != frame {}

    let [outbound, inbound] = forwarding.finish();
    for (counts, sent, received) in [
        (outbound, sent[0], received[0]),
        (inbound, sent[1], received[1]),
    ] {
        assert!(counts.balance(), "{hand_over:?} {counts:?}");
        // The lease was granted, and once more; one frame was good.
        let extra = counts.received - sent;
        assert!(
            (2..=3).contains(&extra),
            "{extra} frames from nowhere: {counts:?}"
        );
        assert!(
            counts.forwarded >= received && counts.forwarded <= received + 200,
            "{counts:?} {received}"
        );
        let reasons = counts.drops().count();
        assert!(
            reasons >= 8,
            "too tame a garbage: {:?}",
            counts.drops().collect::<Vec<_>>()
        );
        assert_eq!(counts.dropped_for(DropReason::Stopping), 0);
    }
}

/// Sends random bytes, and a good frame with some bytes changed; returns how many.
fn send_garbage(end: &UnixDatagram, good: &[u8], seed: u64, time: Duration) -> u64 {
    let mut random = Random(seed);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        let mut frame = if random.below(4) == 0 {
            vec![0; random.below(1600)]
        } else {
            good.to_vec()
        };
        let changes = if frame.iter().all(|byte| *byte == 0) {
            frame.len()
        } else {
            random.below(4)
        };
        for _ in 0..changes {
            // Mostly in the headers.
            let reach = if random.below(2) == 0 {
                frame.len().min(60)
            } else {
                frame.len()
            };
            let at = random.below(reach);
            frame[at] = random.next().to_le_bytes()[0];
        }
        frame.truncate(if random.below(50) == 0 {
            random.below(60)
        } else {
            usize::MAX
        });
        end.send(&frame).unwrap();
        sent += 1;
    }
    sent
}

fn drain(end: &UnixDatagram, time: Duration) -> u64 {
    let start = Instant::now();
    let mut buffer = [0; 2048];
    let mut received = 0;
    let mut quiet_since = Instant::now();
    while start.elapsed() < time || quiet_since.elapsed() < Duration::from_millis(200) {
        // The sender on this end wants to block.
        if recv(end.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {
            received += 1;
            quiet_since = Instant::now();
        } else {
            thread::sleep(Duration::from_micros(200));
        }
    }
    received
}

fn to_vec(end: &UnixDatagram, buffer: &mut [u8]) -> Vec<u8> {
    let len = end.recv(buffer).unwrap();
    buffer[..len].to_vec()
}

/// xorshift64*, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        let high = usize::try_from(self.next() >> 33).unwrap();
        high % limit.max(1)
    }
}

const SOAK: Duration = Duration::from_secs(3);
