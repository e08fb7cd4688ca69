//! `softnet bench --pcap`: the real frames of a capture through the filter, each in the
//! direction that it went: from the VM's MAC address out, every other one in.
//!
//! A capture does not say who the VM is. Unless told, it is the station that sent the most
//! frames, with the address that it used most, behind a gateway with the first address of its
//! network and the MAC address that it sent most to.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::Read;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use thiserror::Error;

use super::network::{LAB, Network};
use crate::direction::Direction;
use crate::filter::{Filter, Inbound, Outbound, Step, Verdict};
use crate::wire::Mac;
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::ipv4::Ipv4;

/// The frames of a capture, in their order.
#[derive(Debug, Default)]
pub struct Capture {
    /// As they were captured; some may be cut.
    pub frames: Vec<Vec<u8>>,
    /// How many were cut by the capture's own limit (its snap length).
    pub cut: usize,
}

/// Why a file is not a capture that can be used.
#[derive(Debug, Error)]
pub enum NotACapture {
    /// It has another form.
    #[error("not a capture: neither pcap nor pcapng")]
    Unknown,
    /// It ends within a frame.
    #[error("cut short: it ends within frame {0}")]
    CutShort(usize),
    /// A part of it makes no sense.
    #[error("damaged after frame {0}")]
    Damaged(usize),
    /// What was captured is not Ethernet.
    #[error("of link type {0}, not of Ethernet (1)")]
    LinkType(i32),
    /// There is no frame in it.
    #[error("there are no frames in it")]
    Empty,
    /// The operating system cannot read it.
    #[error("cannot be read")]
    Unreadable,
}

impl Capture {
    /// Reads a file of the form pcap or pcapng.
    ///
    /// # Errors
    /// See [`NotACapture`].
    pub fn read(file: impl Read + Send) -> Result<Self, NotACapture> {
        let mut reader = create_reader(BUFFER, file).map_err(|error| match error {
            PcapError::ReadError => NotACapture::Unreadable,
            _ => NotACapture::Unknown,
        })?;
        let mut capture = Self::default();
        let mut refilled = false;
        loop {
            let at = capture.frames.len();
            let exhausted = reader.reader_exhausted();
            match reader.next() {
                Ok((len, block)) => {
                    capture.take(&block)?;
                    reader.consume(len);
                    refilled = false;
                }
                Err(PcapError::Eof) if at == 0 => return Err(NotACapture::Empty),
                Err(PcapError::Eof) => return Ok(capture),
                // More data did not complete the block: there is no more.
                Err(PcapError::Incomplete(_)) if refilled && exhausted => {
                    return Err(NotACapture::CutShort(at + 1));
                }
                Err(PcapError::Incomplete(_)) => {
                    reader.refill().map_err(|_| NotACapture::Unreadable)?;
                    refilled = true;
                }
                Err(PcapError::UnexpectedEof) => return Err(NotACapture::CutShort(at + 1)),
                Err(PcapError::ReadError) => return Err(NotACapture::Unreadable),
                Err(_) => return Err(NotACapture::Damaged(at)),
            }
        }
    }

    fn take(&mut self, block: &PcapBlockOwned<'_>) -> Result<(), NotACapture> {
        let of_ethernet = |linktype: Linktype| match linktype {
            Linktype::ETHERNET => Ok(()),
            Linktype(other) => Err(NotACapture::LinkType(other)),
        };
        match block {
            PcapBlockOwned::LegacyHeader(header) => of_ethernet(header.network),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                of_ethernet(interface.linktype)
            }
            PcapBlockOwned::Legacy(packet) => {
                self.push(packet.data, packet.origlen);
                Ok(())
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let len = packet.caplen as usize;
                self.push(
                    packet.data.get(..len).unwrap_or(packet.data),
                    packet.origlen,
                );
                Ok(())
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let len = packet.origlen as usize;
                self.push(
                    packet.data.get(..len).unwrap_or(packet.data),
                    packet.origlen,
                );
                Ok(())
            }
            PcapBlockOwned::NG(_) => Ok(()),
        }
    }

    fn push(&mut self, data: &[u8], original_len: u32) {
        self.cut += usize::from(data.len() < original_len as usize);
        self.frames.push(data.to_vec());
    }

    /// Who is who, as far as the frames show; `vm_mac` if it is known.
    #[must_use]
    pub fn network(&self, vm_mac: Option<Mac>) -> Network {
        let headers = || {
            self.frames
                .iter()
                .filter_map(|frame| Ethernet::split(frame))
        };
        let stations = headers().map(|(ethernet, _)| ethernet.source);
        let vm_mac = vm_mac
            .or_else(|| most_frequent_station(stations))
            .unwrap_or(LAB.vm_mac);
        let sent = || {
            headers().filter(|(ethernet, _)| {
                ethernet.source == vm_mac && ethernet.ethertype.get() == ethertype::IPV4
            })
        };
        let targets = sent().map(|(ethernet, _)| ethernet.destination);
        // Captures of a loopback interface have one address for all.
        let gateway_mac = most_frequent_station(targets.filter(|mac| *mac != vm_mac));
        let addresses = sent().filter_map(|(_, packet)| Ipv4::parse(packet));
        let vm = most_frequent(addresses.map(|packet| packet.header.source.get()));
        let vm = vm
            .filter(|address| *address != 0)
            .map_or(LAB.vm, Ipv4Addr::from);
        let [a, b, c, last] = vm.octets();
        Network {
            vm_mac,
            vm,
            gateway_mac: gateway_mac.unwrap_or(LAB.gateway_mac),
            gateway: Ipv4Addr::new(a, b, c, if last == 1 { 254 } else { 1 }),
        }
    }

    /// Lets the filters judge every frame, and again and again to learn what that costs.
    #[must_use]
    pub fn judge(&self, vm_mac: Mac, outbound: &mut Outbound, inbound: &mut Inbound) -> Judgement {
        let is_outbound = |frame: &[u8]| {
            Ethernet::split(frame).is_some_and(|(ethernet, _)| ethernet.source == vm_mac)
        };
        let (out, back): (Vec<_>, Vec<_>) =
            self.frames.iter().partition(|frame| is_outbound(frame));
        Judgement {
            verdicts: [verdicts(outbound, &out), verdicts(inbound, &back)],
            ns_per_frame: [cost(outbound, &out), cost(inbound, &back)],
        }
    }
}

/// What the filters said, outbound first.
#[derive(Debug)]
pub struct Judgement {
    /// How many frames passed or were dropped for a reason, by label, most first.
    pub verdicts: [Vec<(&'static str, usize)>; 2],
    /// Nanoseconds per frame, all frames one after the other over and over.
    pub ns_per_frame: [Option<f64>; 2],
}

impl Judgement {
    /// The verdicts of a direction.
    #[must_use]
    pub fn of(&self, direction: Direction) -> (&[(&'static str, usize)], Option<f64>) {
        let index = direction as usize;
        (&self.verdicts[index], self.ns_per_frame[index])
    }
}

fn verdicts(filter: &mut impl Filter, frames: &[&Vec<u8>]) -> Vec<(&'static str, usize)> {
    let mut counts = HashMap::<_, usize>::new();
    for frame in frames {
        let label = match filter.judge(frame) {
            Step::Done(Verdict::Forward) => "forwarded",
            Step::Done(Verdict::Drop(reason)) => reason.label(),
            // DHCP, ARP, what opens a connection: how often they come counts, of which a
            // capture's frames all at once say nothing.
            _ => "inspected",
        };
        *counts.entry(label).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(label, count)| (usize::MAX - count, label));
    counts
}

/// The best of some goes, of which each is long enough for the clock.
fn cost(filter: &mut impl Filter, frames: &[&Vec<u8>]) -> Option<f64> {
    let mut go = || {
        let start = Instant::now();
        let mut rounds = 0;
        while start.elapsed() < GO {
            for frame in frames {
                std::hint::black_box(filter.judge(std::hint::black_box(frame)));
            }
            rounds += 1;
        }
        #[allow(clippy::cast_precision_loss)] // Far below 2^52.
        let judged = (rounds * frames.len()) as f64;
        start.elapsed().as_secs_f64() * 1e9 / judged
    };
    (!frames.is_empty()).then(|| (0..GOES).map(|_| go()).fold(f64::INFINITY, f64::min))
}

fn most_frequent_station(macs: impl Iterator<Item = Mac>) -> Option<Mac> {
    let stations = macs.filter(|mac| !mac.is_multicast());
    most_frequent(stations.map(Mac::to_u64)).map(Mac::from_u64)
}

fn most_frequent<T: Copy + Eq + Hash + Ord>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = HashMap::<T, usize>::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    // By the item itself among equals, so that the outcome is the same each time.
    counts
        .into_iter()
        .max_by_key(|&(item, count)| (count, item))
        .map(|(item, _)| item)
}

/// More than the largest frame that a capture may have (256 KiB by libpcap's own limit).
const BUFFER: usize = 1 << 20;
const GO: Duration = Duration::from_millis(20);
const GOES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::network::Conversation;
    use crate::bench::traffic::Traffic;

    /// A pcap file of version 2.4 with these frames.
    fn pcap(link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 2 | 4 << 16, 0, 0, 65_535, link_type] {
            file.extend(word.to_le_bytes());
        }
        for frame in frames {
            let len = u32::try_from(frame.len()).unwrap();
            for word in [0, 0, len, len] {
                file.extend(word.to_le_bytes());
            }
            file.extend(frame);
        }
        file
    }

    #[test]
    fn the_vm_is_found_and_its_frames_are_judged() {
        let mut frames = Traffic::Mixed.frames(Direction::Outbound, &Conversation::LAB);
        frames.extend(Traffic::Flow(64).frames(Direction::Inbound, &Conversation::LAB));
        frames.extend(
            Traffic::Spoofed
                .frames(Direction::Outbound, &Conversation::LAB)
                .into_iter()
                .take(3),
        );
        let capture = Capture::read(&pcap(1, &frames)[..]).unwrap();
        let network = capture.network(None);
        assert_eq!(network, LAB);
        let (mut outbound, mut inbound) = network.filters_with_lease(0, 1514).unwrap();
        let judgement = capture.judge(network.vm_mac, &mut outbound, &mut inbound);
        assert_eq!(
            judgement.verdicts[0],
            [("forwarded", 1024), ("source-address", 3)]
        );
        assert_eq!(judgement.verdicts[1], [("forwarded", 1)]);
        assert!(judgement.ns_per_frame[0].unwrap() > 0.0);
    }

    #[test]
    fn what_is_no_capture_says_why() {
        let error = |file: &[u8]| Capture::read(file).unwrap_err().to_string();
        let frames = Traffic::Imix.frames(Direction::Outbound, &Conversation::LAB);
        let whole = pcap(1, &frames);
        assert_eq!(
            error(&whole[..whole.len() - 1]),
            "cut short: it ends within frame 12"
        );
        assert_eq!(error(&whole[..30]), "cut short: it ends within frame 1");
        assert_eq!(
            error(&pcap(105, &frames)),
            "of link type 105, not of Ethernet (1)"
        );
        assert_eq!(error(&pcap(1, &[])), "there are no frames in it");
        assert_eq!(
            error(b"GIF89a, and then some"),
            "not a capture: neither pcap nor pcapng"
        );
        assert_eq!(error(b""), "not a capture: neither pcap nor pcapng");
    }
}
