//! That nothing stays behind: blocks, XPC objects, queues and interfaces of the simulated
//! macOS, and descriptors. One test, since it counts those of the whole process.

mod common;

use std::fs;
use std::thread;
use std::time::Duration;

use common::{Lengths, MAX_FRAME, TART_SNDBUF, eventually, numbered, pair};
use softnet::endpoint::vm_socket::VmSocket;
use softnet::endpoint::vmnet::Vmnet;
use softnet::filter::Mode;
use softnet::forward::{self, Options};
use softnet::host::macos::bootpd::set_lease_time;
use softnet::stop::Stop;
use vmnet_sim::{Live, Script, preferences, script};

#[test]
fn every_end_leaves_nothing_behind() {
    const NOTHING: Live = Live {
        blocks: 0,
        objects: 0,
        preferences: 0,
        queues: 0,
        interfaces: 0,
    };
    let before = descriptors();
    for name in script::NAMES {
        // A callback that is never answered is never freed by whoever keeps it.
        if name.ends_with("-never") {
            continue;
        }
        one_life(name);
        eventually(name, || vmnet_sim::live() == NOTHING);
        assert_eq!(descriptors(), before, "{name}");
    }
    lease_times();
    assert_eq!(vmnet_sim::live(), NOTHING);
}

/// The lease time is set among what else is there, and waits for others to be done.
fn lease_times() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let set = |seconds| {
        set_lease_time(seconds);
        preferences::committed("bootpd").unwrap()
    };
    let numbers = |seconds| {
        let other = ("dhcp_ignore_client_identifier".to_owned(), 1);
        preferences::Numbers::from([("DHCPLeaseTimeSecs".to_owned(), seconds), other])
    };
    assert_eq!(set(Some(300)), numbers(300));
    assert_eq!(set(Some(300)), numbers(300), "nothing to do");
    preferences::lock_elsewhere(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            preferences::lock_elsewhere(false);
        });
        assert_eq!(set(None), numbers(600));
    });
    assert_eq!(set(Some(u32::MAX)), numbers(u32::MAX.into()));
}

fn one_life(name: &str) {
    let host = Script::named(name).unwrap().install();
    let Ok(vmnet) = Vmnet::open(Mode::Nat, true, || false) else {
        return;
    };
    let rules = vmnet.port_rules();
    let (vm, inner) = pair(TART_SNDBUF);
    vm.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let vm_socket = VmSocket::new(inner.into(), MAX_FRAME).unwrap();
    let stop = Stop::new().unwrap();
    let pass = || Lengths(MAX_FRAME);
    let options = Options::default();
    let forwarding = forward::start(vm_socket, vmnet, pass(), pass(), &options, &stop).unwrap();
    let answer = rules.add(80, [192, 168, 64, 2].into(), 80).unwrap();
    for number in 0..10 {
        vm.send(&numbered(number, 60)).unwrap();
        host.send(&numbered(number, 60));
    }
    let _ = vm.recv(&mut [0; 100]);
    drop((answer, rules));
    let _ = forwarding.finish();
    assert!(host.stopped(), "{name}");
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}
