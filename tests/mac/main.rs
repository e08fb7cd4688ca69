//! The whole program as on a Mac, against the simulation of macOS' C interfaces
//! (`tests/vmnet-sim`): a lease through it, ports that follow the lease, and a quick end
//! whatever vmnet does.
#![cfg(target_os = "linux")] // The simulation is for it.

mod host;
#[path = "../program/mod.rs"]
mod program;
mod rights;

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use host::{GATEWAY_MAC, Host, NAK, RELEASE, ended, interrupt};
use nix::sys::signal::Signal;
use program::guest::{self, REQUEST, VM_ADDRESS};
use program::{Outcome, Program, as_root, outcome};
use vmnet_sim::{Script, script};

#[test]
fn a_lease_opens_ports_and_is_given_back_at_the_end() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("well", &["--expose", "2222:22,8080:80"]);
        let softnet = Program::start_forwarding(&mut command);
        assert_eq!(host.file("rules"), "", "no lease, no ports");
        host.lease(&vm, VM_ADDRESS);
        host.becomes("rules", "2222 192.168.64.2:22\n8080 192.168.64.2:80\n");
        assert_eq!(
            host.file("preferences"),
            "bootpd DHCPLeaseTimeSecs 600\nbootpd dhcp_ignore_client_identifier 1\n"
        );

        // A frame each way, by the rules.
        let public = (Ipv4Addr::new(8, 8, 8, 8), 9);
        let frame = guest::udp(GATEWAY_MAC, (VM_ADDRESS, 9), public, b"out");
        vm.send(&frame).unwrap();
        let mut buffer = [0; 2000];
        let len = host.socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], frame);
        let frame = guest::udp(
            GATEWAY_MAC,
            (Ipv4Addr::new(192, 168, 64, 3), 9),
            public,
            b"",
        );
        vm.send(&frame).unwrap();

        let log = interrupt(softnet);
        assert!(
            log.contains("released the VM's address 192.168.64.2"),
            "{log}"
        );
        // The very next frame: the one to another VM never came.
        let len = host.socket.recv(&mut buffer).unwrap();
        let release = &buffer[42..len];
        assert_eq!(release[240..243], [53, 1, RELEASE]);
        assert_eq!(release[12..16], VM_ADDRESS.octets());
        assert_eq!(release[28..34], guest::VM_MAC);
        assert_eq!(host.file("rules"), "", "{log}");
        host.was_stopped_well();
    });
}

#[test]
fn a_server_that_was_asleep_hears_of_the_end_before_the_interface_goes() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("server-asleep", &["--expose", "2222:22"]);
        let softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        host.lends(VM_ADDRESS, 600);
        host.becomes("rules", "2222 192.168.64.2:22\n");
        // Longer than the server stays without work.
        thread::sleep(Duration::from_millis(400));
        softnet.signal(Signal::SIGINT);
        let release = host.dhcp(RELEASE);
        assert_eq!(release[12..16], VM_ADDRESS.octets());
        assert_eq!(host.file("rules"), "", "ports need not wait for the server");
        host.lends(VM_ADDRESS, 0);
        let released = Instant::now();
        let log = ended(softnet, Duration::from_secs(1));
        let took = released.elapsed();
        assert!(took < Duration::from_millis(500), "{took:?}: {log}");
        assert!(!log.contains("has not taken"), "{log}");
        host.was_stopped_well();
    });
}

#[test]
fn a_server_that_never_takes_the_address_back_is_waited_for_less_than_a_second() {
    as_root(|| {
        for name in ["well", "stop-never", "rules-never"] {
            let host = Host::new();
            let (mut command, vm) = host.softnet(name, &["--expose", "2222:22"]);
            let softnet = Program::start_forwarding(&mut command);
            host.lease(&vm, VM_ADDRESS);
            host.lends(VM_ADDRESS, 600);
            let start = Instant::now();
            let log = interrupt(softnet);
            assert!(start.elapsed() >= Duration::from_millis(700), "{log}");
            assert!(log.contains("has not taken 192.168.64.2 back"), "{log}");
            host.dhcp(RELEASE);
            host.was_stopped_well();
        }
    });
}

#[test]
fn ports_follow_the_lease_and_leave_with_it() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("well", &["--expose", "2222:22"]);
        let softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        host.becomes("rules", "2222 192.168.64.2:22\n");
        host.lease(&vm, Ipv4Addr::new(192, 168, 64, 9));
        host.becomes("rules", "2222 192.168.64.9:22\n");
        let renewal = guest::dhcp_for(REQUEST, Ipv4Addr::new(192, 168, 64, 9));
        vm.send(&renewal).unwrap();
        host.serve(REQUEST, NAK, Ipv4Addr::UNSPECIFIED);
        host.becomes("rules", "");
        interrupt(softnet);
    });
}

#[test]
fn a_refused_port_is_tried_again_and_ends_nothing() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("rules-refused", &["--expose", "2222:22"]);
        let mut softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        softnet.logs("cannot expose port 2222: vmnet says 1001; trying again in 1s");
        softnet.logs("trying again in 2s");
        host.becomes("rules", "2222 192.168.64.2:22\n");
        interrupt(softnet);
    });
}

#[test]
fn a_port_that_vmnet_never_answers_for_is_asked_for_again() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("rules-never", &["--expose", "2222:22"]);
        let mut softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        softnet.logs("cannot expose port 2222: vmnet does not answer; trying again in 1s");
        interrupt(softnet);
    });
}

#[test]
fn whatever_vmnet_does_the_end_comes_within_a_second() {
    as_root(|| {
        for name in script::NAMES {
            let behaviour = Script::named(name).unwrap();
            let host = Host::new();
            let (mut command, vm) = host.softnet(name, &["--expose", "2222:22"]);
            if name == "start-never" {
                let softnet = Program::start(&mut command);
                thread::sleep(Duration::from_millis(200));
                interrupt(softnet);
                continue;
            }
            if !behaviour.starts() {
                let Outcome { code, stderr, .. } = outcome(&mut command);
                assert_eq!(code, Some(1), "{name}: {stderr}");
                let line = stderr.lines().last().unwrap_or_default();
                assert!(
                    line.starts_with("softnet: ")
                        && (line.contains("vmnet") || line.contains("sharing service")),
                    "{name}: {stderr}"
                );
                continue;
            }
            let softnet = Program::start_forwarding(&mut command);
            if !name.ends_with("-broken") {
                host.lease(&vm, VM_ADDRESS);
            }
            interrupt(softnet);
            host.was_stopped_well();
        }
    });
}

#[test]
fn an_old_macos_is_served_call_by_call() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("limits-none", &[]);
        command
            .env("VMNET_SIM_MACOS", "13.6")
            .env("SOFTNET_LOG", "debug");
        let softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        let log = interrupt(softnet);
        let (_, count) = log
            .split_once("as this version of macOS requires: ")
            .unwrap();
        assert!(!count.starts_with("0\n"), "{log}");
        // For reports from Macs: all that vmnet said, in a line.
        let mut lines = log.lines();
        let said = lines.find(|line| line.contains("vmnet started: "));
        assert!(
            said.is_some_and(|line| line.contains("vmnet_end_address") && line.contains("1500"))
        );
    });
}

#[test]
fn preferences_that_cannot_be_set_are_a_warning_and_no_more() {
    as_root(|| {
        for (state, words) in [
            ("locked", "another process holds the sharing preferences"),
            ("denied", "SystemConfiguration says 1003"),
            ("unapplied", "SystemConfiguration says 1001"),
        ] {
            let host = Host::new();
            let (mut command, vm) = host.softnet("well", &["--bootpd-lease-time", "300"]);
            command.env("VMNET_SIM_PREFERENCES", state);
            let start = Instant::now();
            let softnet = Program::start_forwarding(&mut command);
            let waited = start.elapsed();
            host.lease(&vm, VM_ADDRESS);
            let log = interrupt(softnet);
            let mut lines = log
                .lines()
                .filter(|line| line.contains("warning: cannot set the lease time"));
            assert!(
                lines.next().is_some_and(|line| line.contains(words)),
                "{log}"
            );
            assert_eq!(lines.next(), None, "{log}");
            // Half a second, and what a busy machine takes for the rest.
            assert!(waited < Duration::from_millis(1500), "{waited:?}");
        }
    });
}

#[test]
fn preferences_that_say_nothing_of_bootpd_get_a_dictionary() {
    as_root(|| {
        let host = Host::new();
        let (mut command, _vm) = host.softnet("well", &["--bootpd-lease-time", "300"]);
        command.env("VMNET_SIM_PREFERENCES", "empty");
        interrupt(Program::start_forwarding(&mut command));
        assert_eq!(host.file("preferences"), "bootpd DHCPLeaseTimeSecs 300\n");
    });
}

#[test]
fn what_is_not_for_macos_is_refused() {
    for (words, reason) in [
        (&["--tap", "tap0"][..], "--tap is for Linux"),
        (&["--gateway", "10.0.0.1"], "--gateway is for Linux"),
        (&["--bootpd-lease-time", "0"], "bootpd-lease-time"),
        (&["--bootpd-lease-time", "4294967296"], "bootpd-lease-time"),
        (&["--vm-net-type", "bridged"], "vm-net-type"),
        (&["--expose", "22"], "EXTERNAL:INTERNAL"),
    ] {
        let (mut command, _vm) = Host::new().softnet("well", words);
        let Outcome { code, stderr, .. } = outcome(&mut command);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    }
}

#[test]
fn a_vm_that_is_killed_ends_it() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("well", &[]);
        let mut softnet = Program::start_forwarding(&mut command);
        // The command keeps softnet's own end, as Tart does.
        drop(vm);
        assert_eq!(softnet.ends_within(Duration::from_secs(3)).code(), Some(0));
        host.was_stopped_well();
    });
}
