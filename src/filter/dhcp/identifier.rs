//! The client identifier (option 61): the server sees the VM's MAC address, whatever the VM
//! sends, and the VM sees its own again.
//!
//! A server takes the sender of another's identifier for that other, and gives it the address
//! (seen with dnsmasq 2.90). So [`identifier_of`](crate::wire::dhcp::identifier_of) replaces
//! it on the way out. A server that returns the identifier (RFC 6842) returns that one, and
//! clients like systemd-networkd discard an answer that is not to their own; so the VM's is
//! put back on the way in. What sends none is known by its hardware address already.
//!
//! ```text
//!   shorter:  61 18 a b c d e f ...          ->  61 7 1 M M M M M M pad pad ...
//!   longer:   61 7 1 M M M M M M x y end - - ->  61 9 a b c d e f g h i x y end
//!             into the room behind the end option first, and else behind the message
//! ```

use crate::filter::verdict::DropReason;
use crate::wire::dhcp::Place;
use crate::wire::rewrite::Change;

/// Replaces the data of an option in the message that the frame `slot[..len]` carries, of
/// `old` bytes, by `new`, and returns the frame's length after that: `len_max` at most.
pub(super) fn replace(
    slot: &mut [u8],
    len: usize,
    len_max: usize,
    (place, old): (Place, usize),
    new: &[u8],
) -> Result<usize, DropReason> {
    let change = slot
        .get(..len)
        .and_then(Change::begin)
        .ok_or(DropReason::DhcpMalformed)?;
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
    let options = slot
        .get_mut(start - 1..options_end + longer)
        .ok_or(DropReason::DhcpOversize)?;
    write(options, old, new).ok_or(DropReason::DhcpOversize)?;
    change.finish(slot, grown).ok_or(DropReason::DhcpOversize)
}

/// Writes length and data, after moving what follows away; pads what is left over. The bytes
/// begin at the option's length and end where the moved ones will end.
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
