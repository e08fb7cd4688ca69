//! The forwarder between the VM's socket and vmnet, against the simulation of macOS' C
//! interfaces (`tests/vmnet-sim`): whatever vmnet does, frames keep their order, losses are
//! counted, and the end comes quickly.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use common::{Lengths, MAX_FRAME, TART_SNDBUF, eventually, number_of, numbered, pair};
use softnet::direction::Direction;
use softnet::endpoint::vm_socket::VmSocket;
use softnet::endpoint::vmnet::{Vmnet, VmnetError, missed_events};
use softnet::filter::{DropReason, Mode};
use softnet::forward::{self, Forwarding, HandOver, Options};
use softnet::stats::Counts;
use softnet::stop::Stop;
use vmnet_sim::{Call, Host, REFUSED, Script, script};

/// A forwarder between a VM and a simulated vmnet.
struct Mac {
    vm: UnixDatagram,
    host: Host,
    forwarding: Forwarding,
    /// Of the forwarder's end of the VM's socket.
    fd: i32,
}

fn mac(name: &str, hand_over: HandOver) -> Mac {
    let host = Script::named(name).unwrap().install();
    let vmnet = Vmnet::open(Mode::Nat, true, || false).unwrap();
    let (vm, inner) = pair(TART_SNDBUF);
    vm.set_read_timeout(Some(PATIENCE)).unwrap();
    let fd = inner.as_raw_fd();
    let vm_socket = VmSocket::new(inner.into(), MAX_FRAME).unwrap();
    let options = Options {
        hand_over,
        ..Options::default()
    };
    let stop = Stop::new().unwrap();
    let pass = || Lengths(MAX_FRAME);
    let forwarding = forward::start(vm_socket, vmnet, pass(), pass(), &options, &stop).unwrap();
    Mac {
        vm,
        host,
        forwarding,
        fd,
    }
}

impl Mac {
    /// Sends frames both ways and returns the numbers of those that arrived, outbound first.
    fn traffic(&self, frames: u32) -> [Vec<u32>; 2] {
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..frames {
                    self.vm.send(&numbered(number, 100)).unwrap();
                }
            });
            scope.spawn(|| {
                for number in 0..frames {
                    self.host.send(&numbered(number, 100));
                    // More than the VM's socket holds at once would be dropped.
                    if number % 64 == 63 {
                        thread::sleep(Duration::from_millis(2));
                    }
                }
            });
            let inbound = scope.spawn(|| {
                let mut buffer = [0; 2048];
                let received = (0..frames).map_while(|_| {
                    self.vm
                        .recv(&mut buffer)
                        .ok()
                        .map(|len| number_of(&buffer[..len]))
                });
                received.collect()
            });
            let received = (0..frames).map_while(|_| self.host.recv(PATIENCE));
            let outbound = received.map(|frame| number_of(&frame)).collect();
            [outbound, inbound.join().unwrap()]
        })
    }

    /// Ends the forwarder and checks what must hold after every end.
    fn finish(self) -> [Counts; 2] {
        let start = Instant::now();
        let counts = self.forwarding.finish();
        assert!(
            start.elapsed() < Duration::from_millis(900),
            "{:?}",
            start.elapsed()
        );
        assert!(counts.iter().all(Counts::balance), "{counts:?}");
        assert!(self.host.stopped());
        assert_eq!(self.host.misuse(), [""; 0]);
        counts
    }
}

#[test]
fn frames_pass_in_order_and_without_loss_whatever_vmnet_does() {
    let all: Vec<u32> = (0..500).collect();
    for name in script::NAMES {
        if !Script::named(name).unwrap().starts() || name.ends_with("-broken") {
            continue;
        }
        for hand_over in common::HAND_OVERS {
            let mac = mac(name, hand_over);
            let [outbound, inbound] = mac.traffic(500);
            assert_eq!(outbound, all, "{name} {hand_over:?} outbound");
            assert_eq!(inbound, all, "{name} {hand_over:?} inbound");
            let counts = mac.finish();
            assert!(
                counts.iter().all(|counts| counts.forwarded == 500),
                "{name} {counts:?}"
            );
        }
    }
}

#[test]
fn a_vmnet_that_breaks_is_counted_and_ends_nothing() {
    let mac = mac("write-broken", HandOver::Auto);
    let [outbound, inbound] = mac.traffic(50);
    assert_eq!((outbound.len(), inbound.len()), (0, 50));
    let [outbound, _] = mac.finish();
    assert_eq!(outbound.dropped_for(DropReason::HostRefused), 50);
    assert_eq!((outbound.errors, outbound.last_error), (50, libc::ENXIO));

    let mac = self::mac("read-broken", HandOver::Auto);
    eventually("reading fails", || {
        mac.host.send(&numbered(0, 60));
        mac.forwarding.counts(Direction::Inbound).errors > 0
    });
    thread::sleep(Duration::from_secs(1));
    mac.vm.send(&numbered(1, 60)).unwrap();
    assert_eq!(number_of(&mac.host.recv(PATIENCE).unwrap()), 1);
    let [_, inbound] = mac.finish();
    // One in 200 ms: a broken interface does not keep a core busy.
    assert!((1..10).contains(&inbound.errors), "{inbound:?}");
}

#[test]
fn a_frame_that_vmnet_refuses_is_dropped_alone() {
    for hand_over in common::HAND_OVERS {
        let mac = mac("well", hand_over);
        let mut refused = 0;
        for number in 0..300 {
            let mut frame = numbered(number, 100);
            if number % 7 == 3 {
                frame.truncate(100 - REFUSED.len());
                frame.extend(REFUSED);
                refused += 1;
            }
            mac.vm.send(&frame).unwrap();
        }
        for number in (0..300).filter(|number| number % 7 != 3) {
            assert_eq!(number_of(&mac.host.recv(PATIENCE).unwrap()), number);
        }
        let [outbound, _] = mac.finish();
        assert_eq!(outbound.dropped_for(DropReason::HostRefused), refused);
        assert_eq!(
            (outbound.errors, outbound.last_error),
            (refused, libc::EINVAL)
        );
    }
}

#[test]
fn an_event_that_never_comes_is_made_up_for_within_the_safety_poll() {
    let mac = mac("once", HandOver::Auto);
    let mut buffer = [0; 2048];
    for number in 0..5 {
        let start = Instant::now();
        mac.host.send(&numbered(number, 60));
        assert_eq!(mac.vm.recv(&mut buffer).unwrap(), 60);
        assert!(
            start.elapsed() < Duration::from_millis(300),
            "{:?}",
            start.elapsed()
        );
        thread::sleep(Duration::from_millis(5));
    }
    assert!(missed_events() >= 3, "{}", missed_events());
    let _ = mac.finish();
}

#[test]
fn a_vm_without_room_is_waited_for_a_little_and_then_frames_are_counted() {
    let mac = mac("well", HandOver::Auto);
    // Two frames at once, for one alone is sent by another call.
    vmnet_sim::fail_next(Call::Send, mac.fd, libc::ENOBUFS, 3);
    let mut buffer = [0; 2048];
    let mut sent = 0;
    eventually("a batch met ENOBUFS and got through", || {
        for _ in 0..20 {
            mac.host.send(&numbered(sent, 60));
            sent += 1;
        }
        for _ in 0..20 {
            assert_eq!(mac.vm.recv(&mut buffer).unwrap(), 60);
        }
        mac.forwarding.counts(Direction::Inbound).waits >= 2
    });
    let [_, inbound] = mac.finish();
    assert_eq!(inbound.forwarded, u64::from(sent));
}

/// What sendmsg_x took and did not send is lost, and nothing tells: it counts as forwarded, once.
#[test]
fn frames_that_a_kernel_short_of_buffers_took_count_once_and_the_rest_arrive() {
    let mac = mac("well", HandOver::Auto);
    let mut buffer = [0; 2048];
    let (mut sent, mut arrived) = (0, Vec::new());
    mac.vm
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    // A batch of more than two frames; two calls each lose two frames that they report.
    vmnet_sim::lose_next(mac.fd, 2, 2);
    eventually("two batches were cut short", || {
        for _ in 0..20 {
            mac.host.send(&numbered(sent, 60));
            sent += 1;
        }
        while let Ok(len) = mac.vm.recv(&mut buffer) {
            arrived.push(number_of(&buffer[..len]));
        }
        arrived.len() + 4 == sent as usize
    });
    assert!(arrived.is_sorted_by(|one, next| one < next), "{arrived:?}");
    let [_, inbound] = mac.finish();
    assert_eq!(inbound.forwarded, u64::from(sent));
    assert_eq!(inbound.dropped.iter().sum::<u64>(), 0);
}

#[test]
fn a_kernel_that_takes_nothing_and_says_nothing_is_asked_again() {
    let mac = mac("well", HandOver::Auto);
    let mut buffer = [0; 2048];
    let mut sent = 0;
    vmnet_sim::lose_next(mac.fd, 0, 3);
    eventually("a batch was not taken at first", || {
        for _ in 0..20 {
            mac.host.send(&numbered(sent, 60));
            sent += 1;
        }
        for number in sent - 20..sent {
            let len = mac.vm.recv(&mut buffer).unwrap();
            assert_eq!(number_of(&buffer[..len]), number);
        }
        mac.forwarding.counts(Direction::Inbound).waits >= 2
    });
    let [_, inbound] = mac.finish();
    assert_eq!(inbound.forwarded, u64::from(sent));
}

#[test]
fn a_vm_that_stays_without_room_loses_frames_in_order_and_stops_nothing() {
    let mac = mac("well", HandOver::Auto);
    // Nobody reads the VM's end.
    for number in 0..20_000 {
        mac.host.send(&numbered(number, 1000));
    }
    eventually("the VM's socket is full", || {
        mac.forwarding
            .counts(Direction::Inbound)
            .dropped_for(DropReason::VmBusy)
            > 0
    });
    for number in 0..100 {
        mac.vm.send(&numbered(number, 60)).unwrap();
        assert_eq!(number_of(&mac.host.recv(PATIENCE).unwrap()), number);
    }
    eventually("all are read", || mac.host.unread() == 0);
    let _ = mac.finish();
}

#[test]
fn a_datagram_that_is_too_long_for_the_vm_is_dropped_alone() {
    let mac = mac("well", HandOver::Auto);
    vmnet_sim::fail_next(Call::Send, mac.fd, libc::EMSGSIZE, 1);
    let mut buffer = [0; 2048];
    let mut sent = 0;
    eventually("a batch met EMSGSIZE", || {
        for _ in 0..20 {
            mac.host.send(&numbered(sent, 60));
            sent += 1;
        }
        thread::sleep(Duration::from_millis(2));
        mac.forwarding
            .counts(Direction::Inbound)
            .dropped_for(DropReason::VmRefused)
            == 1
    });
    for _ in 1..sent {
        assert_eq!(mac.vm.recv(&mut buffer).unwrap(), 60);
    }
    let _ = mac.finish();
}

#[test]
fn a_vm_that_is_gone_ends_the_forwarder_from_either_side() {
    let mac = mac("well", HandOver::Auto);
    vmnet_sim::fail_next(Call::Recv, mac.fd, libc::ECONNRESET, 1);
    mac.vm.send(&numbered(0, 60)).unwrap();
    eventually("reading finds the VM gone", || mac.forwarding.vm_gone());
    let _ = mac.finish();

    let Mac {
        vm,
        host,
        forwarding,
        ..
    } = self::mac("well", HandOver::Auto);
    drop(vm);
    for number in 0..3 {
        host.send(&numbered(number, 60));
    }
    eventually("writing finds the VM gone", || forwarding.vm_gone());
    assert!(forwarding.finish().iter().all(Counts::balance));
}

#[test]
fn an_interface_is_as_was_asked_and_says_what_it_is() {
    for (net_type, mode) in [(Mode::Nat, 1001), (Mode::Host, 1000)] {
        for isolated in [true, false] {
            let host = Script::well().install();
            let vmnet = Vmnet::open(net_type, isolated, || false).unwrap();
            assert_eq!(host.description(), (mode, isolated));
            assert_eq!(vmnet.gateway().to_string(), "192.168.64.1");
            assert_eq!(vmnet.subnet().unwrap().to_string(), "192.168.64.0/24");
            drop(vmnet);
            assert!(host.stopped());
        }
    }
}

#[test]
fn a_start_that_fails_says_what_to_do() {
    let start = |name: &str| {
        let _host = Script::named(name).unwrap().install();
        Vmnet::open(Mode::Nat, true, || false).unwrap_err()
    };
    assert!(matches!(start("start-busy"), VmnetError::Busy));
    for (name, number) in [
        ("start-failed", 1001),
        ("start-unauthorized", 1010),
        ("start-null", 1001),
    ] {
        let error = start(name);
        if nix::unistd::geteuid().is_root() {
            assert!(
                matches!(error, VmnetError::Refused(status) if status == number),
                "{error:?}"
            );
        } else {
            assert!(error.to_string().contains("entitlement"), "{error}");
        }
    }
}

#[test]
fn a_start_that_is_never_answered_can_be_interrupted() {
    let _host = Script::named("start-never").unwrap().install();
    let start = Instant::now();
    let result = Vmnet::open(Mode::Nat, true, || {
        start.elapsed() > Duration::from_millis(100)
    });
    assert!(matches!(result, Err(VmnetError::Interrupted)), "{result:?}");
    assert!(start.elapsed() < Duration::from_millis(300));
}

#[test]
fn rules_for_ports_are_answered_later_or_never() {
    let rule_of = |name: &str| {
        let host = Script::named(name).unwrap().install();
        let vmnet = Vmnet::open(Mode::Nat, true, || false).unwrap();
        let rules = vmnet.port_rules();
        let asked = rules.add(2222, [192, 168, 64, 2].into(), 22).unwrap();
        let answer = asked.by(Instant::now() + Duration::from_millis(300));
        let there = host.rules();
        let gone = rules
            .remove(2222)
            .unwrap()
            .by(Instant::now() + Duration::from_millis(300));
        (answer, there.len(), gone)
    };
    assert_eq!(rule_of("well"), (Some(Ok(())), 1, Some(Ok(()))));
    assert_eq!(
        rule_of("rules-refused"),
        (Some(Err(1001)), 0, Some(Err(1001)))
    );
    assert_eq!(rule_of("rules-never"), (None, 0, None));
}

const PATIENCE: Duration = Duration::from_secs(3);
