//! The Ethernet header (IEEE 802.3, 14 bytes, no frame check sequence), and MAC addresses.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A MAC address, in the order of transmission.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether this names a group of stations rather than one: the broadcast address too.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
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
#[error("not a MAC address: six hexadecimal bytes joined by colons are, as in 52:54:00:12:34:56")]
pub struct NotAMac;

impl FromStr for Mac {
    type Err = NotAMac;

    /// Reads `52:54:00:12:34:56`; a byte may have one digit only, as macOS prints it.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut mac = [0; 6];
        let mut bytes = text.split(':');
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
    fn a_mac_is_read_as_it_is_printed() {
        let mac: Mac = "52:54:0:12:34:fE".parse().unwrap();
        assert_eq!(mac, Mac([0x52, 0x54, 0, 0x12, 0x34, 0xfe]));
        assert_eq!(mac.to_string(), "52:54:00:12:34:fe");
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
            "52-54-00-12-34-56",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(NotAMac), "{text}");
        }
    }
}
