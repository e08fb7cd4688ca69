//! TCP segments that a kernel takes as one, and gives as one: an Ethernet frame with an IPv4 packet
//! of more than its size, which is cut where it leaves the machine (Linux,
//! Documentation/networking/segmentation-offloads.rst).
//!
//! ```text
//!   frames   | headers | data 1 |   | headers | data 2 |   | headers | data 3 |
//!   large    | headers | data 1 | data 2 | data 3 |
//! ```
//!
//! The headers of all parts are the same but for lengths, sequence number, identification, flags of
//! the last, and checksums. Data is never copied here: whoever calls has it where it is to be.

use std::net::Ipv4Addr;

use arrayvec::ArrayVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Mac;
use super::checksum::{add, sum};
use super::ethernet::{Ethernet, ethertype};
use super::ipv4::{self, protocol};
use super::tcp::Tcp;
use super::virtio::VirtioHeader;

/// Headers without options, which every segment begins with: 54 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fixed {
    ethernet: Ethernet,
    ip: ipv4::Header,
    tcp: Tcp,
}

/// A frame that carries a whole TCP segment over IPv4.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    headers: &'a Fixed,
    /// Of TCP; IPv4 has none here.
    options: &'a [u8],
    /// The data.
    pub data: &'a [u8],
}

/// What comes before the data of a large segment, as bytes: the virtio header, and the headers.
pub type LargeHeaders = ArrayVec<u8, LARGE_HEADERS_MAX>;

/// The headers of a frame that carries a TCP segment, as bytes.
pub type HeaderBytes = ArrayVec<u8, HEADERS_MAX>;

impl<'a> Segment<'a> {
    /// Parses a frame that others may be joined to: IPv4 without options that is no fragment, and
    /// TCP with data, with no flags but ACK and PSH, and nothing behind the packet.
    #[must_use]
    #[inline]
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let segment = Self::with_headers(frame)?;
        let headers = segment.headers;
        let is_plain = headers.tcp.is_only_ack()
            && headers.ip.is_unfragmented()
            && usize::from(headers.ip.total_len()).checked_add(Ethernet::LEN)? == frame.len();
        (is_plain && !segment.data.is_empty()).then_some(segment)
    }

    #[inline]
    fn with_headers(frame: &'a [u8]) -> Option<Self> {
        let (headers, rest) = Fixed::ref_from_prefix(frame).ok()?;
        let is_tcp = headers.ethernet.ethertype.get() == ethertype::IPV4
            && headers.ip.header_len() == Some(size_of::<ipv4::Header>())
            && headers.ip.protocol == protocol::TCP;
        let options_len = headers.tcp.header_len().checked_sub(size_of::<Tcp>())?;
        let (options, data) = rest.split_at_checked(options_len)?;
        is_tcp.then_some(Self {
            headers,
            options,
            data,
        })
    }

    /// Whether another segment is the next part of a large one that begins with this one, and that
    /// has `parts` parts with `len` bytes of data already: its headers must be such that cutting
    /// gives them again. The identification may count up where fragments are forbidden: there it
    /// has no meaning (RFC 6864).
    #[must_use]
    #[inline]
    pub fn is_continued_by(&self, next: &Self, parts: u16, len: usize) -> bool {
        let (ours, theirs) = (self.headers, next.headers);
        let wanted_id = ours.ip.identification.get().wrapping_add(parts);
        let total = HEADERS_MAX
            .saturating_add(len)
            .saturating_add(next.data.len());
        ours.tcp.is_same_but_for_place(&theirs.tcp)
            && ours.tcp.sequence_after(len) == theirs.tcp.sequence_after(0)
            && ours.ip.is_same_but_for_length(&theirs.ip)
            && (ours.ip.forbids_fragments() || theirs.ip.identification.get() == wanted_id)
            && ours.ethernet == theirs.ethernet
            && self.options == next.options
            && next.data.len() <= self.data.len()
            && total <= usize::from(u16::MAX)
    }

    /// Whether both checksums are right. Cutting makes new ones, so that damage would pass for sound.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        let headers = self.headers;
        let len = headers.ip.total_len().wrapping_sub(IP_LEN);
        let sums = [
            headers.ip.pseudo_header(len),
            sum(headers.tcp.as_bytes()),
            sum(self.options),
            // At an even place: options are whole words.
            sum(self.data),
        ];
        sum(headers.ip.as_bytes()) == u16::MAX && sums.into_iter().fold(0, add) == u16::MAX
    }

    /// Whether no other part may follow this one: it asks to be delivered at once.
    #[must_use]
    #[inline]
    pub const fn is_pushed(&self) -> bool {
        self.headers.tcp.is_pushed()
    }

    /// What comes before the data of a large segment that begins with this one and ends with
    /// `last`, and that has `len` bytes of data, at most as many as
    /// [`is_continued_by`](Self::is_continued_by) lets come together: the virtio header, and the headers.
    #[must_use]
    pub fn headers_of_large(&self, last: &Self, len: usize) -> LargeHeaders {
        let mut headers = *self.headers;
        let tcp_len = size_of::<Tcp>()
            .saturating_add(self.options.len())
            .saturating_add(len);
        let tcp_len = u16::try_from(tcp_len).unwrap_or(u16::MAX);
        headers.ip.set_total_len(tcp_len.saturating_add(IP_LEN));
        headers.tcp.take_flags(&last.headers.tcp);
        headers.tcp.set_checksum(headers.ip.pseudo_header(tcp_len));
        let header_len = size_of::<Fixed>().saturating_add(self.options.len());
        let virtio = VirtioHeader::large(
            u16::try_from(header_len).unwrap_or(0),
            u16::try_from(self.data.len()).unwrap_or(0),
            TCP_START,
        );
        joined([virtio.as_bytes(), headers.as_bytes(), self.options])
    }
}

/// A large segment that is to be cut.
#[derive(Debug, Clone, Copy)]
pub struct Large {
    headers: Fixed,
    options: [u8; OPTIONS_MAX],
    options_len: usize,
    /// The bytes of data in all parts, and in each but the last, which has no more.
    len: usize,
    part_len: usize,
}

impl Large {
    /// Parses the frame of a large segment; None for one that is not TCP over IPv4 without options,
    /// or whose lengths contradict each other.
    #[must_use]
    pub fn parse(frame: &[u8], part_len: u16) -> Option<Self> {
        let Segment {
            headers,
            options,
            data,
        } = Segment::with_headers(frame)?;
        let total_len = usize::from(headers.ip.total_len());
        let is_whole = total_len.checked_add(Ethernet::LEN)? == frame.len();
        let mut bytes = [0; OPTIONS_MAX];
        let room = bytes.get_mut(..options.len())?;
        room.copy_from_slice(options);
        (is_whole && headers.ip.is_unfragmented() && part_len != 0).then_some(Self {
            headers: *headers,
            options: bytes,
            options_len: options.len(),
            len: data.len(),
            part_len: part_len.into(),
        })
    }

    /// How many parts there are, at least one.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.len.div_ceil(self.part_len).max(1)
    }

    /// The length of the headers, in front of the data of each part.
    #[must_use]
    pub fn headers_len(&self) -> usize {
        size_of::<Fixed>().saturating_add(self.options_len)
    }

    /// Where the data of a part is in the frame.
    #[must_use]
    pub fn data(&self, part: usize) -> std::ops::Range<usize> {
        let headers = self.headers_len();
        let end = headers.saturating_add(self.len);
        let start = headers.saturating_add(part.saturating_mul(self.part_len));
        start.min(end)..start.saturating_add(self.part_len).min(end)
    }

    /// Writes the headers of a part before its data, which follows them in `frame`.
    pub fn write_headers(&self, part: usize, frame: &mut [u8]) {
        let headers_len = self.headers_len();
        let Some((room, data)) = frame.split_at_mut_checked(headers_len) else {
            return;
        };
        let mut headers = self.headers;
        let options = self.options.get(..self.options_len).unwrap_or_default();
        // Below 2^16, as the frame that it is cut from is.
        let tcp_len = headers_len
            .wrapping_sub(TCP_START.into())
            .wrapping_add(data.len());
        let tcp_len = u16::try_from(tcp_len).unwrap_or(u16::MAX);
        let number = u16::try_from(part).unwrap_or(u16::MAX);
        headers.ip.identification = headers.ip.identification.get().wrapping_add(number).into();
        headers.ip.set_total_len(tcp_len.saturating_add(IP_LEN));
        let before = part.saturating_mul(self.part_len);
        let is_last = before.saturating_add(data.len()) >= self.len;
        headers.tcp.become_part(before, part == 0, is_last);
        let sums = [
            headers.ip.pseudo_header(tcp_len),
            sum(headers.tcp.as_bytes()),
            sum(options),
            sum(data),
        ];
        headers.tcp.set_checksum(!sums.into_iter().fold(0, add));
        let (fixed, room) = room.split_at_mut(size_of::<Fixed>().min(headers_len));
        fixed.copy_from_slice(headers.as_bytes());
        room.copy_from_slice(options);
    }

    /// The large segment that consists of the parts from this one on, which must exist: its headers
    /// come before the data from that part on.
    #[must_use]
    pub fn rest(&self, part: usize) -> (HeaderBytes, u16) {
        let mut headers = self.headers;
        let before = part.saturating_mul(self.part_len);
        let number = u16::try_from(part).unwrap_or(u16::MAX);
        headers.ip.identification = headers.ip.identification.get().wrapping_add(number).into();
        let total_len = size_of::<ipv4::Header>()
            .saturating_add(size_of::<Tcp>())
            .saturating_add(self.options_len)
            .saturating_add(self.len.saturating_sub(before));
        headers
            .ip
            .set_total_len(u16::try_from(total_len).unwrap_or(u16::MAX));
        headers.tcp.become_part(before, part == 0, true);
        let options = self.options.get(..self.options_len).unwrap_or_default();
        let part_len = u16::try_from(self.part_len).unwrap_or(u16::MAX);
        (joined([headers.as_bytes(), options]), part_len)
    }
}

/// A large segment with its virtio header, to see whether a TAP takes one. It reaches nobody: it is
/// addressed as a pause frame (IEEE 802.3, 31B), and the checksum of its IPv4 header is wrong.
#[must_use]
pub fn large_for_nobody() -> ArrayVec<u8, 256> {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let ethernet = Ethernet {
        destination: Mac([0x01, 0x80, 0xc2, 0, 0, 1]),
        source: Mac([2, 0, 0, 0, 0, 1]),
        ethertype: ethertype::IPV4.into(),
    };
    let mut ip = ipv4::Header::new(protocol::TCP, IP_LEN + TCP_LEN + 32, nobody, nobody);
    ip.checksum.set(!ip.checksum.get());
    let tcp = Tcp::with_data();
    let virtio = VirtioHeader::large(TCP_START + TCP_LEN, 16, TCP_START);
    let headers = Fixed { ethernet, ip, tcp };
    joined([virtio.as_bytes(), headers.as_bytes(), &[0; 32]])
}

/// The slices one after the other, as far as there is room.
fn joined<const PARTS: usize, const MAX: usize>(parts: [&[u8]; PARTS]) -> ArrayVec<u8, MAX> {
    let mut all = ArrayVec::new();
    for part in parts {
        let _ = all.try_extend_from_slice(part);
    }
    all
}

const OPTIONS_MAX: usize = 40;
/// The longest headers, with all options that TCP can have.
const HEADERS_MAX: usize = size_of::<Fixed>() + OPTIONS_MAX;
const LARGE_HEADERS_MAX: usize = VirtioHeader::LEN + HEADERS_MAX;
const IP_LEN: u16 = 20;
const TCP_LEN: u16 = 20;
/// Where TCP's header begins in a frame.
const TCP_START: u16 = 34;
const _: () = assert!(size_of::<Fixed>() == 54);
