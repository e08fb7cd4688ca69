//! A forwarder between two sockets whose other ends the test holds: the VM's and the host's.
#![allow(dead_code)] // Each test takes what it needs.

#[path = "../frames/mod.rs"]
mod frames;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use frames::{Dhcp, GATEWAY, GATEWAY_IP, INTERNET, VM, VM_IP, ip, udp};
use nix::sys::socket::{setsockopt, sockopt};
use softnet::batch::Slot;
use softnet::clock::Tick;
use softnet::endpoint::synthetic::SyntheticHost;
use softnet::endpoint::vm_socket::VmSocket;
use softnet::filter::{self, DropReason, Filter, Mode, Policy, Step, Verdict};
use softnet::forward::{self, Forwarding, HandOver, Options};
use softnet::stop::Stop;

/// What Tart gives both ends of its socketpair, in bytes.
pub(crate) const TART_SNDBUF: usize = 1 << 20;
pub(crate) const TART_RCVBUF: usize = 4 << 20;

pub(crate) const MAX_FRAME: usize = 1514;
pub(crate) const HAND_OVERS: [HandOver; 4] = [
    HandOver::Auto,
    HandOver::Load,
    HandOver::Always,
    HandOver::Never,
];

/// Lets every frame pass that is neither too short nor too long.
pub(crate) struct Lengths(pub(crate) usize);

impl Filter for Lengths {
    fn begin(&mut self, _now: Tick) {}

    fn judge(&mut self, frame: &[u8]) -> Step {
        Step::Done(match frame.len() {
            0..14 => Verdict::Drop(DropReason::Runt),
            len if len > self.0 => Verdict::Drop(DropReason::Oversize),
            _ => Verdict::Forward,
        })
    }

    fn examine(&mut self, _: &mut Slot<'_>, _: Step) -> Result<(), DropReason> {
        Ok(())
    }
}

/// A forwarder at work, and the outer ends of its two sockets.
pub(crate) struct Bridge {
    pub(crate) vm: UnixDatagram,
    pub(crate) host: UnixDatagram,
    pub(crate) forwarding: Forwarding,
    pub(crate) stop: Stop,
}

/// Starts a forwarder that lets pass what has a legal length.
pub(crate) fn bridge(hand_over: HandOver) -> Bridge {
    bridge_with(
        &options(hand_over),
        TART_SNDBUF,
        MAX_FRAME,
        Lengths(MAX_FRAME),
        Lengths(MAX_FRAME),
    )
}

pub(crate) fn options(hand_over: HandOver) -> Options {
    Options {
        hand_over,
        ..Options::default()
    }
}

pub(crate) fn bridge_with(
    options: &Options,
    sndbuf: usize,
    max_frame: usize,
    outbound: impl Filter + 'static,
    inbound: impl Filter + 'static,
) -> Bridge {
    let (vm, vm_inner) = pair(sndbuf);
    let (host, host_inner) = pair(sndbuf);
    // An attempt that blocks for ever would hide what went wrong.
    for end in [&vm, &host] {
        end.set_read_timeout(Some(PATIENCE)).unwrap();
        end.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    let stop = Stop::new().unwrap();
    let vm_end = VmSocket::new(vm_inner.into(), max_frame).unwrap();
    let host_end = SyntheticHost::new(host_inner, max_frame);
    let forwarding = forward::start(vm_end, host_end, outbound, inbound, options, &stop).unwrap();
    Bridge {
        vm,
        host,
        forwarding,
        stop,
    }
}

/// Starts a forwarder between the inner ends of two sockets.
pub(crate) fn forward_between(
    vm: impl Into<OwnedFd>,
    host: UnixDatagram,
    hand_over: HandOver,
) -> Forwarding {
    let vm = VmSocket::new(vm.into(), MAX_FRAME).unwrap();
    let host = SyntheticHost::new(host, MAX_FRAME);
    let (outbound, inbound) = (Lengths(MAX_FRAME), Lengths(MAX_FRAME));
    let options = options(hand_over);
    forward::start(vm, host, outbound, inbound, &options, &Stop::new().unwrap()).unwrap()
}

/// Starts a forwarder with the filters of a VM, which tells the VM what its policy refuses, and lets
/// the gateway grant it a lease.
pub(crate) fn filtering_bridge(hand_over: HandOver, sndbuf: usize) -> Bridge {
    let options = Options {
        answers: true,
        ..options(hand_over)
    };
    filtering_bridge_with(&options, sndbuf)
}

pub(crate) fn filtering_bridge_with(options: &Options, sndbuf: usize) -> Bridge {
    let policy = Policy::default();
    let (outbound, inbound, lease) = filter::pair(&filter::Config {
        vm_mac: VM,
        gateway: ip(GATEWAY_IP),
        gateway_mac: Some(GATEWAY),
        subnet: None,
        mode: Mode::Nat,
        isolation: true,
        max_frame: MAX_FRAME,
        policy: &policy,
        connection_rate: filter::CONNECTION_RATE,
        names: filter::Names::default(),
    });
    let bridge = bridge_with(options, sndbuf, MAX_FRAME, outbound, inbound);
    let mut buffer = [0; 2048];
    bridge.vm.send(&dhcp_request()).unwrap();
    bridge.host.recv(&mut buffer).unwrap();
    bridge.host.send(&dhcp_ack()).unwrap();
    bridge.vm.recv(&mut buffer).unwrap();
    assert_eq!(lease.lease().map(|lease| lease.address), Some(ip(VM_IP)));
    bridge
}

/// From the VM to the internet, by way of the gateway.
pub(crate) fn outbound(payload: &[u8]) -> Vec<u8> {
    udp(VM_IP, 4000, INTERNET, 5000, payload).0
}

/// From the internet to the VM, by way of the gateway.
pub(crate) fn inbound(payload: &[u8]) -> Vec<u8> {
    frames::inbound(udp(INTERNET, 5000, VM_IP, 4000, payload)).0
}

/// The VM asks for its address by broadcast (RFC 2131, 4.3.2), under an identifier of 19
/// bytes like that of systemd-networkd, for which 7 bytes and padding are sent on.
pub(crate) fn dhcp_request() -> Vec<u8> {
    let request = Dhcp::request(3).option(61, &[255; 19]);
    let request = request.address(50, VM_IP).address(54, GATEWAY_IP);
    request.broadcast().0
}

/// The gateway grants it, and returns the identifier that it was sent. Behind the options
/// there is room for the VM's own.
pub(crate) fn dhcp_ack() -> Vec<u8> {
    let mut ack = Dhcp::ack().option(61, &[&[1][..], &VM.0].concat());
    ack.options.push(255);
    ack.options.extend([0; 20]);
    ack.answer().0
}

/// A connected pair with send buffers of `sndbuf` bytes on both ends.
pub(crate) fn pair(sndbuf: usize) -> (UnixDatagram, UnixDatagram) {
    let pair = UnixDatagram::pair().unwrap();
    for end in [&pair.0, &pair.1] {
        setsockopt(end, sockopt::SndBuf, &sndbuf).unwrap();
        setsockopt(end, sockopt::RcvBuf, &TART_RCVBUF).unwrap();
    }
    pair
}

/// A frame of `len` bytes that can be told from every other: its number, then a pattern.
#[allow(clippy::cast_possible_truncation)] // The pattern is meant to wrap around.
pub(crate) fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|at| (at as u32 * 31 + number) as u8).collect();
    frame[..4].copy_from_slice(&number.to_be_bytes());
    frame
}

/// The number in a frame from [`numbered`]; panics if any byte is not as it was made.
pub(crate) fn number_of(frame: &[u8]) -> u32 {
    let number = u32::from_be_bytes(frame[..4].try_into().unwrap());
    assert!(
        frame == numbered(number, frame.len()),
        "frame {number} was changed on its way"
    );
    number
}

/// Waits until `condition` holds; panics if it never does.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// From the VM to an address that no rule opens.
pub(crate) fn refused() -> Vec<u8> {
    frames::tcp(VM_IP, "10.1.2.3", 443).0
}
