//! Rewrites the client identifier (option 61): the server sees the VM's MAC address, whatever the
//! VM sends, and the VM sees its own identifier again.
//!
//! A server takes a client for the one whose identifier it sends, and gives it that one's address
//! (dnsmasq does). So [`identifier_of`](crate::wire::dhcp::identifier_of) replaces it on the way
//! out. A server that returns the identifier (RFC 6842) returns the new one. Clients such as
//! systemd-networkd discard an answer with an identifier that is not theirs, so the VM's own is put
//! back on the way in. A client that sends none is already known by its hardware address.
//!
//! ```text
//!   shorter:  61 18 a b c d e f ...          ->  61 7 1 M M M M M M pad pad ...
//!   longer:   61 7 1 M M M M M M x y end - - ->  61 9 a b c d e f g h i x y end
//!             into the room behind the end option first, and else behind the message
//! ```

use crate::batch::Slot;
use crate::filter::verdict::DropReason;
use crate::wire::dhcp::Place;
use crate::wire::rewrite::Change;

/// Replaces the data of an option, `old` bytes long, in the message that the frame carries. The
/// frame may grow to `len_max` bytes.
pub(super) fn replace(
    slot: &mut Slot<'_>,
    len_max: usize,
    (place, old): (Place, usize),
    new: &[u8],
) -> Result<(), DropReason> {
    let change = Change::begin(slot.frame()).ok_or(DropReason::DhcpMalformed)?;
    let message = change.end() - change.data_start();
    let longer = new.len().saturating_sub(old);
    // The message grows by what does not fit behind the end option.
    let grown = longer.saturating_sub(place.area_end - place.options_end);
    // Only the options at the end of the message can grow with it.
    if grown > 0 && (place.area_end != message || change.end() + grown > len_max) {
        return Err(DropReason::DhcpOversize);
    }
    let start = change.data_start() + place.start;
    let options_end = change.data_start() + place.options_end;
    let (bytes, _) = slot.whole();
    let options = bytes
        .get_mut(start - 1..options_end + longer)
        .ok_or(DropReason::DhcpOversize)?;
    write(options, old, new).ok_or(DropReason::DhcpOversize)?;
    let len = change.finish(bytes, grown);
    slot.set_len(len.ok_or(DropReason::DhcpOversize)?);
    Ok(())
}

/// Writes the length and the data, after moving what follows, and pads the rest. The slice begins
/// at the option's length and ends where the moved bytes will end.
fn write(options: &mut [u8], old: usize, new: &[u8]) -> Option<()> {
    let (len, data) = options.split_first_mut()?;
    *len = u8::try_from(new.len()).ok()?;
    if let Some(longer) = new.len().checked_sub(old) {
        let kept = data.len().checked_sub(longer)?;
        data.copy_within(old..kept, new.len());
    }
    let (target, rest) = data.split_at_mut_checked(new.len())?;
    target.copy_from_slice(new);
    rest.get_mut(..old.saturating_sub(new.len()))?.fill(PAD);
    Some(())
}

const PAD: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::validate;
    use crate::wire::dhcp::Message;

    /// A DHCP request with these options, in a frame with room behind it.
    fn frame(options: &[u8]) -> Vec<u8> {
        let len = |header: usize| {
            let len = u16::try_from(header + 240 + options.len()).unwrap();
            len.to_be_bytes()
        };
        let mut frame = [&[0; 12][..], &[8, 0, 0x45, 0], &len(28)].concat();
        frame.extend([0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
        frame.extend([&[0, 68, 0, 67][..], &len(8), &[0, 0]].concat());
        frame.extend([1, 1, 6, 0]);
        frame.extend([0; 232]);
        frame.extend([99, 130, 83, 99]);
        frame.extend(options);
        frame
    }

    fn replaced(frame: &[u8], room: usize, new: &[u8]) -> Result<Vec<u8>, DropReason> {
        let message = validate::dhcp(frame).unwrap().message;
        let identifier = message.identifier.unwrap();
        let option = (identifier.place, identifier.data.len());
        let mut slot = frame.to_vec();
        slot.resize(frame.len() + room, 0xee);
        let mut len = u32::try_from(frame.len()).unwrap();
        replace(&mut Slot::new(&mut slot, &mut len), 2000, option, new)?;
        let len = len as usize;
        assert!(
            slot[len.max(frame.len())..]
                .iter()
                .all(|byte| *byte == 0xee),
            "it wrote behind the frame"
        );
        slot.truncate(len);
        assert_eq!(identifier_of(&slot), new);
        Ok(slot)
    }

    fn identifier_of(frame: &[u8]) -> &[u8] {
        let message = validate::dhcp(frame).unwrap().message;
        message.identifier.unwrap().data
    }

    #[test]
    fn a_longer_identifier_leaves_pad_options() {
        let before = frame(&[53, 1, 1, 61, 5, 9, 9, 9, 9, 9, 12, 1, b'h', 255]);
        let after = frame(&[53, 1, 1, 61, 2, 7, 8, 0, 0, 0, 12, 1, b'h', 255]);
        assert_eq!(replaced(&before, 0, &[7, 8]), Ok(after));
    }

    #[test]
    fn a_shorter_identifier_grows_into_what_is_behind_the_end() {
        let before = frame(&[53, 1, 1, 61, 2, 9, 9, 12, 1, b'h', 255, 1, 2, 3]);
        let after = frame(&[53, 1, 1, 61, 5, 1, 2, 3, 4, 5, 12, 1, b'h', 255]);
        assert_eq!(replaced(&before, 0, &[1, 2, 3, 4, 5]), Ok(after));
    }

    #[test]
    fn the_message_grows_by_what_is_missing() {
        for (options, grown) in [
            (&[53, 1, 1, 61, 2, 9, 9, 12, 1, b'h', 255, 0][..], 2),
            (&[53, 1, 1, 61, 2, 9, 9, 12, 1, b'h', 255], 3),
            (&[53, 1, 1, 61, 2, 9, 9, 12, 1, b'h'], 3),
            (&[53, 1, 1, 12, 1, b'h', 61, 2, 9, 9], 3),
        ] {
            let before = frame(options);
            let new = [1, 2, 3, 4, 5];
            let after = replaced(&before, grown, &new).unwrap();
            assert_eq!(after.len(), before.len() + grown, "{options:?}");
            let refused = replaced(&before, grown - 1, &new);
            assert_eq!(refused, Err(DropReason::DhcpOversize));
        }
    }

    #[test]
    fn a_frame_grows_to_the_longest_and_no_further() {
        let before = frame(&[53, 1, 1, 61, 2, 9, 9, 255]);
        let message = validate::dhcp(&before).unwrap().message;
        let option = (message.identifier.unwrap().place, 2);
        for (len_max, outcome) in [
            (before.len() + 5, Ok(before.len() + 5)),
            (before.len() + 4, Err(DropReason::DhcpOversize)),
        ] {
            let mut slot = before.clone();
            slot.resize(2000, 0);
            let mut len = u32::try_from(before.len()).unwrap();
            let mut slot = Slot::new(&mut slot, &mut len);
            let replaced = replace(&mut slot, len_max, option, &[1; 7]);
            assert_eq!(replaced.map(|()| slot.frame().len()), outcome);
        }
    }

    #[test]
    fn within_another_field_there_is_the_room_of_the_field() {
        let mut before = frame(&[53, 1, 5, 52, 1, 2, 255]);
        // The name field has 64 bytes, of which these take 5.
        before[86..91].copy_from_slice(&[61, 2, 9, 9, 255]);
        for len in [2, 3, 7, 61] {
            let after = replaced(&before, 300, &vec![7; len]).unwrap();
            assert_eq!(after.len(), before.len());
            assert_eq!(after[88 + len], 255);
        }
        let refused = replaced(&before, 300, &[7; 62]);
        assert_eq!(refused, Err(DropReason::DhcpOversize));
    }

    #[test]
    fn any_length_is_replaced_by_any_other_and_back() {
        for own in [2, 3, 6, 7, 8, 19, 254, 255] {
            let mut options = vec![53, 1, 1, 61, own];
            options.extend((0..own).collect::<Vec<u8>>());
            options.extend([50, 4, 10, 0, 0, 9, 255]);
            let before = frame(&options);
            let identifier = identifier_of(&before).to_vec();
            let there = replaced(&before, 5, &[1, 2, 2, 2, 2, 2, 2]).unwrap();
            let back = replaced(&there, 0, &identifier);
            let back = back
                .or_else(|_| replaced(&there, 255, &identifier))
                .unwrap();
            for frame in [&there, &back] {
                let message = validate::dhcp(frame).unwrap().message;
                assert_eq!(
                    (message.kind.code(), message.requested),
                    (1, Some(0x0a00_0009))
                );
            }
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let whole = frame(&[53, 1, 1, 61, 2, 9, 9, 255]);
        let message = validate::dhcp(&whole).unwrap().message;
        let option = (message.identifier.unwrap().place, 2);
        assert!(Message::parse(&whole[42..]).is_some());
        for mut len in [0, 13, 41] {
            let mut frame = whole.clone();
            let outcome = replace(&mut Slot::new(&mut frame, &mut len), 2000, option, &[1; 7]);
            assert_eq!(outcome, Err(DropReason::DhcpMalformed), "{len}");
        }
    }
}
