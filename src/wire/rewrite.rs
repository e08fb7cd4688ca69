//! Changes frames: the receiver of a frame, the meaningless parts of an ARP message, and the data
//! of a UDP datagram. Lengths and checksums remain as right, or as wrong, as they were.
//!
//! Checksums are not recomputed but updated by what has changed (RFC 1624): a datagram that was
//! damaged on its way must not arrive with a correct checksum.
//!
//! ```text
//!   Change::begin      sums the datagram as it is
//!   (the caller writes into slot[data_start()..], and says by how much it grew)
//!   Change::finish     sums it again, and mends the headers
//! ```

use std::mem::offset_of;

use zerocopy::FromBytes;
use zerocopy::network_endian::U16;

use super::Mac;
use super::arp::{self, Arp};
use super::checksum::{add, sum};
use super::ethernet::Ethernet;
use super::ipv4::{self, Ipv4};
use super::udp::Udp;

/// Sends a frame to another station. Does nothing if it is not a frame.
pub fn set_destination(frame: &mut [u8], mac: Mac) {
    if let Ok((ethernet, _)) = Ethernet::mut_from_prefix(frame) {
        ethernet.destination = mac;
    }
}

/// Zeroes the meaningless parts of an ARP frame: what follows the message and, in a request, the
/// target's hardware address (RFC 826). Does nothing if it is not an ARP frame.
pub fn clean_arp(frame: &mut [u8]) {
    let Ok((ethernet, carried)) = Ethernet::mut_from_prefix(frame) else {
        return;
    };
    let is_for_all = ethernet.destination == Mac::BROADCAST;
    let Ok((arp, padding)) = Arp::mut_from_prefix(carried) else {
        return;
    };
    if is_for_all || arp.operation.get() == arp::REQUEST {
        arp.target_mac = Mac([0; 6]);
    }
    padding.fill(0);
}

/// A datagram that is being changed.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    udp_start: usize,
    end: usize,
    sum: u16,
}

impl Change {
    /// Begins to change the datagram in an Ethernet frame; `None` if there is none.
    #[must_use]
    pub fn begin(frame: &[u8]) -> Option<Self> {
        let (_, carried) = Ethernet::split(frame)?;
        let packet = Ipv4::parse(carried)?;
        Udp::split(packet.payload)?;
        let end = frame.len().checked_sub(packet.trailer_len)?;
        Some(Self {
            udp_start: end.checked_sub(packet.payload.len())?,
            end,
            sum: sum(packet.payload),
        })
    }

    /// Where the data of the datagram begins in the frame.
    #[must_use]
    pub const fn data_start(&self) -> usize {
        self.udp_start.wrapping_add(size_of::<Udp>())
    }

    /// Where the datagram ends in the frame.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.end
    }

    /// Corrects lengths and checksums after the datagram has been changed and has become `grown`
    /// bytes longer. Returns the new length of the frame, which has no padding any more. `None` if
    /// that does not fit into the slot, or a length exceeds its field; then the frame is unusable.
    #[must_use]
    pub fn finish(self, slot: &mut [u8], grown: usize) -> Option<usize> {
        let end = self.end.checked_add(grown)?;
        let frame = slot.get_mut(..end)?;
        let (old, new) = grow(frame, IP_LEN, grown)?;
        update(frame, IP_CHECKSUM, old, new)?;

        let (old, new) = grow(frame, self.udp_start.checked_add(UDP_LEN)?, grown)?;
        let checksum = self.udp_start.checked_add(UDP_CHECKSUM)?;
        if number(frame, checksum)?.get() != 0 {
            // The length counts twice: in the header, and in the pseudo header (RFC 768).
            let before = add(self.sum, old);
            let after = add(sum(frame.get(self.udp_start..)?), new);
            update(frame, checksum, before, after)?;
            // Zero would mean that there is no checksum.
            let checksum = number(frame, checksum)?;
            if checksum.get() == 0 {
                checksum.set(u16::MAX);
            }
        }
        Some(end)
    }
}

/// Adds to a length. Returns the old and the new one.
fn grow(frame: &mut [u8], at: usize, grown: usize) -> Option<(u16, u16)> {
    let len = number(frame, at)?;
    let old = len.get();
    let new = old.checked_add(u16::try_from(grown).ok()?)?;
    len.set(new);
    Some((old, new))
}

/// Updates a checksum for words whose sum has changed (RFC 1624, equation 3).
fn update(frame: &mut [u8], at: usize, before: u16, after: u16) -> Option<()> {
    let checksum = number(frame, at)?;
    checksum.set(!add(add(!checksum.get(), !before), after));
    Some(())
}

fn number(frame: &mut [u8], at: usize) -> Option<&mut U16> {
    U16::mut_from_prefix(frame.get_mut(at..)?)
        .ok()
        .map(|(number, _)| number)
}

const IP_LEN: usize = Ethernet::LEN + 2;
const IP_CHECKSUM: usize = Ethernet::LEN + offset_of!(ipv4::Header, checksum);
const UDP_LEN: usize = offset_of!(Udp, len);
const UDP_CHECKSUM: usize = offset_of!(Udp, checksum);

#[cfg(test)]
mod tests {
    use super::*;

    /// From 10.0.0.2 to 10.0.0.1, with correct checksums.
    fn datagram(data: &[u8]) -> Vec<u8> {
        let len = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
        let mut frame = [&[0; 12][..], &[8, 0, 0x45, 0], &len(28 + data.len())].concat();
        frame.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
        frame.extend([0, 68, 0, 67]);
        frame.extend(len(8 + data.len()));
        frame.extend([0, 0]);
        frame.extend(data);
        let (ip, udp) = sums(&frame);
        frame[24..26].copy_from_slice(&(!ip).to_be_bytes());
        frame[40..42].copy_from_slice(&(!udp).to_be_bytes());
        frame
    }

    /// The sums over the IP header, and over the datagram with its pseudo header: all ones if the
    /// checksums are correct.
    fn sums(frame: &[u8]) -> (u16, u16) {
        let pseudo = [&frame[26..34], &[0, 17], &frame[38..40]].concat();
        (sum(&frame[14..34]), add(sum(&pseudo), sum(&frame[34..])))
    }

    #[test]
    fn checksums_stay_right_whatever_is_written() {
        for (data, grown, byte) in [
            (&[1, 2, 3, 4][..], 0, 0xff),
            (&[1, 2, 3, 4], 1, 9),
            (&[1, 2, 3], 4, 0),
            (&[0; 300], 5, 0xff),
            (&[0xff; 301], 255, 0xff),
        ] {
            let mut slot = datagram(data);
            assert_eq!(sums(&slot), (0xffff, 0xffff));
            let change = Change::begin(&slot).unwrap();
            assert_eq!((change.data_start(), change.end()), (42, 42 + data.len()));
            slot.resize(42 + data.len() + grown, byte);
            slot[43] = byte;
            let len = change.finish(&mut slot, grown).unwrap();
            assert_eq!(len, slot.len());
            assert_eq!(sums(&slot), (0xffff, 0xffff), "{data:?} {grown}");
            let (ip_len, udp_len) = (u16::from_be_bytes([slot[16], slot[17]]), &slot[38..40]);
            assert_eq!(usize::from(ip_len), len - 14);
            assert_eq!(udp_len, (ip_len - 20).to_be_bytes());
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong_by_the_same() {
        let mut slot = datagram(&[1, 2, 3, 4]);
        slot[45] ^= 1;
        slot[30] ^= 1;
        let wrong = sums(&slot);
        let change = Change::begin(&slot).unwrap();
        slot.extend([7, 7, 7]);
        slot[42] = 0xee;
        let _ = change.finish(&mut slot, 3).unwrap();
        assert_ne!(wrong, (0xffff, 0xffff));
        assert_eq!(sums(&slot), wrong);
    }

    #[test]
    fn no_checksum_stays_none_and_none_is_made_by_accident() {
        let mut slot = datagram(&[1, 2]);
        slot[40..42].fill(0);
        let change = Change::begin(&slot).unwrap();
        slot[42] = 9;
        assert_eq!(change.finish(&mut slot, 0), Some(44));
        assert_eq!(slot[40..42], [0, 0]);

        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let mut slot = datagram(&[1, 2]);
                let change = Change::begin(&slot).unwrap();
                slot[42..44].copy_from_slice(&[first, second]);
                let _ = change.finish(&mut slot, 0).unwrap();
                assert_ne!(slot[40..42], [0, 0]);
                assert_eq!(sums(&slot), (0xffff, 0xffff));
            }
        }
    }

    #[test]
    fn padding_is_left_out_and_what_has_no_room_refused() {
        let mut slot = datagram(&[1, 2]);
        slot.resize(60, 0);
        let change = Change::begin(&slot).unwrap();
        assert_eq!(change.finish(&mut slot.clone(), 2), Some(46));
        assert_eq!(change.finish(&mut slot, 17), None);
        let mut slot = datagram(&[0; 65_507]);
        let change = Change::begin(&slot).unwrap();
        slot.push(0);
        assert_eq!(change.finish(&mut slot, 1), None);
    }

    #[test]
    fn an_arp_message_keeps_what_it_is_about_alone() {
        let mut frame: Vec<u8> = (0..60).collect();
        for (operation, is_request) in [(1, true), (2, false), (3, false)] {
            frame[20..22].copy_from_slice(&[0, operation]);
            let mut cleaned = frame.clone();
            clean_arp(&mut cleaned);
            let mut expected = frame.clone();
            expected[42..].fill(0);
            if is_request {
                expected[32..38].fill(0);
            }
            assert_eq!(cleaned, expected, "{operation}");

            // Broadcast.
            let mut cleaned = frame.clone();
            cleaned[..6].fill(0xff);
            clean_arp(&mut cleaned);
            expected[..6].fill(0xff);
            expected[32..38].fill(0);
            assert_eq!(cleaned, expected, "{operation}");
        }
        // Too short for one.
        let mut short = frame[..41].to_vec();
        clean_arp(&mut short);
        assert_eq!(short, frame[..41]);
    }

    #[test]
    fn a_frame_gets_another_destination() {
        let mut frame = [7; 14];
        set_destination(&mut frame, Mac([1, 2, 3, 4, 5, 6]));
        assert_eq!(frame, [1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7]);
        set_destination(&mut frame[..13], Mac([0; 6]));
        assert_eq!(frame[0], 1);
    }

    #[test]
    fn every_cut_of_a_frame_is_refused() {
        let frame = datagram(&[1, 2]);
        for len in 0..frame.len() {
            assert!(Change::begin(&frame[..len]).is_none(), "{len}");
        }
    }
}
