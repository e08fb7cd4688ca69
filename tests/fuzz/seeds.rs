//! Makes the seeds of a fuzz target: `seeds TARGET CAPTURES FOLDER`.
//!
//! The frames of every capture, as they are and with the MAC addresses, and where there are
//! any the IPv4 addresses, of the VM and the gateway; and the messages of DHCP exchanges.

#[path = "../frames/mod.rs"]
mod frames;
#[path = "input.rs"]
mod input;
#[path = "../frames/pcap.rs"]
mod pcap;

use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::{env, fs};

use frames::*;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [target, captures, folder] = &arguments[..] else {
        return Err("usage: seeds outbound|inbound|dhcp CAPTURES FOLDER".into());
    };
    let (captures, folder) = (Path::new(captures), Path::new(folder));
    fs::create_dir_all(folder)?;
    let mut seeds = match target.as_str() {
        "dhcp" => exchanges(),
        _ => own_frames(target),
    };
    if captures.is_dir() {
        for frame in pcap::frames_in(captures)? {
            seeds.extend(seeds_of(target, &frame));
        }
    } else {
        eprintln!("no captures in {}", captures.display());
    }
    for seed in &seeds {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        fs::write(folder.join(format!("seed-{:016x}", hasher.finish())), seed)?;
    }
    println!("{} seeds in {}", seeds.len(), folder.display());
    Ok(())
}

fn seeds_of(target: &str, frame: &[u8]) -> Vec<Vec<u8>> {
    if frame.len() < 14 || frame.len() > 2 * MAX_FRAME {
        return Vec::new();
    }
    let is_ipv4 = frame.len() >= 34 && frame[12..14] == [8, 0];
    if target == "dhcp" {
        let is_dhcp =
            is_ipv4 && frame.len() > 42 && frame[23] == 17 && matches!(frame[37], 67 | 68);
        let flags = if is_dhcp && frame[37] == 68 {
            input::REPLY
        } else {
            0
        };
        let message = |bytes: &[u8]| [&[0], &input::message_input(flags, bytes)[..]].concat();
        return if is_dhcp {
            vec![message(&frame[42..])]
        } else {
            Vec::new()
        };
    }
    let (ends, at) = if target == "outbound" {
        ((GATEWAY, VM), 26)
    } else {
        ((VM, GATEWAY), 30)
    };
    let mut disguised = Frame(frame.to_vec()).to(ends.0).from(ends.1);
    let mut seeds = vec![with_choice(&disguised)];
    if is_ipv4 {
        disguised = disguised.set(at, &ip(VM_IP).octets());
        seeds.push(with_choice(&disguised));
    }
    seeds
}

/// Frames that pass, and some that nearly do.
fn own_frames(target: &str) -> Vec<Vec<u8>> {
    let frames = if target == "outbound" {
        vec![
            tcp(VM_IP, INTERNET, 443),
            tcp(VM_IP, NAME_SERVER, 53),
            udp(VM_IP, 5000, NAME_SERVER, 53, &[0; 12]),
            udp(VM_IP, 5353, "224.0.0.251", 5353, &[0; 12]).set(0, &[1, 0, 0x5e, 0, 0, 0xfb]),
            icmp(VM_IP, INTERNET, 8),
            tcp(VM_IP, INTERNET, 443).options(&[148, 4, 0, 0]),
            ipv4(6, VM_IP, INTERNET, &[0; 64]).fragment(3, true),
            ipv4(17, VM_IP, INTERNET, &[1; 64]).fragment(0, true),
            arp(1, (VM, VM_IP), GATEWAY_IP),
            arp(1, (VM, "0.0.0.0"), VM_IP),
            arp(2, (VM, VM_IP), GATEWAY_IP).to(GATEWAY),
            Dhcp::request(1).broadcast(),
        ]
    } else {
        vec![
            inbound(tcp(INTERNET, VM_IP, 50000)),
            inbound(udp(GATEWAY_IP, 53, VM_IP, 5000, &[0; 12])),
            inbound(udp(GATEWAY_IP, 5353, "224.0.0.251", 5353, &[0; 12]))
                .set(0, &[1, 0, 0x5e, 0, 0, 0xfb]),
            inbound(icmp(INTERNET, VM_IP, 0)),
            inbound(ipv4(17, INTERNET, VM_IP, &[0; 64]).fragment(8, true)),
            inbound(udp(GATEWAY_IP, 9, "192.168.64.255", 9, &[])).to(ALL),
            arp(1, (GATEWAY, GATEWAY_IP), VM_IP),
            arp(2, (GATEWAY, GATEWAY_IP), VM_IP).to(VM),
            Dhcp::ack().answer(),
        ]
    };
    frames
        .iter()
        .flat_map(|frame| (0..8).map(move |choice| [&[choice], &frame.0[..]].concat()))
        .collect()
}

/// A lease as it is asked for, granted, renewed, given back; and what else clients send.
fn exchanges() -> Vec<Vec<u8>> {
    use input::{BROADCAST, REPLY, WITH_ADDRESS, WITH_SUM};
    let own_id = [&[1][..], &VM.0].concat();
    let renewal = Dhcp {
        ciaddr: VM_IP,
        ..Dhcp::request(3)
    };
    let release = Dhcp {
        ciaddr: VM_IP,
        ..Dhcp::request(7).address(54, GATEWAY_IP)
    };
    let inform = Dhcp {
        ciaddr: VM_IP,
        ..Dhcp::request(8)
    };
    let select = || Dhcp::request(3).address(50, VM_IP).address(54, GATEWAY_IP);
    let long_id = [255, 1, 2, 3, 4, 0, 1, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let asked = |id: &[u8]| {
        vec![
            (BROADCAST | WITH_SUM, Dhcp::request(1).option(61, id)),
            (REPLY | WITH_SUM, Dhcp::reply(2).option(61, &own_id)),
            (BROADCAST | WITH_SUM, select().option(61, id)),
            (REPLY | WITH_SUM, Dhcp::ack().option(61, &own_id)),
            (
                WITH_ADDRESS | WITH_SUM,
                Dhcp {
                    ciaddr: VM_IP,
                    ..Dhcp::request(3).option(61, id)
                },
            ),
            (REPLY, Dhcp::ack()),
        ]
    };
    let sequences = vec![
        asked(&own_id),
        asked(&long_id),
        asked(&[7]),
        asked(&[0x11; 60]),
        vec![(
            BROADCAST,
            Dhcp::request(1).option(61, &own_id).option(12, b"guest"),
        )],
        vec![(BROADCAST, select()), (REPLY | BROADCAST, Dhcp::nak())],
        vec![(WITH_ADDRESS, renewal), (REPLY, Dhcp::ack())],
        vec![(WITH_ADDRESS, release)],
        vec![
            (WITH_ADDRESS, inform),
            (
                REPLY,
                Dhcp {
                    yiaddr: "0.0.0.0",
                    ..Dhcp::reply(5)
                },
            ),
        ],
        vec![(
            BROADCAST,
            Dhcp::request(4).address(50, VM_IP).address(54, GATEWAY_IP),
        )],
        vec![(
            BROADCAST,
            Dhcp::request(1).option(82, &[1, 2, 3, 4]).option(52, &[3]),
        )],
    ];
    let mut seeds = Vec::new();
    for sequence in sequences {
        for choice in 0..9 {
            let mut seed = vec![choice];
            for (flags, message) in &sequence {
                seed.extend(input::message_input(*flags, &message.message()));
            }
            seeds.push(seed);
        }
    }
    seeds
}

/// In the state with a lease, where most is possible, and no rules.
fn with_choice(frame: &Frame) -> Vec<u8> {
    [&[0], &frame.0[..]].concat()
}
