//! Frames through the whole forwarder, between two sockets: none changed, none out of order,
//! none unaccounted for.

mod common;

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Bridge, HAND_OVERS, Lengths, MAX_FRAME, TART_SNDBUF, bridge, bridge_with, eventually,
    forward_between, number_of, numbered, options, pair,
};
use softnet::direction::Direction;
use softnet::filter::DropReason;
use softnet::forward::HandOver;
use softnet::stats::Counts;

#[test]
fn frames_of_every_length_arrive_unchanged_and_in_order_both_ways() {
    for hand_over in HAND_OVERS {
        let Bridge {
            vm,
            host,
            forwarding,
            ..
        } = bridge(hand_over);
        thread::scope(|scope| {
            scope.spawn(|| send_every_length(&vm));
            scope.spawn(|| send_every_length(&host));
            scope.spawn(|| receive_every_length(&vm));
            receive_every_length(&host);
        });
        for counts in forwarding.finish() {
            assert_eq!(counts.received, LENGTHS, "{hand_over:?}");
            assert_eq!(
                (counts.forwarded, counts.balance()),
                (LENGTHS, true),
                "{hand_over:?}"
            );
        }
    }
}

fn send_every_length(end: &UnixDatagram) {
    for (number, len) in (0..).zip(14..=MAX_FRAME) {
        end.send(&numbered(number, len)).unwrap();
        // Towards the VM frames are dropped if the socket stays full: leave it time.
        if number % 200 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn receive_every_length(end: &UnixDatagram) {
    let mut buffer = [0; 2048];
    for (number, len) in (0..).zip(14..=MAX_FRAME) {
        let received = end.recv(&mut buffer).unwrap();
        assert_eq!(received, len);
        assert_eq!(number_of(&buffer[..received]), number);
    }
}

const LENGTHS: u64 = (MAX_FRAME - 14 + 1) as u64;

#[test]
fn a_slow_host_stops_the_reading_and_loses_nothing() {
    for hand_over in HAND_OVERS {
        let Bridge {
            vm,
            host,
            forwarding,
            ..
        } = slow(hand_over);
        let received = thread::scope(|scope| {
            scope.spawn(|| send_numbered(&vm, SLOW_FRAMES));
            receive_slowly(&host, SLOW_FRAMES)
        });
        assert_eq!(
            received,
            (0..SLOW_FRAMES).collect::<Vec<_>>(),
            "{hand_over:?}"
        );
        let [outbound, _] = forwarding.finish();
        assert_eq!(outbound.forwarded, u64::from(SLOW_FRAMES));
        assert!(outbound.waits > 0, "the host was not slow: {outbound:?}");
        assert_eq!(
            outbound.handed_over > 0,
            hand_over != HandOver::Never,
            "{outbound:?}"
        );
        assert!(outbound.balance());
    }
}

#[test]
fn a_slow_vm_loses_frames_that_are_counted_and_keeps_the_order_of_the_rest() {
    for hand_over in HAND_OVERS {
        let Bridge {
            vm,
            host,
            forwarding,
            ..
        } = slow(hand_over);
        let received = thread::scope(|scope| {
            scope.spawn(|| send_numbered(&host, SLOW_FRAMES));
            receive_slowly(&vm, SLOW_FRAMES)
        });
        assert!(
            received.is_sorted_by(|a, b| a < b),
            "out of order: {hand_over:?}"
        );
        let [_, inbound] = forwarding.finish();
        assert_eq!(inbound.forwarded, received.len() as u64, "{hand_over:?}");
        assert!(
            inbound.dropped_for(DropReason::VmBusy) > 0,
            "the VM was not slow: {inbound:?}"
        );
        assert_eq!(inbound.received, u64::from(SLOW_FRAMES));
        assert!(inbound.balance());
    }
}

#[test]
fn under_load_two_threads_alternate_and_keep_the_order() {
    for (hand_over, frames, alternates) in [
        (HandOver::Load, QUEUED, true),
        (HandOver::Auto, QUEUED, false),
        // A batch or two are no load.
        (HandOver::Load, 100, false),
    ] {
        let (vm, vm_inner) = pair(TART_SNDBUF);
        let (host, host_inner) = pair(TART_SNDBUF);
        // Systems with a small net.core.wmem_max queue fewer.
        let frames = [&vm, &host].map(|end| queue_numbered(end, frames));
        let forwarding = forward_between(vm_inner, host_inner, hand_over);
        for (end, frames) in [&host, &vm].into_iter().zip(frames) {
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut buffer = [0; 2048];
            for number in 0..frames {
                let len = end.recv(&mut buffer).unwrap();
                assert_eq!(number_of(&buffer[..len]), number, "{hand_over:?}");
            }
        }
        for (counts, frames) in forwarding.finish().into_iter().zip(frames) {
            assert_eq!(counts.forwarded, u64::from(frames));
            assert_eq!(counts.handed_over > 0, alternates, "{counts:?}");
        }
    }
}

/// As many as the queue of a socket with Tart's buffers holds, and a dozen batches.
const QUEUED: u32 = 800;

/// A bridge whose sockets hold few frames.
fn slow(hand_over: HandOver) -> Bridge {
    bridge_with(
        &options(hand_over),
        64 << 10,
        MAX_FRAME,
        Lengths(MAX_FRAME),
        Lengths(MAX_FRAME),
    )
}

/// Sends as many frames as there is room for, and says how many.
fn queue_numbered(end: &UnixDatagram, count: u32) -> u32 {
    end.set_nonblocking(true).unwrap();
    let sent = (0..count).take_while(|&number| end.send(&numbered(number, 200)).is_ok());
    let sent = u32::try_from(sent.count()).unwrap();
    end.set_nonblocking(false).unwrap();
    assert!(sent == count || sent > 250, "only {sent} frames find room");
    sent
}

fn send_numbered(end: &UnixDatagram, count: u32) {
    for number in 0..count {
        end.send(&numbered(number, 200)).unwrap();
    }
}

/// Receives until nothing comes any more or `count` frames are there, with pauses.
fn receive_slowly(end: &UnixDatagram, count: u32) -> Vec<u32> {
    end.set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut buffer = [0; 2048];
    let mut numbers = Vec::new();
    while numbers.len() < count as usize {
        match end.recv(&mut buffer) {
            Ok(len) => numbers.push(number_of(&buffer[..len])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        if numbers.len() % 500 == 0 {
            thread::sleep(Duration::from_millis(10));
        }
    }
    numbers
}

const SLOW_FRAMES: u32 = 20_000;

#[test]
fn a_full_vm_socket_does_not_stop_the_other_direction() {
    for hand_over in HAND_OVERS {
        let Bridge {
            vm,
            host,
            forwarding,
            ..
        } = slow(hand_over);
        // Nobody reads the VM's end while this goes on.
        thread::scope(|scope| {
            scope.spawn(|| send_numbered(&host, 5_000));
            eventually("the VM's socket is full", || {
                forwarding
                    .counts(Direction::Inbound)
                    .dropped_for(DropReason::VmBusy)
                    > 0
            });
            let mut buffer = [0; 2048];
            for number in 0..1_000 {
                vm.send(&numbered(number, 100)).unwrap();
                let len = host.recv(&mut buffer).unwrap();
                assert_eq!(number_of(&buffer[..len]), number, "{hand_over:?}");
            }
        });
        assert!(forwarding.finish().iter().all(Counts::balance));
    }
}

#[test]
fn empty_datagrams_are_neither_the_end_nor_forwarded() {
    for hand_over in HAND_OVERS {
        let Bridge {
            vm,
            host,
            forwarding,
            ..
        } = bridge(hand_over);
        for (from, to) in [(&vm, &host), (&host, &vm)] {
            from.send(&[]).unwrap();
            from.send(&numbered(7, 60)).unwrap();
            let mut buffer = [0; 2048];
            assert_eq!(to.recv(&mut buffer).unwrap(), 60);
        }
        for counts in forwarding.finish() {
            assert_eq!(counts.dropped_for(DropReason::Runt), 1);
            assert!(counts.balance());
        }
    }
}

#[test]
fn frames_beyond_the_maximum_are_dropped_as_such() {
    let Bridge {
        vm,
        host,
        forwarding,
        ..
    } = bridge(HandOver::Auto);
    for len in [MAX_FRAME, MAX_FRAME + 1, 1600, 9014, 65_000] {
        vm.send(&numbered(1, len)).unwrap();
    }
    vm.send(&numbered(2, 60)).unwrap();
    let mut buffer = [0; 2048];
    assert_eq!(host.recv(&mut buffer).unwrap(), MAX_FRAME);
    assert_eq!(host.recv(&mut buffer).unwrap(), 60);
    let [outbound, _] = forwarding.finish();
    assert_eq!(outbound.dropped_for(DropReason::Oversize), 4);
    assert!(outbound.balance());
}

#[test]
fn jumbo_frames_pass_where_the_interface_takes_them() {
    let max = 65_550;
    let Bridge {
        vm,
        host,
        forwarding,
        ..
    } = bridge_with(
        &options(HandOver::Auto),
        4 << 20,
        max,
        Lengths(max),
        Lengths(max),
    );
    let mut buffer = vec![0; 70_000];
    for (number, len) in (0..).zip([9014, 16_384, 65_000, 65_550, 14, 1514]) {
        host.send(&numbered(number, len)).unwrap();
        assert_eq!(vm.recv(&mut buffer).unwrap(), len);
        assert_eq!(number_of(&buffer[..len]), number);
    }
    assert!(forwarding.finish().iter().all(Counts::balance));
}

#[test]
fn what_a_side_does_not_accept_is_dropped_alone_and_counted() {
    // A send buffer of the kernel's minimum refuses a datagram larger than itself.
    let max = 65_550;
    let Bridge {
        vm,
        host,
        forwarding,
        ..
    } = bridge_with(
        &options(HandOver::Auto),
        4096,
        max,
        Lengths(max),
        Lengths(max),
    );
    let mut buffer = vec![0; 70_000];
    for (from, to) in [(&vm, &host), (&host, &vm)] {
        // The sender needs more room than the forwarder has.
        nix::sys::socket::setsockopt(from, nix::sys::socket::sockopt::SndBuf, &(1 << 20)).unwrap();
        for frame in [numbered(1, 60), numbered(2, 60_000), numbered(3, 60)] {
            from.send(&frame).unwrap();
        }
        assert_eq!(
            to.recv(&mut buffer)
                .map(|len| number_of(&buffer[..len]))
                .unwrap(),
            1
        );
        assert_eq!(
            to.recv(&mut buffer)
                .map(|len| number_of(&buffer[..len]))
                .unwrap(),
            3
        );
    }
    let [outbound, inbound] = forwarding.finish();
    assert_eq!(outbound.dropped_for(DropReason::HostRefused), 1);
    assert_eq!(inbound.dropped_for(DropReason::VmRefused), 1);
    assert_eq!((outbound.errors, inbound.errors), (1, 1));
    assert!(outbound.balance() && inbound.balance());
}

#[test]
fn a_frame_for_a_vm_that_is_gone_ends_the_forwarder() {
    for hand_over in HAND_OVERS {
        let Bridge {
            vm,
            host,
            forwarding,
            stop,
        } = bridge(hand_over);
        drop(vm);
        host.send(&numbered(1, 60)).unwrap();
        eventually("the VM is found gone", || {
            forwarding.vm_gone() && stop.is_set()
        });
        let [_, inbound] = forwarding.finish();
        assert_eq!(inbound.dropped_for(DropReason::VmGone), 1);
        assert!(inbound.balance());
    }
}

#[test]
fn stopping_is_quick_and_leaves_no_frame_uncounted_even_when_all_is_full() {
    for hand_over in HAND_OVERS {
        let Bridge {
            vm,
            host,
            forwarding,
            ..
        } = slow(hand_over);
        // Nobody reads either end: both directions fill up to the last batch.
        for end in [&vm, &host] {
            end.set_nonblocking(true).unwrap();
        }
        let mut refused = 0;
        eventually("all is full for a while", || {
            let sent = [&vm, &host].map(|end| end.send(&numbered(0, 300)).is_ok());
            refused = if sent[0] { 0 } else { refused + 1 };
            refused > 50
        });
        let start = Instant::now();
        let [outbound, inbound] = forwarding.finish();
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "{:?}",
            start.elapsed()
        );
        assert!(
            outbound.dropped_for(DropReason::Stopping) > 0,
            "{hand_over:?} {outbound:?}"
        );
        assert!(
            outbound.balance() && inbound.balance(),
            "{outbound:?} {inbound:?}"
        );
    }
}

#[test]
fn a_second_forwarder_goes_on_where_the_first_stopped() {
    for hand_over in HAND_OVERS {
        let (vm, vm_inner) = pair(TART_SNDBUF);
        let (host, host_inner) = pair(TART_SNDBUF);
        let mut buffer = [0; 2048];
        for round in 0..3 {
            // Sent while nobody forwards, received by whoever does next.
            vm.send(&numbered(round, 60)).unwrap();
            let inner = (
                vm_inner.try_clone().unwrap(),
                host_inner.try_clone().unwrap(),
            );
            let forwarding = forward_between(inner.0, inner.1, hand_over);
            let len = host.recv(&mut buffer).unwrap();
            assert_eq!(number_of(&buffer[..len]), round);
            // All threads sleep by now, in whatever call they sleep in.
            thread::sleep(Duration::from_millis(5));
            let start = Instant::now();
            assert!(forwarding.finish().iter().all(Counts::balance));
            assert!(
                start.elapsed() < Duration::from_millis(500),
                "{:?}",
                start.elapsed()
            );
        }
    }
}
