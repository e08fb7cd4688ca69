//! Where the VM may send to, as one table: each address costs one search, however many rules there
//! are.
//!
//! Of two prefixes, one contains the other or they are disjoint. So one sweep over them, in the
//! order of their first address and with a stack of the enclosing ones, cuts all addresses into
//! ranges with one verdict each:
//!
//! ```text
//!   0.0.0.0/0 pass            |----------------------------------------------|
//!   10.0.0.0/8 private             |------------------|
//!   10.1.0.0/16 allowed                 |------|
//!   ranges                    | pass | private | pass | private | pass ------|
//! ```
//!
//! The first byte of an address selects its slice of the ranges in a directory of 256 entries (1.5
//! KiB, which stays in the first-level cache). Most of the internet is a single range there; the
//! rest takes a short binary search.

use ipnet::Ipv4Net;

use super::verdict::DropReason;

/// What the table says about a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Destination {
    Pass,
    Blocked,
    Private,
    LinkLocal,
    Metadata,
    Local,
    Special,
    Multicast,
    Reserved,
    Broadcast,
    HostOnly,
    Isolation,
    /// The address alone does not decide.
    NeedsMore,
    /// A rule allows it, for callers that need to know that a rule does.
    Allowed,
}

impl Destination {
    /// Why a frame to it is dropped; `None` if it passes.
    #[inline]
    pub(super) const fn refusal(self) -> Option<DropReason> {
        Some(match self {
            Self::Pass | Self::Allowed => return None,
            Self::Blocked => DropReason::DestinationBlocked,
            Self::Private => DropReason::DestinationPrivate,
            Self::LinkLocal => DropReason::DestinationLinkLocal,
            Self::Metadata => DropReason::DestinationMetadata,
            Self::Local => DropReason::DestinationLocal,
            Self::Special => DropReason::DestinationSpecial,
            Self::Multicast => DropReason::DestinationMulticast,
            Self::Reserved => DropReason::DestinationReserved,
            Self::Broadcast => DropReason::DestinationBroadcast,
            Self::HostOnly => DropReason::HostOnly,
            Self::Isolation => DropReason::Isolation,
            // A closer look decides; without one nothing passes.
            Self::NeedsMore => DropReason::DestinationBlocked,
        })
    }

    /// Whether a name server may be reached there although the table refuses the address: it is a
    /// single host that no rule is about.
    pub(super) const fn may_be_name_server(self) -> bool {
        matches!(
            self,
            Self::Private | Self::LinkLocal | Self::Metadata | Self::Special | Self::Isolation
        )
    }
}

/// A prefix and the verdict for its addresses. Of the entries that contain an address, the one with
/// the greatest weight decides, and of equal ones the later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<T = Destination> {
    pub(super) prefix: Ipv4Net,
    pub(super) weight: u16,
    pub(super) says: T,
}

/// All addresses, cut into ranges.
#[derive(Debug, Clone)]
pub(crate) struct PrefixTable<T = Destination> {
    directory: Box<[Slice<T>; 256]>,
    /// The first address of each range, in order, beginning with zero.
    starts: Box<[u32]>,
    says: Box<[T]>,
}

/// The ranges with addresses that have the same first byte.
#[derive(Debug, Clone, Copy)]
struct Slice<T> {
    first: u16,
    len: u16,
    /// The verdict of the first of them, which is the answer if it is the only one.
    says: T,
}

impl<T: Copy + PartialEq> PrefixTable<T> {
    /// Cuts all addresses into ranges. Addresses that are in no entry get `otherwise`.
    pub(super) fn new(mut entries: Vec<Entry<T>>, otherwise: T) -> Self {
        // Enclosing prefixes come before enclosed ones; the sort is stable.
        entries.sort_by_key(|entry| (u32::from(entry.prefix.network()), entry.prefix.prefix_len()));
        let mut ranges = Ranges {
            starts: vec![0],
            says: vec![otherwise],
        };
        let mut enclosing: Vec<Entry<T>> = Vec::new();
        for mut entry in entries {
            let start = u32::from(entry.prefix.network());
            while let Some(inner) = enclosing.pop_if(|inner| last(inner) < start) {
                ranges.resume(&inner, enclosing.last(), otherwise);
            }
            if let Some(outer) = enclosing.last()
                && outer.weight > entry.weight
            {
                (entry.weight, entry.says) = (outer.weight, outer.says);
            }
            ranges.begin(start, entry.says);
            enclosing.push(entry);
        }
        while let Some(inner) = enclosing.pop() {
            ranges.resume(&inner, enclosing.last(), otherwise);
        }
        let Ranges { starts, says } = ranges;
        Self {
            directory: directory(&starts, &says),
            starts: starts.into(),
            says: says.into(),
        }
    }

    /// The verdict for an address.
    #[inline]
    pub(super) fn get(&self, address: u32) -> T {
        let slice = &self.directory[(address >> 24) as usize];
        if slice.len == 1 {
            return slice.says;
        }
        self.search(slice, address)
    }

    /// Searches the ranges of a slice, which begins within the first of them.
    fn search(&self, slice: &Slice<T>, address: u32) -> T {
        let (first, len) = (usize::from(slice.first), usize::from(slice.len));
        let later = &self.starts[first..][1..len];
        self.says[first + later.partition_point(|start| *start <= address)]
    }
}

/// The ranges, while they are built.
struct Ranges<T> {
    starts: Vec<u32>,
    says: Vec<T>,
}

impl<T: Copy + PartialEq> Ranges<T> {
    fn begin(&mut self, start: u32, says: T) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.says.pop();
        }
        if self.says.last() != Some(&says) {
            self.starts.push(start);
            self.says.push(says);
        }
    }

    /// After the last address of `inner`, continues with the prefix that encloses it, if any.
    fn resume(&mut self, inner: &Entry<T>, outer: Option<&Entry<T>>, otherwise: T) {
        if let Some(next) = last(inner).checked_add(1) {
            self.begin(next, outer.map_or(otherwise, |outer| outer.says));
        }
    }
}

fn directory<T: Copy>(starts: &[u32], says: &[T]) -> Box<[Slice<T>; 256]> {
    Box::new(std::array::from_fn(|byte| {
        let byte = u32::try_from(byte).expect("of 256 entries") << 24;
        // From the range that contains the first address to the one that contains the last.
        let first = starts.partition_point(|start| *start <= byte) - 1;
        let end = starts.partition_point(|start| *start <= byte | 0x00ff_ffff);
        let small = |number: usize| {
            u16::try_from(number).expect("rules and the host's addresses make fewer")
        };
        Slice {
            first: small(first),
            len: small(end - first),
            says: says[first],
        }
    }))
}

fn last<T>(entry: &Entry<T>) -> u32 {
    entry.prefix.broadcast().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(prefix: &str, weight: u16, says: Destination) -> Entry {
        Entry {
            prefix: prefix.parse().unwrap(),
            weight,
            says,
        }
    }

    /// The definition, implemented naively.
    fn naive(entries: &[Entry], otherwise: Destination, address: u32) -> Destination {
        let mut best: Option<&Entry> = None;
        for entry in entries {
            let holds = entry.prefix.contains(&std::net::Ipv4Addr::from(address));
            if holds && best.is_none_or(|best| entry.weight >= best.weight) {
                best = Some(entry);
            }
        }
        best.map_or(otherwise, |best| best.says)
    }

    fn compare(entries: &[Entry]) {
        let table = PrefixTable::new(entries.to_vec(), Destination::Pass);
        let edges = entries.iter().flat_map(|entry| {
            let (first, last) = (u32::from(entry.prefix.network()), last(entry));
            [
                first.wrapping_sub(1),
                first,
                first.wrapping_add(1),
                last.wrapping_sub(1),
                last,
                last.wrapping_add(1),
            ]
        });
        for address in edges.chain([0, u32::MAX, 0x0a00_0000, 0x0aff_ffff]) {
            assert_eq!(
                table.get(address),
                naive(entries, Destination::Pass, address),
                "{} in {entries:#?}",
                std::net::Ipv4Addr::from(address)
            );
        }
    }

    #[test]
    fn an_empty_table_says_the_same_everywhere() {
        compare(&[]);
    }

    #[test]
    fn an_inner_prefix_speaks_within_an_outer_one() {
        compare(&[
            entry("10.0.0.0/8", 8, Destination::Private),
            entry("10.1.0.0/16", 16, Destination::Pass),
            entry("10.1.255.0/24", 24, Destination::Blocked),
            entry("10.255.255.255/32", 32, Destination::Blocked),
        ]);
    }

    #[test]
    fn weight_counts_more_than_length() {
        compare(&[
            entry("0.0.0.0/0", 100, Destination::Blocked),
            entry("10.0.0.0/8", 8, Destination::Private),
            entry("10.1.0.0/16", 200, Destination::Pass),
            entry("255.255.255.255/32", 0, Destination::Broadcast),
        ]);
    }

    #[test]
    fn any_mix_of_prefixes_is_cut_as_defined() {
        // A small generator (xorshift) with a fixed seed.
        let mut state = 0x9e37_79b9_u32;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        for round in 0..300 {
            let entries: Vec<Entry> = (0..round % 40)
                .map(|index| {
                    let len = u8::try_from(random() % 33).unwrap();
                    // Few different first bytes, so that prefixes nest often.
                    let address = random() & 0x83ff_ff81;
                    let prefix = Ipv4Net::new(address.into(), len).unwrap().trunc();
                    let says = [
                        Destination::Pass,
                        Destination::Blocked,
                        Destination::Private,
                        Destination::Special,
                    ][random() as usize % 4];
                    // Distinct prefixes of the same weight can only contain the same address if
                    // they are equal, when weights follow lengths. The second bit breaks that.
                    let weight = u16::from(len) * 2 + u16::try_from(index % 2).unwrap() * 100;
                    Entry {
                        prefix,
                        weight,
                        says,
                    }
                })
                .collect();
            compare(&entries);
        }
    }
}
