//! What the bytes of a fuzzer's input mean, and what must hold whatever they are.
//!
//! The fuzz targets and tests/fuzz_replay.rs, which tries kept inputs in the ordinary tests,
//! share this file. An input for a frame target is one byte that chooses the state, and the
//! frame. One for DHCP is that byte and a sequence of messages: a byte of flags, a length of
//! two bytes, and so many bytes of the message, which a right frame is put around.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several targets, each takes what it needs"
)]

use std::cell::RefCell;

use softnet::batch::Slot;
use softnet::filter::{Filter, Step, Verdict};
use softnet::wire::Mac;
use softnet::wire::dhcp::{Message, identifier_of};

use crate::frames::*;

/// One frame leaves the VM.
pub fn outbound(input: &[u8]) {
    let step = frame(input, |world, frame| {
        world.outbound.begin(world.now);
        let step = world.outbound.judge(frame);
        assert_eq!(step, world.outbound.judge(frame));
        if step == Step::Done(Verdict::Forward) {
            assert_eq!(frame[6..12], VM.0, "speaks as another");
            match frame[12..14] {
                [8, 0] => assert_eq!(frame[26..30], ip(VM_IP).octets(), "a spoofed source"),
                [8, 6] => assert_eq!(frame[22..28], VM.0, "ARP of another"),
                _ => panic!("neither IPv4 nor ARP"),
            }
        }
        step
    });
    if let Some(why) = step.filter(|step| !matches!(step, Step::Done(_))) {
        look_into(&mut world(input[0]).outbound, &input[1..], why);
    }
}

/// One frame arrives for the VM.
pub fn inbound(input: &[u8]) {
    let step = frame(input, |world, frame| {
        world.inbound.begin(world.now);
        let step = world.inbound.judge(frame);
        assert_eq!(step, world.inbound.judge(frame));
        if step == Step::Done(Verdict::Forward) {
            assert!(frame[0..6] == VM.0 || frame[0] & 1 == 1, "for another");
            match frame[12..14] {
                [8, 0] => assert_ne!(frame[26..30], ip(VM_IP).octets(), "from the VM itself"),
                [8, 6] => assert_eq!(frame[22..28], frame[6..12], "ARP of another"),
                _ => panic!("neither IPv4 nor ARP"),
            }
        }
        step
    });
    if let Some(why) = step.filter(|step| !matches!(step, Step::Done(_))) {
        look_into(&mut world(input[0]).inbound, &input[1..], why);
    }
}

/// DHCP messages in both directions.
pub fn dhcp(input: &[u8]) {
    let Some((choice, mut rest)) = input.split_first() else {
        return;
    };
    let mut world = world(*choice);
    while let [flags, high, low, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (message, after) = tail.split_at(len.min(tail.len()).min(MESSAGE_MAX));
        rest = after;
        exchange(&mut world, *flags, message);
    }
}

/// The input of one message of a DHCP sequence, behind the byte that chooses the state.
pub fn message_input(flags: u8, message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap();
    [&[flags], &len.to_be_bytes()[..], message].concat()
}

/// Flags of a message: it comes from the gateway.
pub const REPLY: u8 = 1;
/// To everybody rather than to one.
pub const BROADCAST: u8 = 2;
/// A request from the address that the VM is to have.
pub const WITH_ADDRESS: u8 = 4;
/// With a checksum of UDP.
pub const WITH_SUM: u8 = 8;
/// A while after the message before, in seconds the square of the number in these bits.
pub const LATER: u8 = 0xf0;

fn frame(input: &[u8], check: impl FnOnce(&mut World, &[u8]) -> Step) -> Option<Step> {
    let (choice, bytes) = input.split_first()?;
    let choice = usize::from(*choice) % (STATES.len() * POLICIES.len());
    thread_local! {
        static WORLDS: RefCell<Vec<Option<World>>> = RefCell::default();
    }
    WORLDS.with_borrow_mut(|worlds| {
        worlds.resize_with(STATES.len() * POLICIES.len(), || None);
        // Deciding changes nothing, so that a world is made once.
        let made = worlds[choice].get_or_insert_with(|| world(u8::try_from(choice).unwrap()));
        Some(check(made, bytes))
    })
}

/// Has a frame inspected that takes it. As it goes on it passes again, or is inspected again.
fn look_into(filter: &mut impl Filter, frame: &[u8], why: Step) {
    let mut slot = frame.to_vec();
    let mut len = u32::try_from(frame.len()).unwrap();
    slot.resize(SLOT.max(frame.len()), 0);
    filter.begin(START);
    let mut slot = Slot::new(&mut slot, &mut len);
    if filter.inspect(&mut slot, why) == Verdict::Forward {
        let step = filter.judge(slot.frame());
        assert!(!matches!(step, Step::Done(Verdict::Drop(_))));
    }
}

fn world(choice: u8) -> World {
    let choice = usize::from(choice) % (STATES.len() * POLICIES.len());
    let (allow, block) = POLICIES[choice / STATES.len()];
    World::new(STATES[choice % STATES.len()], allow, block)
}

/// Puts a message into a frame, has the filter decide, and looks at what it made of it.
fn exchange(world: &mut World, flags: u8, message: &[u8]) {
    let later = u32::from(flags >> 4);
    world.now = world.now.after(later * later);
    let frame = if flags & REPLY != 0 {
        let to = if flags & BROADCAST != 0 {
            "255.255.255.255"
        } else {
            VM_IP
        };
        inbound_frame(udp(GATEWAY_IP, 67, to, 68, message), flags)
    } else {
        let from = if flags & WITH_ADDRESS != 0 {
            VM_IP
        } else {
            "0.0.0.0"
        };
        let to = if flags & BROADCAST != 0 {
            "255.255.255.255"
        } else {
            GATEWAY_IP
        };
        to_all_if(udp(from, 68, to, 67, message), flags)
    };
    let frame = if flags & WITH_SUM != 0 {
        with_udp_sum(frame)
    } else {
        frame
    };
    let mut len = u32::try_from(frame.0.len()).unwrap();
    let mut slot = frame.0.clone();
    slot.resize(SLOT.max(frame.0.len()), 0);
    let filter: &mut dyn Filter = if flags & REPLY != 0 {
        &mut world.inbound
    } else {
        &mut world.outbound
    };
    filter.begin(world.now);
    let why = filter.judge(&frame.0);
    if !matches!(why, Step::Done(_))
        && filter.inspect(&mut Slot::new(&mut slot, &mut len), why) == Verdict::Forward
    {
        let len = len as usize;
        // softnet's own question, which has another xid, has no checksum.
        let is_the_same = slot[46..50] == frame.0[46..50];
        holds_together(&slot[..len], flags & WITH_SUM != 0 && is_the_same);
        // What passed once passes again in the form that it was given.
        assert!(!matches!(filter.judge(&slot[..len]), Step::Done(_)));
        if flags & REPLY == 0 {
            let message = Message::parse(&slot[42..len]).expect("a request that can be read");
            let own = identifier_of(VM);
            assert!(
                message.identifier.is_none_or(|sent| sent.data == own),
                "another's identifier"
            );
            assert_eq!(message.header.hardware, VM, "another's hardware address");
        }
    }
    if let Some(lease) = world.lease.lease() {
        assert_ne!(lease.address, ip(GATEWAY_IP), "the VM became the gateway");
        let first = lease.address.octets()[0];
        assert!(matches!(first, 1..=126 | 128..=223), "{}", lease.address);
    }
}

/// Lengths and sums of a frame that passed, whether it was rewritten or not.
fn holds_together(frame: &[u8], has_sum: bool) {
    let packet = &frame[14..];
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    assert_eq!(total, packet.len(), "the total length");
    assert_eq!(sum(&packet[..20], 0), 0xffff, "the header's checksum");
    let datagram = &packet[20..];
    let len = usize::from(u16::from_be_bytes([datagram[4], datagram[5]]));
    assert_eq!(len, datagram.len(), "the datagram's length");
    if has_sum {
        assert_eq!(udp_sum(packet), 0xffff, "the datagram's checksum");
        assert_ne!(datagram[6..8], [0, 0], "the checksum was lost");
    } else {
        assert_eq!(datagram[6..8], [0, 0], "a checksum from nowhere");
    }
}

fn inbound_frame(frame: Frame, flags: u8) -> Frame {
    to_all_if(frame.to(VM).from(GATEWAY), flags)
}

fn to_all_if(frame: Frame, flags: u8) -> Frame {
    if flags & BROADCAST != 0 {
        frame.to(Mac::BROADCAST)
    } else {
        frame
    }
}

fn with_udp_sum(frame: Frame) -> Frame {
    let sum = match !udp_sum(&frame.0[14..]) {
        // Zero would say that there is none (RFC 768).
        0 => 0xffff,
        sum => sum,
    };
    frame.set(40, &sum.to_be_bytes())
}

/// Over the pseudo header and the datagram of a packet without options: all ones when right.
fn udp_sum(packet: &[u8]) -> u16 {
    let len = u32::try_from(packet.len() - 20).unwrap();
    sum(&packet[12..], 17 + len)
}

fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// What a choice can be: a state of these, and of the policies below.
pub const STATES: [State; 9] = [
    LEASED,
    FRESH,
    OFFERED,
    EXPIRED,
    OPEN,
    HOST,
    PINNED,
    UNKNOWN,
    UNKNOWN_EXPIRED,
];

/// Allowed and blocked.
pub const POLICIES: [(&str, &str); 4] = [
    ("", ""),
    ("0.0.0.0/0", ""),
    ("10.0.0.0/8,224.0.0.0/4,@host", "10.9.0.0/16,1.2.0.0/15"),
    ("@host", "0.0.0.0/0"),
];

/// The buffer of a frame in a batch, for an interface of the usual size.
const SLOT: usize = 1536;
/// So that the frame around the message is no longer than the interface takes.
const MESSAGE_MAX: usize = MAX_FRAME - 42;
