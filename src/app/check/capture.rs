//! `softnet check --pcap`: both filters over the frames of a capture, in their order and at their
//! times, with what they learn from one frame for the next.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use ipnet::Ipv4Net;
use softnet::capture::{Capture, MAX_FRAME, Stations};
use softnet::clock::Tick;
use softnet::direction::Direction;
use softnet::filter::{self, Filter, Inbound, Names, Outbound, Verdict};
use softnet::host::files::NamedFile;
use softnet::host::privileges::CallersRights;
use softnet::wire::Mac;
use softnet::wire::ethernet::{Ethernet, ethertype};
use softnet::wire::ipv4::{Ipv4, protocol};

use super::Check;

/// Prints a line for each frame, then how many there were of each fate. Returns how many are
/// dropped.
pub(super) fn judge(
    check: &Check,
    file: &NamedFile,
    vm_mac: Option<Mac>,
    rights: &CallersRights,
    out: &mut impl Write,
) -> anyhow::Result<usize> {
    let named = || file.to_string();
    let capture = Capture::read(file.open(rights).with_context(named)?).with_context(named)?;
    let stations = capture.stations(vm_mac);
    let vm_mac = stations.vm_mac.context("no frame has a sender")?;
    let usual = || Ipv4Net::new(stations.gateway()?, 24).ok();
    let gateway = check.gateway.or_else(usual);
    let gateway = gateway.context("the VM sends no IPv4: name the gateway with --gateway")?;
    let (mut outbound, mut inbound) = filters(check, &capture, &stations, vm_mac, gateway, out)?;
    let mut fates = BTreeMap::<_, usize>::new();
    let (mut drops, mut others) = (0, 0);
    let first = capture
        .frames
        .first()
        .map_or(Duration::ZERO, |frame| frame.time);
    let mut now = Duration::ZERO;
    for (number, frame) in (1..).zip(&capture.frames) {
        // A clock that was set back in between does not undo what was learned.
        now = now.max(frame.time.saturating_sub(first));
        let Some(direction) = direction(&frame.bytes, vm_mac) else {
            others += 1;
            continue;
        };
        let verdict = match direction {
            Direction::Outbound => decide(&mut outbound, now, &frame.bytes),
            Direction::Inbound => decide(&mut inbound, now, &frame.bytes),
        };
        let fate = match verdict {
            Verdict::Forward => "passes".to_owned(),
            Verdict::Drop(reason) => {
                drops += 1;
                format!("dropped as {}", reason.label())
            }
        };
        let (seconds, frame) = (now.as_secs_f64(), Short(&frame.bytes));
        writeln!(out, "{number} {seconds:.6} {direction} {frame}: {fate}")?;
        *fates.entry((direction as usize, fate)).or_default() += 1;
    }
    for ((direction, fate), count) in fates {
        writeln!(out, "{count} {}: {fate}", Direction::ALL[direction])?;
    }
    if others > 0 {
        writeln!(out, "{others} neither from the VM nor for it: left out")?;
    }
    Ok(drops)
}

/// The filters, with the lease that the capture begins with, and notes of what was taken for
/// granted.
fn filters(
    check: &Check,
    capture: &Capture,
    stations: &Stations,
    vm_mac: Mac,
    gateway: Ipv4Net,
    out: &mut impl Write,
) -> anyhow::Result<(Outbound, Inbound)> {
    let address = gateway.addr();
    let (outbound, inbound, lease) = filter::pair(&filter::Config {
        vm_mac,
        gateway: address,
        gateway_mac: stations.gateway_mac,
        subnet: Some(gateway.trunc()),
        mode: check.mode,
        isolation: !check.policy.wants_isolation_off(),
        max_frame: MAX_FRAME,
        policy: &check.policy,
        connection_rate: check.connection_rate,
        names: Names::default(),
    });
    let mac = stations.gateway_mac.map_or_else(
        || "a MAC address to be learned".to_owned(),
        |mac| mac.to_string(),
    );
    writeln!(out, "note: VM {vm_mac}; gateway {address} with {mac}")?;
    match stations
        .vm
        .filter(|_| !begins_without_lease(capture, vm_mac))
    {
        Some(address) => {
            lease.assume(address);
            writeln!(out, "note: {address} is taken for leased from the start")?;
        }
        None => writeln!(out, "note: there is no lease until the capture has its ACK")?,
    }
    if capture.cut > 0 {
        let cut = capture.cut;
        writeln!(
            out,
            "note: {cut} frames were cut when captured, and count as malformed"
        )?;
    }
    Ok((outbound, inbound))
}

/// Whether the first IPv4 packet of the VM has no address yet: it is asking for one.
fn begins_without_lease(capture: &Capture, vm_mac: Mac) -> bool {
    let headers = capture
        .frames
        .iter()
        .filter_map(|frame| Ethernet::split(&frame.bytes));
    let mut sent = headers.filter(|(ethernet, _)| ethernet.source == vm_mac);
    let first = sent.find_map(|(_, carried)| Ipv4::parse(carried));
    first.is_some_and(|packet| packet.header.source.get() == 0)
}

/// Which way a frame goes; a frame between others goes neither.
fn direction(frame: &[u8], vm_mac: Mac) -> Option<Direction> {
    let Some((ethernet, _)) = Ethernet::split(frame) else {
        // Too short to tell. Only the VM's side has no hardware that would have padded it.
        return Some(Direction::Outbound);
    };
    if ethernet.source == vm_mac {
        Some(Direction::Outbound)
    } else if ethernet.destination == vm_mac || ethernet.destination.is_multicast() {
        Some(Direction::Inbound)
    } else {
        None
    }
}

fn decide(filter: &mut impl Filter, now: Duration, frame: &[u8]) -> Verdict {
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let fraction = u64::from(now.subsec_nanos()) * u64::from(Tick::PER_SECOND) / 1_000_000_000;
    filter.begin(START.after(seconds).after_ticks(fraction));
    filter.decide_alone(frame.to_vec())
}

/// From whom, to whom, and what, without what is carried.
struct Short<'a>(&'a [u8]);

impl Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((ethernet, carried)) = Ethernet::split(self.0) else {
            return write!(f, "{} bytes", self.0.len());
        };
        let Some(packet) = Ipv4::parse(carried) else {
            let (source, destination) = (ethernet.source, ethernet.destination);
            let what = match ethernet.ethertype.get() {
                ethertype::ARP => "arp".to_owned(),
                ethertype::IPV4 => "ipv4, malformed".to_owned(),
                other => format!("ethertype {other:#06x}"),
            };
            return write!(f, "{source} > {destination} {what}");
        };
        let is_first = packet.fragment().is_none_or(|part| part.offset == 0);
        let header = packet.header;
        let name = match header.protocol {
            protocol::TCP => "tcp".to_owned(),
            protocol::UDP => "udp".to_owned(),
            protocol::ICMP => "icmp".to_owned(),
            other => format!("protocol {other}"),
        };
        let has_ports = matches!(header.protocol, protocol::TCP | protocol::UDP) && is_first;
        let addresses = [&header.source, &header.destination];
        let [from, to] = addresses.map(|address| Ipv4Addr::from(address.get()));
        match packet.payload.first_chunk() {
            Some([a, b, c, d]) if has_ports => {
                let (source, destination) =
                    (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                write!(f, "{from}:{source} > {to}:{destination} {name}")
            }
            _ => write!(f, "{from} > {to} {name}"),
        }
    }
}

/// When the first frame comes: late enough for every bucket to be full.
const START: Tick = Tick::from_secs(1000);
