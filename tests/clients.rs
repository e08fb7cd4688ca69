//! The DHCP clients that VMs run, each with the options that it sends: the server sees one
//! identity, the VM its own, and the lease is bound, renewed and given back.
//!
//! The options are those that busybox 1.36, ISC dhclient 4.4, systemd-networkd, Windows and
//! macOS send, written down by hand. The server returns the identifier as dnsmasq does, or
//! leaves it out as bootpd does.

mod frames;

use frames::*;
use softnet::filter::DropReason;

/// A client: its name, the options of its DISCOVER but for the type, and the length that it
/// pads the message to.
struct Client {
    name: &'static str,
    options: &'static [u8],
    message_len: usize,
    identifier: &'static [u8],
}

#[rustfmt::skip]
const CLIENTS: [Client; 7] = [
    Client {
        name: "udhcpc",
        options: &[
            61, 7, 1, 0x52, 0x54, 0, 0, 0, 2,
            57, 2, 2, 64, 55, 7, 1, 3, 6, 12, 15, 28, 42,
            60, 12, b'u', b'd', b'h', b'c', b'p', b' ', b'1', b'.', b'3', b'6', b'.', b'1', 255,
        ],
        message_len: 300,
        identifier: &[1, 0x52, 0x54, 0, 0, 0, 2],
    },
    Client {
        name: "udhcpc with a short identifier (-x 0x3d:...)",
        options: &[57, 2, 2, 64, 61, 3, 0, b'v', b'm', 55, 3, 1, 3, 6, 255],
        message_len: 300,
        identifier: &[0, b'v', b'm'],
    },
    Client {
        name: "dhclient",
        options: &[
            12, 2, b'v', b'm', 55, 13, 1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42, 255,
        ],
        message_len: 300,
        identifier: &[],
    },
    Client {
        name: "systemd-networkd",
        options: &[
            61, 19, 255, 0xb6, 0x22, 0x0f, 0xeb, 0, 2, 0, 0, 0xab, 0x11, 1, 2, 3, 4, 5, 6, 7, 8,
            55, 10, 1, 3, 12, 15, 6, 33, 121, 42, 119, 26, 57, 2, 5, 192, 12, 2, b'v', b'm', 255,
        ],
        message_len: 282,
        identifier: &[255, 0xb6, 0x22, 0x0f, 0xeb, 0, 2, 0, 0, 0xab, 0x11, 1, 2, 3, 4, 5, 6, 7, 8],
    },
    Client {
        name: "Windows",
        options: &[
            61, 7, 1, 0x52, 0x54, 0, 0, 0, 2, 12, 2, b'V', b'M',
            60, 8, b'M', b'S', b'F', b'T', b' ', b'5', b'.', b'0',
            55, 14, 1, 3, 6, 15, 31, 33, 43, 44, 46, 47, 119, 121, 249, 252, 255,
        ],
        message_len: 300,
        identifier: &[1, 0x52, 0x54, 0, 0, 0, 2],
    },
    Client {
        name: "macOS",
        options: &[
            55, 12, 1, 121, 3, 6, 15, 108, 114, 119, 252, 95, 44, 46, 57, 2, 5, 220,
            61, 7, 1, 0x52, 0x54, 0, 0, 0, 2, 51, 4, 0, 0x76, 0xa7, 0, 12, 2, b'V', b'M', 255,
        ],
        message_len: 300,
        identifier: &[1, 0x52, 0x54, 0, 0, 0, 2],
    },
    Client {
        name: "a thief: another VM's identifier",
        options: &[61, 7, 1, 0x52, 0x54, 0, 0, 0, 0x50, 255],
        message_len: 300,
        identifier: &[1, 0x52, 0x54, 0, 0, 0, 0x50],
    },
];

#[test]
fn every_client_gets_renews_and_gives_back_its_lease() {
    for client in &CLIENTS {
        for returns in [true, false] {
            for to_all in [true, false] {
                live(client, returns, to_all);
            }
        }
    }
}

fn live(client: &Client, returns: bool, to_all: bool) {
    let mut world = World::new(FRESH, "", "");
    let lease = |world: &mut World, request: &Frame, kind| {
        let seen = asked(client, world, request);
        answered(client, world, &answer(&seen, kind, returns, to_all));
    };
    let web = || tcp(VM_IP, INTERNET, 443);
    let wanted = [50, 4, 192, 168, 64, 2, 54, 4, 192, 168, 64, 1];

    lease(&mut world, &message(client, 1, &[], "0.0.0.0"), 2);
    assert_eq!(world.send(web()), Err(DropReason::NoLease));
    lease(&mut world, &message(client, 3, &wanted, "0.0.0.0"), 5);
    assert_eq!(world.send(web()), Ok(()), "{}", client.name);

    // Renewed by unicast at half time, and by broadcast at seven eighths.
    world.now = START.after(300);
    lease(&mut world, &message(client, 3, &[], VM_IP), 5);
    world.now = START.after(825);
    let rebind = message(client, 3, &[], VM_IP)
        .to(ALL)
        .set(30, &[255; 4])
        .set(24, &[0, 0]);
    let sum = ip_checksum(&rebind);
    let rebind = rebind.set(24, &sum).set(40, &[0, 0]).with_udp_checksum();
    lease(&mut world, &rebind, 5);
    world.now = START.after(1400);
    assert_eq!(world.send(web()), Ok(()), "{}", client.name);

    lease(&mut world, &message(client, 8, &[], VM_IP), 5);
    let expires = world.lease.lease().unwrap().expires;
    assert_eq!(expires, START.after(1425));

    let release = message(client, 7, &[54, 4, 192, 168, 64, 1], VM_IP);
    asked(client, &mut world, &release);
    assert_eq!(world.send(web()), Err(DropReason::NoLease));
}

/// A message of the client's, by unicast if it has an address.
fn message(client: &Client, kind: u8, more: &[u8], address: &'static str) -> Frame {
    let dhcp = Dhcp {
        ciaddr: address,
        options: [&[53, 1, kind], more, client.options].concat(),
        ..Dhcp::request(kind)
    };
    let mut message = dhcp.message();
    // The options have their end already.
    message.pop();
    message.resize(message.len().max(client.message_len), 0);
    let frame = if address == "0.0.0.0" {
        udp(address, 68, "255.255.255.255", 67, &message).to(ALL)
    } else {
        udp(address, 68, GATEWAY_IP, 67, &message)
    };
    frame.with_udp_checksum()
}

/// The client's message as the server sees it: with the VM's identifier, or none.
fn asked(client: &Client, world: &mut World, frame: &Frame) -> Frame {
    let own = identifier_in(frame);
    assert_eq!(own.as_deref().unwrap_or_default(), client.identifier);
    let seen = world.send_dhcp(frame.clone()).unwrap();
    assert!(is_right(&seen), "{}", client.name);
    let expected = own.map(|_| SEEN.to_vec());
    assert_eq!(identifier_in(&seen), expected, "{}", client.name);
    assert_eq!(others_in(&seen), others_in(frame), "{}", client.name);
    seen
}

/// The server's answer, as the client sees it: with its own identifier, or none.
fn answered(client: &Client, world: &mut World, frame: &Frame) {
    let returned = identifier_in(frame);
    let seen = world.receive_dhcp(frame.clone()).unwrap();
    assert!(is_right(&seen), "{}", client.name);
    let expected = returned.map(|_| client.identifier.to_vec());
    assert_eq!(identifier_in(&seen), expected, "{}", client.name);
    assert_eq!(others_in(&seen), others_in(frame), "{}", client.name);
}

/// The server's answer to what it has seen.
fn answer(seen: &Frame, kind: u8, returns: bool, to_all: bool) -> Frame {
    let mut reply = Dhcp::reply(kind).address(1, "255.255.255.0");
    if seen.0[282..285] == [53, 1, 8] {
        reply.yiaddr = "0.0.0.0";
    } else {
        reply = reply.option(51, &600_u32.to_be_bytes());
    }
    if let Some(identifier) = identifier_in(seen).filter(|_| returns) {
        reply = reply.option(61, &identifier);
    }
    let reply = reply.address(3, GATEWAY_IP).address(6, NAME_SERVER);
    let frame = if to_all {
        reply.answer_to_all()
    } else {
        reply.answer()
    };
    frame.with_udp_checksum()
}

/// The options of a message without pads, up to the end.
fn options_of(frame: &Frame) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &frame.0[282..];
    let mut options = Vec::new();
    loop {
        match *rest {
            [255, ..] => return options,
            [0, ref behind @ ..] => rest = behind,
            [code, len, ref behind @ ..] => {
                let (data, behind) = behind.split_at(len.into());
                options.push((code, data.to_vec()));
                rest = behind;
            }
            _ => panic!("the options have no end"),
        }
    }
}

fn identifier_in(frame: &Frame) -> Option<Vec<u8>> {
    let mut found = options_of(frame)
        .into_iter()
        .filter(|(code, _)| *code == 61);
    let identifier = found.next().map(|(_, data)| data);
    assert_eq!(found.next(), None, "two identifiers");
    identifier
}

/// All but the identifier: the fixed fields, and the other options.
fn others_in(frame: &Frame) -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
    let mut options = options_of(frame);
    options.retain(|(code, _)| *code != 61);
    (frame.0[42..282].to_vec(), options)
}

fn ip_checksum(Frame(frame): &Frame) -> [u8; 2] {
    let words = frame[14..34].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from(!folded & 0xffff).unwrap().to_be_bytes()
}

/// What a server sees of the VM: Ethernet, and its MAC address.
const SEEN: [u8; 7] = [1, 0x52, 0x54, 0, 0, 0, 2];
