//! Frames for the tests of the filter, and the two filters of a VM in a given state.
//!
//! Every builder makes a frame that is right in all its lengths and sums; a test then spoils
//! what it is about, with [`Frame::set`] and the like.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each takes what it needs"
)]

mod dhcp;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

pub use dhcp::Dhcp;

use softnet::batch::Slot;
use softnet::clock::Tick;
use softnet::filter::{
    self, Claims, Config, DropReason, Filter, Inbound, LeaseCell, Mode, Outbound, Policy, Rules,
    Verdict,
};
use softnet::wire::Mac;

/// The VM.
pub const VM: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x02]);
/// The gateway.
pub const GATEWAY: Mac = Mac([0x02, 0, 0, 0, 0, 0x01]);
/// Another VM on the same bridge.
pub const OTHER: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x50]);
/// Everybody.
pub const ALL: Mac = Mac::BROADCAST;

/// The VM's address.
pub const VM_IP: &str = "192.168.64.2";
/// The gateway's.
pub const GATEWAY_IP: &str = "192.168.64.1";
/// The other VM's.
pub const OTHER_IP: &str = "192.168.64.50";
/// An address that the registry has under another VM.
pub const TAKEN_IP: &str = "192.168.64.66";
/// A name that the registry has under another VM.
pub const TAKEN_NAME: &str = "neighbour";
/// A host on the internet.
pub const INTERNET: &str = "1.2.3.4";
/// The name server that comes with the lease, beside the gateway.
pub const NAME_SERVER: &str = "10.9.8.7";

/// The longest frame of the interface.
pub const MAX_FRAME: usize = 1514;

/// The bytes of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl Frame {
    /// Overwrites bytes at an offset from the start of the frame.
    pub fn set(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Cuts the frame to a length, or pads it with zeros to it.
    pub fn resize(mut self, len: usize) -> Self {
        self.0.resize(len, 0);
        self
    }

    /// With another source MAC.
    pub fn from(self, mac: Mac) -> Self {
        self.set(6, &mac.0)
    }

    /// With another destination MAC.
    pub fn to(self, mac: Mac) -> Self {
        self.set(0, &mac.0)
    }

    /// With this fragment offset, in units of eight bytes, and more to follow or not.
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        let field = offset | if more { 0x2000 } else { 0 };
        self.set(20, &field.to_be_bytes())
    }

    /// With the right checksum of a UDP datagram, which [`udp`] leaves out.
    pub fn with_udp_checksum(self) -> Self {
        let sum = checksum(&with_pseudo_header(&self.0));
        self.set(40, &sum.to_be_bytes())
    }

    /// With these IP options, whose length must be a multiple of four.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.0.splice(34..34, options.iter().copied());
        let words = u8::try_from(options.len() / 4).unwrap();
        self.0[14] += words;
        let total = u16::try_from(self.0.len() - 14).unwrap();
        self.set(16, &total.to_be_bytes())
    }
}

pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, carried: &[u8]) -> Frame {
    let mut frame = Vec::new();
    frame.extend(destination.0);
    frame.extend(source.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(carried);
    Frame(frame)
}

/// An ARP message; the frame goes to everybody.
pub fn arp(operation: u16, sender: (Mac, &str), target: &str) -> Frame {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    message.extend(sender.0.0);
    message.extend(ip(sender.1).octets());
    message.extend([0; 6]);
    message.extend(ip(target).octets());
    ethernet(ALL, sender.0, 0x0806, &message)
}

/// An IPv4 packet from the VM's MAC to the gateway's.
pub fn ipv4(protocol: u8, source: &str, destination: &str, payload: &[u8]) -> Frame {
    let mut packet = vec![0x45, 0];
    packet.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    packet.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(ip(source).octets());
    packet.extend(ip(destination).octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    ethernet(GATEWAY, VM, 0x0800, &packet)
}

pub fn tcp(source: &str, destination: &str, port: u16) -> Frame {
    let mut segment = vec![0xc0, 0x00];
    segment.extend(port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    ipv4(6, source, destination, &segment)
}

/// What a VM with a lease may send.
pub fn web() -> Frame {
    tcp(VM_IP, INTERNET, 443)
}

pub fn udp(source: &str, from: u16, destination: &str, to: u16, data: &[u8]) -> Frame {
    let mut datagram = Vec::new();
    datagram.extend(from.to_be_bytes());
    datagram.extend(to.to_be_bytes());
    datagram.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    ipv4(17, source, destination, &datagram)
}

pub fn icmp(source: &str, destination: &str, kind: u8) -> Frame {
    ipv4(
        1,
        source,
        destination,
        &[kind, 0, 0, 0, 0, 1, 0, 1, 0xaa, 0xbb],
    )
}

/// An ICMP error of this type and code, with a next-hop MTU, that quotes a packet.
pub fn icmp_error(
    source: &str,
    destination: &str,
    [kind, code]: [u8; 2],
    mtu: u16,
    quote: &[u8],
) -> Frame {
    let [high, low] = mtu.to_be_bytes();
    let message = [&[kind, code, 0, 0, 0, 0, high, low], quote].concat();
    ipv4(1, source, destination, &message)
}

/// What an error quotes of a datagram between these: its IP header, and eight bytes.
pub fn quote(source: &str, destination: &str) -> Vec<u8> {
    let Frame(frame) = udp(source, 4000, destination, 5000, &[]);
    frame[14..].to_vec()
}

/// The opposite way: the frame comes from the gateway's MAC, for the VM's.
pub fn inbound(frame: Frame) -> Frame {
    frame.to(VM).from(GATEWAY)
}

/// When the tests start.
pub const START: Tick = Tick::from_secs(1000);

/// What the filters know already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Nothing,
    /// The server offered [`VM_IP`].
    Offer,
    /// The server granted [`VM_IP`].
    Lease,
    /// So it did, but for a time that is over.
    ExpiredLease,
}

/// A VM's surroundings.
#[derive(Debug, Clone, Copy)]
pub struct State {
    pub known: Known,
    pub mode: Mode,
    pub isolation: bool,
    pub gateway_mac: Option<Mac>,
    pub subnet: Option<&'static str>,
    /// The kind of DHCP message that the VM waits for an answer to, besides.
    pub asks: Option<u8>,
}

pub const LEASED: State = State {
    known: Known::Lease,
    mode: Mode::Nat,
    isolation: true,
    gateway_mac: Some(GATEWAY),
    subnet: Some("192.168.64.0/24"),
    asks: None,
};
pub const FRESH: State = State {
    known: Known::Nothing,
    ..LEASED
};
pub const OFFERED: State = State {
    known: Known::Offer,
    ..LEASED
};
pub const EXPIRED: State = State {
    known: Known::ExpiredLease,
    ..LEASED
};
/// Without isolation.
pub const OPEN: State = State {
    isolation: false,
    ..LEASED
};
pub const HOST: State = State {
    mode: Mode::Host,
    ..LEASED
};
/// The system tells neither the gateway's MAC nor the network.
pub const PINNED: State = State {
    gateway_mac: None,
    subnet: None,
    ..LEASED
};
pub const UNKNOWN: State = State {
    known: Known::Nothing,
    ..PINNED
};
pub const UNKNOWN_EXPIRED: State = State {
    known: Known::ExpiredLease,
    ..PINNED
};

/// The VM looks for a server.
pub const DISCOVERS: State = State {
    asks: Some(1),
    ..FRESH
};
/// The VM wants the address that it was offered.
pub const REQUESTS: State = State {
    asks: Some(3),
    ..OFFERED
};
/// The VM wants to keep its address.
pub const RENEWS: State = State {
    asks: Some(3),
    ..LEASED
};
/// The VM wants to know more.
pub const INFORMS: State = State {
    asks: Some(8),
    ..LEASED
};

/// A frame's outcome, with the DHCP filter's word where it has it.
pub type Outcome = Result<(), DropReason>;

/// The two filters of a VM, and a clock.
pub struct World {
    pub outbound: Outbound,
    pub inbound: Inbound,
    pub lease: Arc<LeaseCell>,
    pub rules: Arc<Rules>,
    pub claims: Arc<Claimed>,
    pub now: Tick,
}

/// A registry in which another VM has [`TAKEN_IP`]; and what this VM has claimed.
#[derive(Debug, Default)]
pub struct Claimed(Mutex<Option<Ipv4Addr>>);

impl Claimed {
    pub fn address(&self) -> Option<Ipv4Addr> {
        *self.0.lock().unwrap()
    }
}

impl Claims for Claimed {
    fn claim(&self, address: Ipv4Addr, bind: &mut dyn FnMut()) -> bool {
        let mut claimed = self.0.lock().unwrap();
        if address == ip(TAKEN_IP) {
            return false;
        }
        *claimed = Some(address);
        bind();
        true
    }

    fn release_stale(&self, leased: &dyn Fn() -> Option<Ipv4Addr>) {
        let mut claimed = self.0.lock().unwrap();
        *claimed = claimed.filter(|address| leased() == Some(*address));
    }

    fn claim_name(&self, name: &str) -> bool {
        name != TAKEN_NAME
    }
}

impl World {
    /// Brings the filters into a state by real frames.
    pub fn new(state: State, allow: &str, block: &str) -> Self {
        Self::limited(state, allow, block, filter::CONNECTION_RATE)
    }

    /// The same, without rules, and with this limit to new TCP connections.
    pub fn with_connection_rate(state: State, connection_rate: u32) -> Self {
        Self::limited(state, "", "", connection_rate)
    }

    fn limited(state: State, allow: &str, block: &str, connection_rate: u32) -> Self {
        let (policy, _) = Policy::parse(allow, block).unwrap();
        let config = Config {
            vm_mac: VM,
            gateway: ip(GATEWAY_IP),
            gateway_mac: state.gateway_mac,
            subnet: state.subnet.map(|subnet| subnet.parse().unwrap()),
            mode: state.mode,
            isolation: state.isolation,
            max_frame: MAX_FRAME,
            policy: &policy,
            connection_rate,
            names: filter::Names::default(),
        };
        let claims = Arc::new(Claimed::default());
        let (outbound, inbound, lease, rules) =
            filter::pair_claiming(&config, Arc::clone(&claims) as Arc<dyn Claims>);
        let mut world = Self {
            outbound,
            inbound,
            lease,
            rules,
            claims,
            now: START,
        };
        if state.known != Known::Nothing {
            assert_eq!(world.send(Dhcp::request(1).broadcast()), Ok(()));
            assert_eq!(world.receive(Dhcp::reply(2).answer()), Ok(()));
        }
        if matches!(state.known, Known::Lease | Known::ExpiredLease) {
            let request = Dhcp::request(3).address(50, VM_IP).address(54, GATEWAY_IP);
            assert_eq!(world.send(request.broadcast()), Ok(()));
            assert_eq!(world.receive(Dhcp::ack().answer()), Ok(()));
        }
        if state.known == Known::ExpiredLease {
            world.now = world.now.after(600);
        }
        if let Some(kind) = state.asks {
            world.ask(kind);
        }
        world
    }

    /// The VM asks the DHCP server; for its address, if it asks for one.
    pub fn ask(&mut self, kind: u8) {
        let request = Dhcp::request(kind);
        let request = match kind {
            3 => request.address(50, VM_IP),
            _ => request,
        };
        assert_eq!(self.send(request.broadcast()), Ok(()));
    }

    /// The VM wants the lease that this answer grants, if it grants one.
    pub fn request(&mut self, answer: Frame) -> Outcome {
        match &answer.0[58..62] {
            [0, 0, 0, 0] => self.ask(3),
            granted => {
                let xid = u32::from_be_bytes(answer.0[46..50].try_into().unwrap());
                let request = Dhcp {
                    xid,
                    ..Dhcp::request(3).option(50, granted)
                };
                assert_eq!(self.send(request.broadcast()), Ok(()));
            }
        }
        self.receive(answer)
    }

    /// A DHCP message leaves the VM: as it reaches the server.
    pub fn send_dhcp(&mut self, frame: Frame) -> Result<Frame, DropReason> {
        rewritten(&mut self.outbound, frame, self.now)
    }

    /// A DHCP message arrives for the VM: as it reaches it.
    pub fn receive_dhcp(&mut self, frame: Frame) -> Result<Frame, DropReason> {
        rewritten(&mut self.inbound, frame, self.now)
    }

    /// A frame leaves the VM. If softnet's own question goes on in its place, it has not
    /// passed itself: then this says why not.
    pub fn send(&mut self, frame: Frame) -> Outcome {
        match self.send_dhcp(frame.clone()) {
            Ok(passed) if is_question(&frame, &passed) => {
                outcome(&mut self.outbound, frame, self.now)
            }
            outcome => outcome.map(|_| ()),
        }
    }

    /// A frame leaves the VM, and softnet's own question goes on in its place: what it is, or
    /// why there is none.
    pub fn provoke(&mut self, frame: &Frame) -> Result<Frame, Outcome> {
        match self.send_dhcp(frame.clone()) {
            Ok(passed) if is_question(frame, &passed) => Ok(passed),
            outcome => Err(outcome.map(|_| ())),
        }
    }

    /// A frame arrives for the VM.
    pub fn receive(&mut self, frame: Frame) -> Outcome {
        outcome(&mut self.inbound, frame, self.now)
    }
}

fn outcome(filter: &mut impl Filter, frame: Frame, now: Tick) -> Outcome {
    rewritten(filter, frame, now).map(|_| ())
}

/// Whether what went on is not the frame, changed or not, but softnet's own question.
fn is_question(Frame(frame): &Frame, Frame(passed): &Frame) -> bool {
    let is_request = passed.len() == 342 && passed[42..45] == [1, 1, 6];
    is_request && frame.get(46..50) != Some(&passed[46..50])
}

/// The frame as it goes on.
fn rewritten(filter: &mut impl Filter, frame: Frame, now: Tick) -> Result<Frame, DropReason> {
    let mut slot = frame.0;
    let mut len = u32::try_from(slot.len()).unwrap();
    slot.resize(slot.len().max(2048), 0xaa);
    filter.begin(now);
    match filter.decide(&mut Slot::new(&mut slot, &mut len)) {
        Verdict::Forward => {
            slot.truncate(len as usize);
            Ok(Frame(slot))
        }
        Verdict::Drop(reason) => Err(reason),
    }
}

/// Whether the lengths and checksums of a UDP frame without IP options are right.
pub fn is_right(Frame(frame): &Frame) -> bool {
    let len = |at: usize| usize::from(frame[at]) << 8 | usize::from(frame[at + 1]);
    len(16) == frame.len() - 14
        && len(38) == frame.len() - 34
        && checksum(&frame[14..34]) == 0
        && checksum(&with_pseudo_header(frame)) == 0
}

fn with_pseudo_header(frame: &[u8]) -> Vec<u8> {
    [&frame[26..34], &[0, 17], &frame[38..40], &frame[34..]].concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
