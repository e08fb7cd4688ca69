//! The Ethernet header (IEEE 802.3, 14 bytes, no frame check sequence), and MAC addresses.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header that every frame begins with.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Ethernet {
    /// The receiver of the frame.
    pub destination: Mac,
    /// The claimed sender.
    pub source: Mac,
    /// What follows: an [`ethertype`], or a length if it is at most [`ethertype::LLC_MAX`].
    pub ethertype: U16,
}

impl Ethernet {
    /// The length of the header in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Splits a frame into its header and its payload; `None` below 14 bytes.
    #[must_use]
    pub fn split(frame: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(frame).ok()
    }
}

const _: () = assert!(Ethernet::LEN == 14);

/// Values of [`Ethernet::ethertype`] (IANA, "IEEE 802 Numbers").
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
    /// A customer's VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A provider's VLAN tag (IEEE 802.1ad, "QinQ").
    pub const PROVIDER_VLAN: u16 = 0x88a8;
    /// Provider tags as used before 802.1ad.
    pub const OLD_PROVIDER_VLANS: [u16; 3] = [0x9100, 0x9200, 0x9300];
    /// Port authentication (IEEE 802.1X).
    pub const EAPOL: u16 = 0x888e;
    /// Up to this value the field is a length, and an LLC header follows (IEEE 802.3, 3.2.6).
    pub const LLC_MAX: u16 = 1500;
}

/// A MAC address, in the order of transmission.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address as a number below 2^48, which fits into one atomic word. The first byte is the
    /// lowest, so that the conversion costs two loads on the usual processors.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// The address for a number; the upper 16 bits are ignored.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = number.to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    /// The MAC address for an IPv4 multicast group (RFC 1112, 6.4).
    #[must_use]
    pub const fn of_ipv4_group(group: u32) -> Self {
        let [_, b, c, d] = group.to_be_bytes();
        Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }

    /// Whether this is a group address, which includes the broadcast address.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "not a MAC address: six hexadecimal bytes joined by colons or dashes are, as in \
     52:54:00:12:34:56"
)]
pub struct NotAMac;

impl FromStr for Mac {
    type Err = NotAMac;

    /// Parses `52:54:00:12:34:56`, or the same with dashes, as Windows writes it. A byte may have a
    /// single digit, as macOS prints it.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut mac = [0; 6];
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = text.split(separator);
        for byte in &mut mac {
            let digits = bytes.next().ok_or(NotAMac)?;
            let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            if !hexadecimal || !(1..=2).contains(&digits.len()) {
                return Err(NotAMac);
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotAMac)?;
        }
        bytes.next().is_none().then_some(Self(mac)).ok_or(NotAMac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_split_off_its_frame() {
        let frame = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x08, 0x06, 1, 2,
        ];
        let (header, rest) = Ethernet::split(&frame).unwrap();
        assert_eq!(header.destination, Mac::BROADCAST);
        assert_eq!(header.source, Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(header.ethertype.get(), ethertype::ARP);
        assert_eq!(rest, [1, 2]);
        assert!(Ethernet::split(&frame[..13]).is_none());
        assert!(Ethernet::split(&[]).is_none());
    }

    #[test]
    fn a_mac_fits_into_a_word_and_back() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0xfe]);
        assert_eq!(mac.to_u64(), 0xfe34_1200_5452);
        assert_eq!(Mac::from_u64(0xfe34_1200_5452), mac);
    }

    #[test]
    fn a_group_has_23_bits_of_its_address_in_its_mac() {
        let group = u32::from(std::net::Ipv4Addr::new(239, 255, 255, 250));
        assert_eq!(
            Mac::of_ipv4_group(group),
            Mac([1, 0, 0x5e, 0x7f, 0xff, 0xfa])
        );
        assert!(Mac::of_ipv4_group(group).is_multicast());
    }

    #[test]
    fn a_mac_is_read_as_it_is_printed() {
        let mac: Mac = "52:54:0:12:34:fE".parse().unwrap();
        assert_eq!(mac, Mac([0x52, 0x54, 0, 0x12, 0x34, 0xfe]));
        assert_eq!(mac.to_string(), "52:54:00:12:34:fe");
        assert_eq!("52-54-0-12-34-fE".parse(), Ok(mac));
    }

    #[test]
    fn what_is_not_a_mac_is_refused() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5g",
            "+2:54:0:1:2:3",
            "525:4:0:1:2:3",
            ":::::",
            "52-54-00-12-34",
            "52-54-00:12:34:56",
            "52:54:00:12:34-56",
            "-----",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(NotAMac), "{text}");
        }
    }
}
