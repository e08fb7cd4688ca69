//! Checks the host names that a VM sends: option 12, and option 81 (RFC 4702).
//!
//! A DHCP server turns them into DNS names (dnsmasq does so by default), and Apple's bootpd writes
//! them into a file, one per line. A VM called `wpad` could tell all others which proxy to use, and
//! one with the name of a neighbour would be taken for that neighbour. So a name passes only if it
//! is a single plain label that no other VM has. Any other is overwritten by pad options, because
//! no client needs a name to get an address.

use std::ops::Range;

use arrayvec::ArrayString;

use crate::batch::Slot;
use crate::filter::verdict::DropReason;
use crate::filter::{Claims, Names};
use crate::wire::dhcp::{self, FULL_NAME, HOST_NAME, next_option};
use crate::wire::rewrite::Change;

/// Which names may pass.
#[derive(Debug)]
pub(super) struct NameRule {
    /// The first label of the host's own name; `None` if no name passes.
    host: Option<Box<str>>,
}

impl NameRule {
    pub(super) fn new(names: Names<'_>) -> Self {
        let host = match names {
            Names::Strip => None,
            Names::Pass { host } => host.split('.').next(),
        };
        Self {
            host: host.map(|host| host.to_ascii_lowercase().into()),
        }
    }

    /// Removes the names that may not pass from the message that a frame carries.
    pub(super) fn apply(&self, slot: &mut Slot<'_>, claims: &dyn Claims) -> Result<(), DropReason> {
        let change = Change::begin(slot.frame()).ok_or(DropReason::DhcpMalformed)?;
        let start = change.data_start() + size_of::<dhcp::Header>();
        let (bytes, _) = slot.whole();
        let area = bytes
            .get_mut(start..change.end())
            .ok_or(DropReason::DhcpMalformed)?;
        if self.clean(area, claims) {
            // Nothing has grown, so the length is the same.
            let len = change.finish(bytes, 0).ok_or(DropReason::DhcpMalformed)?;
            slot.set_len(len);
        }
        Ok(())
    }

    /// Returns whether it changed anything.
    fn clean(&self, area: &mut [u8], claims: &dyn Claims) -> bool {
        let full = self.passing(area, FULL_NAME, |data| {
            let (flags, name) = split_full_name(data)?;
            label_of(flags, name)
        });
        let host = self.passing(area, HOST_NAME, Some);
        // A VM has one name.
        let host =
            host.filter(|host| !matches!(&full, Some(Some(full)) if Some(full) != host.as_ref()));
        let name = full.iter().chain(&host).flatten().next();
        let is_claimed = name.is_none_or(|name| claims.claim_name(name));
        let mut is_changed = false;
        let mut at = 0;
        while let Some((code, place)) = next_option(area, at) {
            at = place.end;
            let passes = match code {
                FULL_NAME => full.as_ref(),
                HOST_NAME => host.as_ref(),
                _ => continue,
            };
            let is_kept = passes.is_some_and(|name| is_claimed || name.is_none());
            let option = area.get_mut(place).unwrap_or_default();
            match option {
                [FULL_NAME, _, flags, ..] if is_kept => {
                    is_changed |= *flags & SERVER_UPDATES != 0;
                    *flags &= !SERVER_UPDATES;
                }
                _ if is_kept => {}
                _ => {
                    option.fill(dhcp::PAD);
                    is_changed = true;
                }
            }
        }
        is_changed
    }

    /// The name in an option, in lower case, if it may pass unless another VM has it; `Some(None)`
    /// for an empty name.
    fn passing<'a>(
        &self,
        area: &'a [u8],
        wanted: u8,
        read: impl Fn(&'a [u8]) -> Option<&'a [u8]>,
    ) -> Option<Option<Name>> {
        let mut options = options(area).filter(|(code, _)| *code == wanted);
        let (_, place) = options.next()?;
        let is_single = options.next().is_none();
        let name = read(area.get(place)?.get(2..)?).filter(|_| is_single)?;
        if name.is_empty() && wanted == FULL_NAME {
            return self.host.is_some().then_some(None);
        }
        let name = label(name)?;
        let host = self.host.as_deref()?;
        let is_special = SPECIAL.contains(&name.as_str()) || name.as_str() == host;
        (!is_special).then_some(Some(name))
    }
}

/// A label, of at most 63 bytes (RFC 1035).
type Name = ArrayString<LABEL_MAX>;

/// A plain label (RFC 1123, 2.1), in lower case.
fn label(name: &[u8]) -> Option<Name> {
    let is_plain = name
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let is_hyphenated = name.first() == Some(&b'-') || name.last() == Some(&b'-');
    if name.is_empty() || !is_plain || is_hyphenated {
        return None;
    }
    let mut lower = Name::from(str::from_utf8(name).ok()?).ok()?;
    lower.make_ascii_lowercase();
    Some(lower)
}

/// The flags and the name in option 81. The two bytes between them are no longer used (RFC 4702,
/// 2.2).
fn split_full_name(data: &[u8]) -> Option<(u8, &[u8])> {
    match data {
        [flags, _, _, name @ ..] => Some((*flags, name)),
        _ => None,
    }
}

/// The only label of a name in the encoding that the flags give; empty if the name is.
fn label_of(flags: u8, name: &[u8]) -> Option<&[u8]> {
    if flags & IN_DNS_ENCODING == 0 {
        return Some(name);
    }
    match name {
        [] | [0] => Some(&[]),
        [len, rest @ ..] => match rest.split_at_checked(usize::from(*len))? {
            (label, [] | [0]) => Some(label),
            _ => None,
        },
    }
}

fn options(area: &[u8]) -> impl Iterator<Item = (u8, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (code, place) = next_option(area, at)?;
        at = place.end;
        Some((code, place))
    })
}

/// Names that programs look up by themselves: for a proxy's configuration, for an IPv6 tunnel, for
/// the machine itself. Windows' DNS server blocks the first two for the same reason.
const SPECIAL: [&str; 3] = ["wpad", "isatap", "localhost"];

/// The bits of option 81 (RFC 4702, 2.1): S asks the server to update DNS, and E gives the name's
/// encoding.
const SERVER_UPDATES: u8 = 1;
const IN_DNS_ENCODING: u8 = 4;

const LABEL_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::NoClaims;

    /// The options after the filter, if others have the name `taken`.
    fn cleaned(names: Names<'_>, options: &[u8]) -> Vec<u8> {
        let mut area = options.to_vec();
        let is_changed = NameRule::new(names).clean(&mut area, &NoClaims);
        assert_eq!(is_changed, area != options);
        area
    }

    fn passes(options: &[u8]) -> bool {
        let area = cleaned(Names::default(), options);
        assert!(area == options || area.iter().all(|byte| *byte == 0));
        area == options
    }

    fn option(code: u8, data: &[u8]) -> Vec<u8> {
        [&[code, u8::try_from(data.len()).unwrap()], data].concat()
    }

    #[test]
    fn one_plain_label_passes_and_nothing_else() {
        for name in ["vm", "DESKTOP-1", "a", "1", &"x".repeat(63), "wpad2"] {
            assert!(passes(&option(12, name.as_bytes())), "{name}");
            assert!(passes(&option(81, &[b"\0\0\0", name.as_bytes()].concat())));
        }
        for name in [
            "",
            "-a",
            "a-",
            "a.b",
            "vm.",
            "a_b",
            "a b",
            "a\n",
            "vm\0",
            "\u{e9}",
            "wpad",
            "WPAD",
            "Isatap",
            "localhost",
            &"x".repeat(64),
        ] {
            assert!(!passes(&option(12, name.as_bytes())), "{name:?}");
            let full = option(81, &[b"\0\0\0", name.as_bytes()].concat());
            assert_eq!(passes(&full), name.is_empty(), "{name:?}");
        }
    }

    #[test]
    fn a_full_name_is_read_in_both_encodings() {
        let full = |name: &[u8]| passes(&option(81, &[b"\x04\0\0", name].concat()));
        for name in [&b"\x02vm"[..], b"\x02vm\0", b"", b"\0"] {
            assert!(full(name), "{name:?}");
        }
        for name in [
            &b"\x02vm\x03lan\0"[..],
            b"\x04wpad\0",
            b"\x04wpad",
            b"\x03vm",
            b"\x02vm\0\0",
            b"vm",
            b"\xc0\x0c",
        ] {
            assert!(!full(name), "{name:?}");
        }
        assert!(!passes(&option(81, b"\0\0")));
    }

    #[test]
    fn the_server_is_not_asked_to_update_dns() {
        let after = cleaned(Names::default(), &option(81, b"\x05\0\0\x02vm"));
        assert_eq!(after, option(81, b"\x04\0\0\x02vm"));
    }

    #[test]
    fn the_hosts_own_name_is_its_own() {
        let names = Names::Pass { host: "Mac.local" };
        assert_eq!(cleaned(names, &option(12, b"mAC")), [0; 5]);
        assert_eq!(cleaned(names, &option(12, b"mac2")), option(12, b"mac2"));
    }

    #[test]
    fn no_name_passes_where_none_may() {
        let options = [
            option(12, b"vm"),
            option(55, &[12, 81]),
            option(81, b"\0\0\0"),
            vec![255, 12, 1, b'x'],
        ]
        .concat();
        let expected = [
            &[0; 4][..],
            &option(55, &[12, 81]),
            &[0; 5],
            &[255, 12, 1, b'x'],
        ];
        assert_eq!(cleaned(Names::Strip, &options), expected.concat());
    }

    #[test]
    fn a_vm_has_one_name() {
        let two = |first: &[u8], full: &[u8]| {
            let full = option(81, &[b"\0\0\0", full].concat());
            let options = [option(12, first), full.clone()].concat();
            let after = cleaned(Names::default(), &options);
            (after[..2] != [0, 0], after.ends_with(&full))
        };
        assert_eq!(two(b"vm", b"VM"), (true, true));
        assert_eq!(two(b"vm", b""), (true, true));
        assert_eq!(two(b"vm", b"other"), (false, true));
        assert_eq!(two(b"vm", b"a.b"), (true, false));
        // Servers join the parts of an option (RFC 3396).
        let parts = [option(12, b"wp"), option(12, b"ad")].concat();
        assert!(!passes(&parts));
    }
}
