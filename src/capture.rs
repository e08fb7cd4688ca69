//! Captures of Ethernet frames, as tcpdump and Wireshark write them: pcap and pcapng.
//!
//! A capture does not say who the VM is. Unless told, it is the station that sent the most
//! frames, with the address that it used most, behind the MAC address that it sent most to.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::Read;
use std::net::Ipv4Addr;
use std::time::Duration;

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use thiserror::Error;

use crate::wire::Mac;
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::ipv4::Ipv4;

/// The frames of a capture, in their order.
#[derive(Debug, Default)]
pub struct Capture {
    /// As they were captured; some may be cut.
    pub frames: Vec<Frame>,
    /// How many were cut by the capture's own limit (its snap length).
    pub cut: usize,
}

/// A frame of a capture.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Since the epoch of the capture's clock. Zero in pcapng's simple packets, which have none.
    pub time: Duration,
    /// From the Ethernet header on, without the checksum behind it.
    pub bytes: Vec<u8>,
}

/// Who is who in a capture, as far as its frames show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stations {
    /// The VM, if any frame has a sender.
    pub vm_mac: Option<Mac>,
    /// The address that it used most, other than 0.0.0.0.
    pub vm: Option<Ipv4Addr>,
    /// Where it sent most IPv4 packets to, other than itself.
    pub gateway_mac: Option<Mac>,
}

impl Stations {
    /// The gateway's address as most networks have it: the first of the VM's /24, or the last but
    /// one where the VM has the first.
    #[must_use]
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        let [a, b, c, last] = self.vm?.octets();
        Some(Ipv4Addr::new(a, b, c, if last == 1 { 254 } else { 1 }))
    }
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
        let mut clocks = Clocks::default();
        let mut refilled = false;
        loop {
            let at = capture.frames.len();
            let exhausted = reader.reader_exhausted();
            match reader.next() {
                Ok((len, block)) => {
                    capture.take(&block, &mut clocks)?;
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

    fn take(&mut self, block: &PcapBlockOwned<'_>, clocks: &mut Clocks) -> Result<(), NotACapture> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                of_ethernet(header.network)?;
                clocks.has_nanoseconds = header.is_nanosecond_precision();
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => clocks.interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                of_ethernet(interface.linktype)?;
                clocks.interfaces.push(interface.ts_resolution());
            }
            PcapBlockOwned::Legacy(packet) => {
                let time = clocks.legacy(packet.ts_sec, packet.ts_usec);
                self.push(time, packet.data, packet.origlen);
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let time = clocks.of_interface(packet.if_id, units);
                let data = packet.data.get(..packet.caplen as usize);
                self.push(time, data.unwrap_or(packet.data), packet.origlen);
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let data = packet.data.get(..packet.origlen as usize);
                self.push(Duration::ZERO, data.unwrap_or(packet.data), packet.origlen);
            }
            PcapBlockOwned::NG(_) => {}
        }
        Ok(())
    }

    fn push(&mut self, time: Duration, data: &[u8], original_len: u32) {
        self.cut += usize::from(data.len() < original_len as usize);
        let bytes = data.to_vec();
        self.frames.push(Frame { time, bytes });
    }

    /// Who is who; `vm_mac` if it is known.
    #[must_use]
    pub fn stations(&self, vm_mac: Option<Mac>) -> Stations {
        let headers = || {
            let frames = self.frames.iter();
            frames.filter_map(|frame| Ethernet::split(&frame.bytes))
        };
        let stations = headers().map(|(ethernet, _)| ethernet.source);
        let vm_mac = vm_mac.or_else(|| most_frequent_station(stations));
        let sent = || {
            headers().filter(|(ethernet, _)| {
                Some(ethernet.source) == vm_mac && ethernet.ethertype.get() == ethertype::IPV4
            })
        };
        let targets = sent().map(|(ethernet, _)| ethernet.destination);
        let addresses = sent().filter_map(|(_, packet)| Ipv4::parse(packet));
        let addresses = addresses.map(|packet| packet.header.source.get());
        let vm = most_frequent(addresses.filter(|address| *address != 0));
        Stations {
            vm_mac,
            vm: vm.map(Ipv4Addr::from),
            // Captures of a loopback interface have one address for all.
            gateway_mac: most_frequent_station(targets.filter(|mac| Some(*mac) != vm_mac)),
        }
    }
}

/// What the numbers of time stamps mean.
#[derive(Debug, Default)]
struct Clocks {
    /// In a file of the form pcap: nanoseconds, not microseconds.
    has_nanoseconds: bool,
    /// Of each interface of a pcapng section: units in a second, if that is a number.
    interfaces: Vec<Option<u64>>,
}

impl Clocks {
    fn legacy(&self, seconds: u32, fraction: u32) -> Duration {
        let unit = if self.has_nanoseconds { 1 } else { 1000 };
        Duration::from_secs(seconds.into()) + Duration::from_nanos(u64::from(fraction) * unit)
    }

    fn of_interface(&self, number: u32, units: u64) -> Duration {
        let interface = self.interfaces.get(number as usize).copied().flatten();
        let in_a_second = interface.unwrap_or(MICROSECONDS).max(1);
        let rest = u128::from(units % in_a_second) * 1_000_000_000 / u128::from(in_a_second);
        let nanos = u64::try_from(rest).expect("less than a second");
        Duration::from_secs(units / in_a_second) + Duration::from_nanos(nanos)
    }
}

const fn of_ethernet(linktype: Linktype) -> Result<(), NotACapture> {
    match linktype {
        Linktype::ETHERNET => Ok(()),
        Linktype(other) => Err(NotACapture::LinkType(other)),
    }
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

/// The longest frame to expect in a capture: hardware or the kernel may have merged it, or may have
/// yet to cut it.
pub const MAX_FRAME: usize = 65_550;
/// More than the largest frame that a capture may have (256 KiB by libpcap's own limit).
const BUFFER: usize = 1 << 20;
/// In a second: what pcapng has where an interface does not say.
const MICROSECONDS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// A pcap file of version 2.4 with these frames, one every 1.5 seconds.
    fn pcap(magic: u32, link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [magic, 2 | 4 << 16, 0, 0, 65_535, link_type] {
            file.extend(word.to_le_bytes());
        }
        let half = if magic == NANOSECONDS {
            500_000_000
        } else {
            500_000
        };
        for (number, frame) in (0..).zip(frames) {
            let len = u32::try_from(frame.len()).unwrap();
            for word in [number * 3 / 2, number % 2 * half, len, len] {
                file.extend(word.to_le_bytes());
            }
            file.extend(frame);
        }
        file
    }

    const USUAL: u32 = 0xa1b2_c3d4;
    const NANOSECONDS: u32 = 0xa1b2_3c4d;

    #[test]
    fn frames_have_the_times_of_their_capture() {
        let frames = [vec![1; 60], vec![2; 61]];
        for magic in [USUAL, NANOSECONDS] {
            let capture = Capture::read(&pcap(magic, 1, &frames)[..]).unwrap();
            let times: Vec<_> = capture.frames.iter().map(|frame| frame.time).collect();
            assert_eq!(times, [Duration::ZERO, Duration::from_millis(1500)]);
            assert_eq!(capture.frames[1].bytes, frames[1]);
        }
        let clocks = Clocks {
            interfaces: vec![Some(1_000_000_000), None, Some(0)],
            ..Clocks::default()
        };
        let second = Duration::from_secs(1);
        assert_eq!(clocks.of_interface(0, 1_000_000_000), second);
        for without in [1, 7] {
            assert_eq!(clocks.of_interface(without, 1_000_000), second);
        }
        assert!(clocks.of_interface(2, u64::MAX) > second);
    }

    #[test]
    fn what_is_no_capture_says_why() {
        let error = |file: &[u8]| Capture::read(file).unwrap_err().to_string();
        let frames = vec![vec![0; 60]; 12];
        let whole = pcap(USUAL, 1, &frames);
        assert_eq!(
            error(&whole[..whole.len() - 1]),
            "cut short: it ends within frame 12"
        );
        assert_eq!(error(&whole[..30]), "cut short: it ends within frame 1");
        assert_eq!(
            error(&pcap(USUAL, 105, &frames)),
            "of link type 105, not of Ethernet (1)"
        );
        assert_eq!(error(&pcap(USUAL, 1, &[])), "there are no frames in it");
        assert_eq!(
            error(b"GIF89a, and then some"),
            "not a capture: neither pcap nor pcapng"
        );
        assert_eq!(error(b""), "not a capture: neither pcap nor pcapng");
    }
}
