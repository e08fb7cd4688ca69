//! The gateway behind a TAP: which one it is, and what becomes of the VM when it changes.
#![cfg(target_os = "linux")] // Namespaces and a TAP.

mod program;

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread;
use std::time::Duration;

use program::guest::{
    ACK, DISCOVER, GATEWAY, OFFER, REQUEST, VM_ADDRESS, VM_MAC, dhcp, dhcp_server_on, receive,
    serve, udp,
};
use program::{ARGUMENTS, Outcome, Program, as_root, ip, outcome, socketpair, softnet};

/// After which the kernel has nothing to tell any more about links (it tells once a second,
/// net/core/link_watch.c), and softnet has looked at the last of it.
const QUIET: Duration = Duration::from_secs(2);

/// softnet in front of the TAP `softnet-test0`, and the VM's end of its socket.
fn command(more: &[&str]) -> (Command, UnixDatagram) {
    let (ours, vm) = socketpair();
    let mut command = softnet(ours);
    command.args(ARGUMENTS).args(more);
    (command, vm)
}

fn start(more: &[&str]) -> (Program, UnixDatagram) {
    let (mut command, vm) = command(more);
    (Program::start_forwarding(&mut command), vm)
}

/// A bridge that is up, with the TAP as its port, and without an address yet.
fn bridge(mac: &str) {
    ip(&format!("link add br0 address {mac} type bridge"));
    ip("link set br0 up");
    ip("link set softnet-test0 master br0");
}

fn address() {
    ip("addr add 192.168.64.1/24 dev br0");
    ip("neigh add 192.168.64.2 lladdr 52:54:00:12:34:56 dev br0");
}

#[test]
fn it_is_that_of_the_bridge() {
    as_root(|| {
        ip("tuntap add dev softnet-test0 mode tap");
        ip("link add br0 type bridge");
        ip("addr add 192.168.64.1/24 dev br0");
        ip("link set br0 up");
        // Not a port yet, so that the bridge's address does not count.
        let Outcome { code, stderr, .. } = outcome(&mut command(&[]).0);
        assert_eq!(code, Some(1));
        assert!(
            stderr.starts_with("softnet: no gateway: softnet-test0"),
            "{stderr}"
        );
        ip("link set softnet-test0 master br0");
        let (mut program, _vm) = start(&[]);
        program.logs("gateway 192.168.64.1");
        // As it happens when a port with a lower MAC joins.
        ip("link set br0 address 02:00:00:00:00:01");
        program.logs("the gateway's MAC address has changed to 02:00:00:00:00:01");
    });
}

#[test]
fn a_bridge_made_anew_serves_the_vm_though_its_address_comes_last() {
    as_root(|| {
        ip("tuntap add dev softnet-test0 mode tap");
        bridge("02:00:00:00:00:01");
        address();
        let (mut program, vm) = start(&[]);
        let server = dhcp_server_on("br0");
        for (question, answer) in [(DISCOVER, OFFER), (REQUEST, ACK)] {
            vm.send(&dhcp(question)).unwrap();
            serve(&server, &vm, question, answer);
        }
        is_served(&vm, [2, 0, 0, 0, 0, 1]);

        ip("link del br0");
        bridge("02:00:00:00:00:02");
        thread::sleep(QUIET);
        address();
        program.logs("the gateway's MAC address has changed to 02:00:00:00:00:02");
        is_served(&vm, [2, 0, 0, 0, 0, 2]);
    });
}

#[test]
fn its_mac_is_learned_when_it_gets_the_address_only_after_the_start() {
    as_root(|| {
        ip("tuntap add dev softnet-test0 mode tap");
        bridge("02:00:00:00:00:01");
        let (mut program, _vm) = start(&["--gateway", "192.168.64.1"]);
        thread::sleep(QUIET);
        address();
        program.logs("the gateway's MAC address has changed to 02:00:00:00:00:01");
    });
}

/// Each of these may be meant, so that softnet starts.
#[test]
fn what_looks_like_a_mistake_is_a_warning_at_the_start() {
    as_root(|| {
        let warned = |more: &[&str], text: &str| {
            let (mut program, _vm) = start(more);
            program.logs("forwarding for");
            let log = program.log();
            let lines = log.lines().filter(|line| line.contains(": warning: "));
            // One that is about the tests' user, not about the gateway.
            let warnings: Vec<_> = lines.filter(|line| !line.contains("root")).collect();
            assert_eq!(warnings.len(), usize::from(!text.is_empty()), "{log}");
            assert!(warnings.iter().all(|line| line.contains(text)), "{log}");
        };
        warned(
            &["--gateway", "192.168.64.1"],
            "softnet made the TAP softnet-test0, which is in no bridge and has no address; the VM",
        );
        ip("tuntap add dev softnet-test0 mode tap");
        warned(
            &["--gateway", "192.168.64.1"],
            "the TAP softnet-test0 is in no bridge and has no address; the VM",
        );
        bridge("02:00:00:00:00:01");
        ip("addr add 192.168.64.1/24 dev br0");
        warned(&[], "");
        warned(&["--gateway", "192.168.64.1/24"], "");
        warned(
            &["--gateway", "10.0.0.1"],
            "--gateway 10.0.0.1 is in no network of br0",
        );
        ip("addr add 192.168.65.1/24 dev br0");
        warned(
            &[],
            "br0 has several addresses, 192.168.64.1, 192.168.65.1: taking 192.168.64.1",
        );
    });
}

/// Sends the gateway a datagram as the VM, and receives its answer.
fn is_served(vm: &UnixDatagram, gateway_mac: [u8; 6]) {
    let echo = UdpSocket::bind((GATEWAY, 7777)).unwrap();
    echo.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let question = udp(gateway_mac, (VM_ADDRESS, 7), (GATEWAY, 7777), b"ping");
    vm.send(&question).unwrap();
    let (len, from) = echo.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(len, 4);
    echo.send_to(b"pong", from).unwrap();
    let source = receive(vm, |frame| {
        let is_answer = frame[..6] == VM_MAC && frame.ends_with(b"pong");
        is_answer.then(|| frame[6..12].to_vec())
    });
    assert_eq!(source, gateway_mac);
}
