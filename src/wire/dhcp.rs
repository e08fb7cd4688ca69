//! DHCP messages (RFC 2131) and the options that matter here (RFC 2132).
//!
//! A message is parsed in one walk over its options, which terminates on any input and allocates
//! nothing. An option that matters may come only once and with the right length, because it is
//! unknown which of two a server or client would believe.

use std::mem::offset_of;
use std::ops::Range;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Mac;

/// The fixed part of a message, including the cookie that distinguishes DHCP from BOOTP: 240 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`REQUEST`] or [`REPLY`].
    pub operation: u8,
    pub(super) hardware_type: u8,
    pub(super) hardware_len: u8,
    hops: u8,
    /// The transaction, chosen by the client.
    pub xid: U32,
    secs: U16,
    /// [`BROADCAST_FLAG`], or zero.
    pub flags: U16,
    /// The address that the client has and responds to, or zero.
    pub client: U32,
    /// The address that the server gives ("your address").
    pub yours: U32,
    /// The server to boot from, or zero.
    pub next_server: U32,
    /// The relay that forwarded the message, or zero.
    pub relay: U32,
    /// The client's hardware address.
    pub hardware: Mac,
    hardware_padding: [u8; 10],
    server_name: [u8; 64],
    boot_file: [u8; 128],
    pub(super) cookie: U32,
}

/// A message with the contents of its options.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The fixed part.
    pub header: &'a Header,
    /// Option 53.
    pub kind: MessageType,
    /// Option 50: the address that the client asks for.
    pub requested: Option<u32>,
    /// Option 51, in seconds.
    pub lease_time: Option<u32>,
    /// Option 54: the server that the message is for or from.
    pub server: Option<u32>,
    /// Option 1: the mask of the subnet.
    pub mask: Option<u32>,
    /// Option 6: the name servers, as far as they are whole addresses.
    pub name_servers: &'a [U32],
    /// Option 61: how the server identifies the client, with priority over the hardware address.
    pub identifier: Option<Identifier<'a>>,
    /// Option 80: the client accepts a lease without a second request (RFC 4039).
    pub is_rapid: bool,
    /// Whether it comes from a relay, or is for another network: option 82 (RFC 3046) or 118 (RFC
    /// 3011).
    pub speaks_for_others: bool,
    /// Whether options are hidden in the name and file fields (option 52).
    pub is_overloaded: bool,
}

/// The client identifier, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identifier<'a> {
    /// 2 to 255 bytes.
    pub data: &'a [u8],
    /// For callers that change it.
    pub place: Place,
}

/// The place of an option, in bytes from the start of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The start of its data, after the code and the length.
    pub start: usize,
    /// The end of the options in the same area. What follows them is not read.
    pub options_end: usize,
    /// The end of the area.
    pub area_end: usize,
}

impl<'a> Message<'a> {
    /// Parses the data of a datagram. `None` if it is not DHCP over Ethernet, has no message type,
    /// or is ambiguous (see above).
    #[must_use]
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let (header, options) = Header::ref_from_prefix(data).ok()?;
        let is_dhcp_over_ethernet = header.cookie.get() == COOKIE
            && header.hardware_type == ETHERNET
            && header.hardware_len == MAC_LEN;
        if !is_dhcp_over_ethernet {
            return None;
        }
        let mut found = Found::default();
        found.walk(options, size_of::<Header>())?;
        // The file field is read before the name field (RFC 2131, 4.1).
        let overload = found.overload.map_or(0, |[fields]| fields);
        if overload & OVERLOADED_FILE != 0 {
            found.walk(&header.boot_file, BOOT_FILE)?;
        }
        if overload & OVERLOADED_NAME != 0 {
            found.walk(&header.server_name, SERVER_NAME)?;
        }
        Some(Self {
            header,
            kind: found.kind.map(|[code]| code.into())?,
            requested: found.requested.map(u32::from_be_bytes),
            lease_time: found.lease_time.map(u32::from_be_bytes),
            server: found.server.map(u32::from_be_bytes),
            mask: found.mask.map(u32::from_be_bytes),
            name_servers: found.name_servers,
            identifier: found.identifier,
            is_rapid: found.is_rapid,
            speaks_for_others: found.speaks_for_others,
            is_overloaded: found.overload.is_some(),
        })
    }
}

/// The identifier of a client that is known only by its hardware address: the hardware type (1,
/// Ethernet) and the address (RFC 2132, 9.14).
#[must_use]
pub const fn identifier_of(mac: Mac) -> [u8; 7] {
    let [a, b, c, d, e, f] = mac.0;
    [1, a, b, c, d, e, f]
}

/// Values of [`Header::operation`].
pub const REQUEST: u8 = 1;
/// From a server.
pub const REPLY: u8 = 2;

/// The length of its addresses.
pub(super) const MAC_LEN: u8 = 6;
/// The hardware type of Ethernet.
pub(super) const ETHERNET: u8 = 1;

/// Asks the server to broadcast its answer (RFC 2131, figure 2).
pub const BROADCAST_FLAG: u16 = 0x8000;

/// What a message is for: the values of option 53 (RFC 2132, 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// A value that RFC 2132 does not name.
    Unknown = 0,
    /// The client looks for servers.
    Discover = 1,
    /// The server offers an address.
    Offer = 2,
    /// The client wants this address, or wants to keep its own.
    Request = 3,
    /// The client has found that the address is already in use.
    Decline = 4,
    /// The server grants the lease, or answers an [`Inform`](Self::Inform).
    Ack = 5,
    /// The server refuses.
    Nak = 6,
    /// The client releases its address.
    Release = 7,
    /// The client has an address and asks for other parameters.
    Inform = 8,
}

impl MessageType {
    /// The value as it is in the option.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<u8> for MessageType {
    fn from(code: u8) -> Self {
        match code {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            _ => Self::Unknown,
        }
    }
}

/// The options seen so far.
#[derive(Default)]
struct Found<'a> {
    kind: Option<[u8; 1]>,
    requested: Option<[u8; 4]>,
    lease_time: Option<[u8; 4]>,
    server: Option<[u8; 4]>,
    mask: Option<[u8; 4]>,
    overload: Option<[u8; 1]>,
    name_servers: &'a [U32],
    identifier: Option<Identifier<'a>>,
    is_rapid: bool,
    speaks_for_others: bool,
}

impl<'a> Found<'a> {
    /// Parses the options of one area, which begins at `start` in the message. The end option may
    /// be missing: there are clients that fill the message to its last byte.
    fn walk(&mut self, area: &'a [u8], start: usize) -> Option<()> {
        let place_of = |rest: &[u8]| start.wrapping_add(area.len()).wrapping_sub(rest.len());
        let mut identifier = None;
        let mut next = area;
        let behind = loop {
            let (code, from_data, data, rest) = match *next {
                [] => break next,
                [END, ref rest @ ..] => break rest,
                [PAD, ref rest @ ..] => {
                    next = rest;
                    continue;
                }
                [code, len, ref rest @ ..] => {
                    let (data, behind) = rest.split_at_checked(usize::from(len))?;
                    (code, rest, data, behind)
                }
                [_] => return None,
            };
            next = rest;
            match code {
                SUBNET_MASK => once(&mut self.mask, data)?,
                REQUESTED_ADDRESS => once(&mut self.requested, data)?,
                LEASE_TIME => once(&mut self.lease_time, data)?,
                OVERLOAD => once(&mut self.overload, data)?,
                MESSAGE_TYPE => once(&mut self.kind, data)?,
                SERVER_IDENTIFIER => once(&mut self.server, data)?,
                CLIENT_IDENTIFIER if self.identifier.is_none() && data.len() >= 2 => {
                    let first = identifier.replace((data, place_of(from_data)));
                    first.is_none().then_some(())?;
                }
                CLIENT_IDENTIFIER => return None,
                RAPID_COMMIT => self.is_rapid = true,
                RELAY_AGENT | SUBNET_SELECTION => self.speaks_for_others = true,
                // A long list may be split over several options (RFC 3396). The first one is enough
                // here.
                NAME_SERVERS if self.name_servers.is_empty() => {
                    let whole = data.len() & !3;
                    self.name_servers = <[U32]>::ref_from_bytes(data.get(..whole)?).ok()?;
                }
                _ => {}
            }
        };
        if let Some((data, start)) = identifier {
            let place = Place {
                start,
                options_end: place_of(behind),
                area_end: place_of(&[]),
            };
            self.identifier = Some(Identifier { data, place });
        }
        Some(())
    }
}

/// Finds the next option at or after `at`: its code and its place, which includes the code and the
/// length. `None` at the end of the options, and where one is truncated.
#[must_use]
pub fn next_option(area: &[u8], mut at: usize) -> Option<(u8, Range<usize>)> {
    loop {
        match *area.get(at..)? {
            [PAD, ..] => at = at.wrapping_add(1),
            [END, ..] => return None,
            [code, len, ref rest @ ..] if rest.len() >= usize::from(len) => {
                return Some((code, at..at.wrapping_add(2).wrapping_add(len.into())));
            }
            _ => return None,
        }
    }
}

/// Sets a value that must not be set yet, from data of exactly its length.
fn once<const N: usize>(value: &mut Option<[u8; N]>, data: &[u8]) -> Option<()> {
    let data = data.try_into().ok()?;
    value.replace(data).is_none().then_some(())
}

/// Distinguishes DHCP from BOOTP.
pub const COOKIE: u32 = 0x6382_5363;

/// Fills unused bytes.
pub const PAD: u8 = 0;
const SUBNET_MASK: u8 = 1;
const NAME_SERVERS: u8 = 6;
/// The code of [`Message::requested`].
pub const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const OVERLOAD: u8 = 52;
/// The code of [`Message::kind`].
pub const MESSAGE_TYPE: u8 = 53;
/// The code of [`Message::server`].
pub const SERVER_IDENTIFIER: u8 = 54;
/// The code of [`Message::identifier`].
pub const CLIENT_IDENTIFIER: u8 = 61;
const RAPID_COMMIT: u8 = 80;
/// The parameters that the client asks for.
pub const PARAMETER_LIST: u8 = 55;
/// The client's name.
pub const HOST_NAME: u8 = 12;
/// The client's name as it should be in DNS (RFC 4702).
pub const FULL_NAME: u8 = 81;
const RELAY_AGENT: u8 = 82;
const SUBNET_SELECTION: u8 = 118;
/// The last option; what follows it is not read.
pub const END: u8 = 255;

const OVERLOADED_FILE: u8 = 1;
const OVERLOADED_NAME: u8 = 2;

const SERVER_NAME: usize = offset_of!(Header, server_name);
const BOOT_FILE: usize = offset_of!(Header, boot_file);

const _: () = assert!(size_of::<Header>() == 240);

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);

    fn message(options: &[u8]) -> Vec<u8> {
        let mut message = vec![0; 240];
        message[..8].copy_from_slice(&[1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
        message[28..34].copy_from_slice(&MAC.0);
        message[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        message.extend_from_slice(options);
        message
    }

    #[test]
    fn a_request_is_read() {
        let bytes = message(&[
            53, 1, 3, 0, 0, 50, 4, 192, 168, 64, 2, 54, 4, 192, 168, 64, 1, 61, 2, 0, 7, 255, 9,
        ]);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(
            (message.header.operation, message.kind),
            (REQUEST, MessageType::Request)
        );
        assert_eq!(
            (message.header.xid.get(), message.header.hardware),
            (0xdead_beef, MAC)
        );
        assert_eq!(message.requested, Some(0xc0a8_4002));
        assert_eq!(message.server, Some(0xc0a8_4001));
        assert_eq!((message.lease_time, message.mask), (None, None));
    }

    #[test]
    fn what_an_ack_grants_is_read() {
        #[rustfmt::skip]
        let bytes = message(&[
            53, 1, 5, 51, 4, 0, 0, 2, 88, 1, 4, 255, 255, 255, 0,
            6, 9, 192, 168, 64, 1, 8, 8, 8, 8, 99, 6, 4, 1, 1, 1, 1,
        ]);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(
            (message.kind, message.lease_time),
            (MessageType::Ack, Some(600))
        );
        assert_eq!(message.mask, Some(0xffff_ff00));
        assert_eq!(
            message.name_servers,
            [U32::new(0xc0a8_4001), U32::new(0x0808_0808)]
        );
    }

    #[test]
    fn options_in_the_file_and_name_fields_are_read_when_announced() {
        let mut bytes = message(&[53, 1, 5, 52, 1, 3, 255]);
        bytes[108..115].copy_from_slice(&[51, 4, 0, 0, 0, 60, 255]);
        bytes[44..51].copy_from_slice(&[54, 4, 192, 168, 64, 1, 255]);
        let parsed = Message::parse(&bytes).unwrap();
        assert!(parsed.is_overloaded);
        assert_eq!(
            (parsed.lease_time, parsed.server),
            (Some(60), Some(0xc0a8_4001))
        );

        bytes[242] = 5;
        bytes[245] = 0;
        let parsed = Message::parse(&bytes).unwrap();
        assert_eq!((parsed.lease_time, parsed.server), (None, None));
    }

    #[test]
    fn the_client_identifier_is_found_with_the_room_behind_it() {
        let mut bytes = message(&[53, 1, 1, 61, 3, 0, b'v', b'm', 0, 12, 1, b'h', 255, 0, 0]);
        let identifier = Message::parse(&bytes).unwrap().identifier.unwrap();
        assert_eq!(identifier.data, [0, b'v', b'm']);
        let place = Place {
            start: 245,
            options_end: 253,
            area_end: 255,
        };
        assert_eq!(identifier.place, place);

        bytes.truncate(252);
        let identifier = Message::parse(&bytes).unwrap().identifier.unwrap();
        let place = Place {
            options_end: 252,
            area_end: 252,
            ..place
        };
        assert_eq!(identifier.place, place);
    }

    #[test]
    fn a_client_identifier_in_another_field_is_found_there() {
        for (announced, field, end) in [(1, 108, 236), (2, 44, 108)] {
            let mut bytes = message(&[53, 1, 5, 52, 1, announced, 255]);
            bytes[field..field + 6].copy_from_slice(&[0, 61, 2, 7, 8, 255]);
            let identifier = Message::parse(&bytes).unwrap().identifier.unwrap();
            assert_eq!(identifier.data, [7, 8]);
            let place = Place {
                start: field + 3,
                options_end: field + 6,
                area_end: end,
            };
            assert_eq!(identifier.place, place);
        }
    }

    #[test]
    fn what_asks_for_others_or_in_haste_is_seen() {
        let read = |options: &[u8]| {
            let bytes = message(options);
            let message = Message::parse(&bytes).unwrap();
            (message.speaks_for_others, message.is_rapid)
        };
        assert_eq!(read(&[53, 1, 1]), (false, false));
        assert_eq!(read(&[53, 1, 1, 80, 0]), (false, true));
        assert_eq!(read(&[53, 1, 1, 82, 3, 1, 1, b'a']), (true, false));
        assert_eq!(read(&[53, 1, 1, 118, 4, 10, 0, 0, 0]), (true, false));
    }

    #[test]
    fn what_is_ambiguous_or_cut_is_refused() {
        for options in [
            &[53, 1, 3, 53, 1, 7][..],                 // two types
            &[53, 1, 3, 54, 4, 1, 1, 1, 1, 54, 0][..], // two servers
            &[53, 2, 3, 3],                            // a type of two bytes
            &[53, 1, 3, 50, 3, 1, 1, 1],               // an address of three
            &[53, 1, 3, 12, 5, b'a'],                  // longer than the message
            &[53, 1, 3, 12],                           // no length
            &[],                                       // no type
            &[255, 53, 1, 3],                          // a type behind the end
            &[53, 1, 3, 61, 0],                        // an identifier of nothing
            &[53, 1, 3, 61, 1, 1],                     // and of one byte
            &[53, 1, 3, 61, 2, 1, 1, 61, 2, 1, 1],     // two identifiers, or one in two parts
        ] {
            assert!(Message::parse(&message(options)).is_none(), "{options:?}");
        }
    }

    #[test]
    fn bootp_and_other_hardware_are_refused() {
        let good = message(&[53, 1, 1, 255]);
        assert!(Message::parse(&good).is_some());
        for at in [1, 2, 236] {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            assert!(Message::parse(&bad).is_none(), "byte {at}");
        }
        assert!(Message::parse(&good[..239]).is_none());
    }

    #[test]
    fn every_cut_of_a_message_has_an_outcome() {
        let whole = message(&[53, 1, 3, 50, 4, 192, 168, 64, 2, 6, 4, 8, 8, 8, 8, 255]);
        for len in 0..whole.len() {
            let _ = Message::parse(&whole[..len]);
        }
    }
}
