//! The verdicts of rules with ports: a tree of the prefixes in such rules, with the ports at each
//! prefix cut into ranges with one verdict each, just as prefix.rs cuts addresses.
//!
//! ```text
//!   10.0.0.0/8:443 allowed, 10.0.0.0/8:8000-9000 blocked, 10.1.0.0/16:22 allowed
//!
//!   address   10.1.2.3 ──▶ 10.1.0.0/16 ──outer──▶ 10.0.0.0/8
//!   port 22                 allow
//!   port 443                nothing               allow
//! ```
//!
//! A look-up climbs from the longest prefix that contains the address to the shortest, at most 33
//! steps with two binary searches each. The number of rules matters little.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::super::prefix::{Entry, PrefixTable};
use super::rule::{Ports, Protocol, Scope};

/// Whether a rule allows or blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Allow,
    Block,
}

/// A rule with ports, for one direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct PortRule {
    pub(super) prefix: Ipv4Net,
    /// TCP, UDP, or both.
    pub(super) protocol: Option<Protocol>,
    pub(super) ports: Scope,
    pub(super) action: Action,
}

/// The ports of one TCP or UDP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortPair {
    pub(crate) is_tcp: bool,
    pub(crate) remote: u16,
    pub(crate) own: u16,
}

/// All rules with ports, for one direction.
#[derive(Debug)]
pub(super) struct PortTable {
    /// The innermost prefix for each address, as an index into `nodes`, or `NOWHERE`.
    innermost: PrefixTable<u16>,
    nodes: Box<[Node]>,
}

/// A prefix in rules with ports.
#[derive(Debug)]
struct Node {
    prefix_len: u8,
    /// The next enclosing prefix.
    outer: u16,
    tcp: ByOwner,
    udp: ByOwner,
}

/// The verdicts for the other machine's ports and for the VM's own.
#[derive(Debug)]
struct ByOwner {
    remote: Ranges,
    own: Ranges,
}

/// The first port of each range, in order, and the verdict from there on.
type Ranges = Box<[(u16, PortVerdict)]>;

/// The action, and whether the rule names the protocol, which weighs more than the action.
type PortVerdict = Option<(bool, Action)>;

const NOWHERE: u16 = u16::MAX;

impl PortTable {
    /// Builds the tree; there are at most as many rules as a policy may have.
    pub(super) fn new(rules: &[PortRule]) -> Self {
        let mut by_prefix: BTreeMap<Ipv4Net, Vec<PortRule>> = BTreeMap::new();
        for rule in rules {
            by_prefix.entry(rule.prefix).or_default().push(*rule);
        }
        // Sorted by network and length, so that the prefixes that enclose one come before it, the
        // longest of them last.
        let prefixes: Vec<Ipv4Net> = by_prefix.keys().copied().collect();
        let mut enclosing: Vec<u16> = Vec::new();
        let mut nodes = Vec::with_capacity(prefixes.len());
        let mut entries = Vec::with_capacity(prefixes.len());
        for (index, (prefix, rules)) in by_prefix.iter().enumerate() {
            let index = u16::try_from(index).expect("a policy has fewer rules");
            while enclosing
                .pop_if(|outer| !prefixes[usize::from(*outer)].contains(prefix))
                .is_some()
            {}
            nodes.push(Node {
                prefix_len: prefix.prefix_len(),
                outer: enclosing.last().copied().unwrap_or(NOWHERE),
                tcp: ByOwner::new(rules, Protocol::Tcp),
                udp: ByOwner::new(rules, Protocol::Udp),
            });
            enclosing.push(index);
            entries.push(Entry {
                prefix: *prefix,
                weight: u16::from(prefix.prefix_len()),
                says: index,
            });
        }
        Self {
            innermost: PrefixTable::new(entries, NOWHERE),
            nodes: nodes.into(),
        }
    }

    /// The verdict of the rules with ports for a packet, and the prefix length of the rule that
    /// decides; `None` if no rule matches.
    pub(super) fn get(&self, address: u32, ports: PortPair) -> Option<(Action, u8)> {
        let mut place = self.innermost.get(address);
        while let Some(node) = self.nodes.get(usize::from(place)) {
            let by_owner = if ports.is_tcp { &node.tcp } else { &node.udp };
            let said = verdict_of(&by_owner.remote, ports.remote)
                .max(verdict_of(&by_owner.own, ports.own));
            if let Some((_, action)) = said {
                return Some((action, node.prefix_len));
            }
            place = node.outer;
        }
        None
    }
}

impl ByOwner {
    fn new(rules: &[PortRule], protocol: Protocol) -> Self {
        let of = |own: bool| {
            let rules = rules.iter().filter_map(|rule| {
                let (ports, is_own) = match rule.ports {
                    Scope::Remote(ports) => (ports, false),
                    Scope::Own(ports) => (ports, true),
                };
                let holds = rule.protocol.is_none_or(|named| named == protocol) && is_own == own;
                holds.then_some((ports, (rule.protocol.is_some(), rule.action)))
            });
            ranges(rules)
        };
        Self {
            remote: of(false),
            own: of(true),
        }
    }
}

fn verdict_of(ranges: &Ranges, port: u16) -> PortVerdict {
    let after = ranges.partition_point(|(first, _)| *first <= port);
    ranges[..after].last().and_then(|(_, said)| *said)
}

/// Cuts the ports into ranges, each with the rule of the greatest weight, by sweeping over the ends
/// of the rules' ranges with a counter for each of the four weights.
fn ranges(rules: impl Iterator<Item = (Ports, (bool, Action))>) -> Ranges {
    let weights = [false, true].map(|named| [Action::Allow, Action::Block].map(|it| (named, it)));
    let weights = weights.as_flattened();
    let mut ends = Vec::new();
    for (ports, weight) in rules {
        let level = weights.iter().position(|it| *it == weight).unwrap_or(0);
        ends.push((u32::from(ports.first), level, 1));
        ends.push((u32::from(ports.last) + 1, level, -1));
    }
    ends.sort_unstable();
    let mut counts = [0_i32; 4];
    let mut ranges: Vec<(u16, PortVerdict)> = Vec::new();
    for (index, (port, level, change)) in ends.iter().enumerate() {
        counts[*level] += change;
        let is_last_here = ends.get(index + 1).is_none_or(|(next, ..)| next != port);
        // After 65535 there is nothing left.
        let Some(port) = u16::try_from(*port).ok().filter(|_| is_last_here) else {
            continue;
        };
        let said = (0..4)
            .rev()
            .find(|level| counts[*level] > 0)
            .map(|level| weights[level]);
        if ranges
            .last()
            .map_or_else(|| said.is_some(), |(_, before)| *before != said)
        {
            ranges.push((port, said));
        }
    }
    ranges.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remote(first: u16, last: u16) -> Scope {
        Scope::Remote(Ports { first, last })
    }

    fn own(first: u16, last: u16) -> Scope {
        Scope::Own(Ports { first, last })
    }

    fn rule(prefix: &str, protocol: Option<Protocol>, ports: Scope, action: Action) -> PortRule {
        PortRule {
            prefix: prefix.parse().unwrap(),
            protocol,
            ports,
            action,
        }
    }

    fn tcp(remote: u16, own: u16) -> PortPair {
        PortPair {
            is_tcp: true,
            remote,
            own,
        }
    }

    #[test]
    fn the_longest_prefix_with_the_port_decides() {
        let table = PortTable::new(&[
            rule("10.0.0.0/8", None, remote(443, 443), Action::Allow),
            rule("10.0.0.0/8", None, remote(8000, 9000), Action::Block),
            rule("10.1.0.0/16", None, remote(22, 22), Action::Allow),
            rule("10.1.0.0/16", None, remote(8080, 8080), Action::Allow),
        ]);
        for (address, port, expected) in [
            (0x0a01_0203, 22, Some((Action::Allow, 16))),
            (0x0a01_0203, 443, Some((Action::Allow, 8))),
            (0x0a01_0203, 8080, Some((Action::Allow, 16))),
            (0x0a01_0203, 8081, Some((Action::Block, 8))),
            (0x0a02_0203, 8080, Some((Action::Block, 8))),
            (0x0a02_0203, 22, None),
            (0x0b00_0000, 443, None),
        ] {
            assert_eq!(
                table.get(address, tcp(port, 1)),
                expected,
                "{address:x}:{port}"
            );
        }
    }

    /// The definition, implemented naively.
    fn naive(rules: &[PortRule], address: u32, ports: PortPair) -> Option<(Action, u8)> {
        let matches = |rule: &&PortRule| {
            let (range, port) = match rule.ports {
                Scope::Remote(range) => (range, ports.remote),
                Scope::Own(range) => (range, ports.own),
            };
            let protocol = if ports.is_tcp {
                Protocol::Tcp
            } else {
                Protocol::Udp
            };
            rule.prefix.contains(&std::net::Ipv4Addr::from(address))
                && (range.first..=range.last).contains(&port)
                && rule.protocol.is_none_or(|named| named == protocol)
        };
        let weight = |rule: &&PortRule| {
            (
                rule.prefix.prefix_len(),
                rule.protocol.is_some(),
                rule.action,
            )
        };
        let best = rules.iter().filter(matches).max_by_key(weight);
        best.map(|rule| (rule.action, rule.prefix.prefix_len()))
    }

    fn any_rule() -> impl Strategy<Value = PortRule> {
        let port = || prop_oneof![1_u16..6, Just(u16::MAX - 1), Just(u16::MAX)];
        let protocol = prop_oneof![
            Just(None),
            Just(Some(Protocol::Tcp)),
            Just(Some(Protocol::Udp))
        ];
        (
            0_u32..4,
            0_u8..=32,
            protocol,
            port(),
            port(),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(address, len, protocol, one, other, is_own, blocks)| {
                let (first, last) = (one.min(other), one.max(other));
                PortRule {
                    prefix: Ipv4Net::new_assert((address << 30 | address).into(), len).trunc(),
                    protocol,
                    ports: if is_own {
                        own(first, last)
                    } else {
                        remote(first, last)
                    },
                    action: if blocks { Action::Block } else { Action::Allow },
                }
            })
    }

    proptest! {
        #[test]
        fn rules_decide_as_defined(
            rules in prop::collection::vec(any_rule(), 0..24),
            at in prop::collection::vec((0_u32..4, 0_u32..4, 0_u16..7, 0_u16..7, any::<bool>()), 20),
        ) {
            let table = PortTable::new(&rules);
            for (high, low, remote, own, is_tcp) in at {
                // 6 stands for the highest port.
                let port = |port: u16| if port == 6 { u16::MAX } else { port };
                let ports = PortPair { is_tcp, remote: port(remote), own: port(own) };
                let address = high << 30 | low;
                prop_assert_eq!(table.get(address, ports), naive(&rules, address, ports));
            }
        }
    }

    #[test]
    fn as_many_rules_as_are_accepted_fit() {
        let rules: Vec<_> = (0..4096_u16)
            .map(|port| {
                rule(
                    "10.0.0.0/8",
                    None,
                    remote(2 * port + 1, 2 * port + 1),
                    Action::Block,
                )
            })
            .collect();
        let table = PortTable::new(&rules);
        assert_eq!(
            table.get(0x0a00_0000, tcp(8191, 1)),
            Some((Action::Block, 8))
        );
        assert_eq!(table.get(0x0a00_0000, tcp(8192, 1)), None);
    }
}
