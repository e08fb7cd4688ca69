//! Compiles rules for the surroundings of one VM: for each direction, tables that find in one or a
//! few searches which rule decides about a packet.
//!
//! The first table knows addresses only. Where more matters, that is, for rules with ports or a
//! protocol, and everywhere once connections are tracked, it returns [`Destination::NeedsMore`], and
//! a second, slower look decides. So a policy of plain prefixes costs one search, as if there were
//! no other kinds of rules.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::super::prefix::{Destination, Entry, PrefixTable};
use super::built_in::{ALL_METADATA, METADATA, NEVER_SENT, PRIVATE, SPECIAL_PURPOSE, net};
use super::ports::{Action, PortRule, PortTable};
use super::verdicts::{Details, Guard, Verdicts};
use super::{Mode, Policy, Protocol, Rule, Scope, Target};
use crate::direction::Direction;
use crate::filter::roles::Roles;
use crate::filter::subnet::Subnet;

/// The addresses that a VM's rules depend on.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) roles: &'a Roles,
    /// The host's addresses.
    pub(crate) host: &'a [Ipv4Addr],
}

/// A compiled policy.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// The policy's number: flows that were allowed under another one are judged again.
    pub(crate) number: u32,
    pub(crate) outbound: Verdicts,
    /// Only if connections are tracked; otherwise no rule is about packets to the VM.
    pub(crate) inbound: Option<Verdicts>,
    /// The number of different rules, after aliases have been replaced, and with rules without a
    /// direction counted once for each direction that they apply to.
    pub(crate) rule_count: usize,
    /// The host's addresses, including the gateway's, in order. They accept only TCP, UDP and ICMP,
    /// unless a prefix that contains one opens it. `@host` does not, because people use it to
    /// exempt the gateway from what they block.
    pub(crate) closed_to_protocols: Box<[u32]>,
}

/// One rule for one direction, with its alias replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Concrete {
    direction: Direction,
    protocol: Option<Protocol>,
    prefix: Ipv4Net,
    ports: Option<Scope>,
}

type DirectedRule = (Concrete, Action);

impl Policy {
    /// Compiles the tables for a VM in these surroundings.
    pub(crate) fn compile(&self, around: &Surroundings<'_>, number: u32) -> Compiled {
        let rules = self.concrete(around);
        let different: HashSet<&Concrete> = rules.iter().map(|(rule, _)| rule).collect();
        let is_stateful = self.is_stateful();
        let of = |direction| {
            let of = rules
                .iter()
                .filter(move |(rule, _)| rule.direction == direction);
            of.copied().collect::<Vec<DirectedRule>>()
        };
        let built_in = built_in_entries();
        let outbound = DirectionCompiler {
            around: Some(around),
            built_in: &built_in,
            rules: &of(Direction::Outbound),
            host: &self.blocks_of_host(),
            allowed: if is_stateful {
                Destination::Allowed
            } else {
                Destination::Pass
            },
        };
        let inbound = DirectionCompiler {
            around: None,
            built_in: &[],
            rules: &of(Direction::Inbound),
            host: &[],
            allowed: Destination::Allowed,
        };
        Compiled {
            number,
            rule_count: different.len(),
            closed_to_protocols: self.closed_to_protocols(around),
            outbound: outbound.compile(is_stateful),
            inbound: is_stateful.then(|| inbound.compile(true)),
        }
    }

    /// The rules with their aliases replaced, once for each direction that they apply to. Blocking
    /// rules come last.
    fn concrete(&self, around: &Surroundings<'_>) -> Vec<DirectedRule> {
        let both: &[Direction] = if self.is_stateful() {
            &Direction::ALL
        } else {
            &[Direction::Outbound]
        };
        let mut concrete = Vec::new();
        for (list, action) in [(&self.allow, Action::Allow), (&self.block, Action::Block)] {
            for rule in list {
                let directions = rule.direction.as_ref().map_or(both, std::slice::from_ref);
                for direction in directions {
                    concrete.extend(around.prefixes(rule.target).into_iter().map(|prefix| {
                        let rule = Concrete {
                            direction: *direction,
                            protocol: rule.protocol,
                            prefix,
                            ports: rule.ports,
                        };
                        (rule, action)
                    }));
                }
            }
        }
        concrete
    }

    /// The rules that block the gateway by its alias, and so the host's other addresses too.
    fn blocks_of_host(&self) -> Vec<Rule> {
        let is_one = |rule: &&Rule| {
            rule.target == Target::Host && rule.direction != Some(Direction::Inbound)
        };
        self.block.iter().filter(is_one).copied().collect()
    }

    fn closed_to_protocols(&self, around: &Surroundings<'_>) -> Box<[u32]> {
        let opens = |rule: &Rule, address: Ipv4Addr| {
            let is_wide = rule.protocol.is_none() && rule.ports.is_none();
            let holds = matches!(rule.target, Target::Net(prefix) if prefix.contains(&address));
            holds && is_wide && rule.direction != Some(Direction::Inbound)
        };
        let addresses = around.host.iter().copied().chain([around.gateway()]);
        let closed = addresses.filter(|address| !self.allow.iter().any(|it| opens(it, *address)));
        let mut closed: Vec<u32> = closed.map(u32::from).collect();
        closed.sort_unstable();
        closed.dedup();
        closed.into()
    }
}

impl Surroundings<'_> {
    fn gateway(&self) -> Ipv4Addr {
        self.roles.gateway.address.into()
    }

    fn subnet(&self) -> Option<Ipv4Net> {
        self.roles.subnet.map(Subnet::net)
    }

    /// The addresses that no wide rule opens here.
    fn guard(&self) -> Guard {
        Guard {
            gateway: self.roles.gateway.address,
            neighbours: self.subnet().filter(|_| self.roles.isolation),
            host_only: self.roles.mode == Mode::Host,
        }
    }

    /// The name servers whose addresses a machine can have: nobody sends to 0/8 or 127/8, and a
    /// multicast group is not a machine.
    fn dns(&self) -> impl Iterator<Item = Ipv4Addr> {
        let servers = self.roles.name_servers.iter().copied();
        servers.filter(|server| !matches!(server.octets()[0], 0 | 127 | 224..))
    }

    /// The prefixes that a target stands for here.
    pub(super) fn prefixes(&self, target: Target) -> Vec<Ipv4Net> {
        let nets = |list: &[([u8; 4], u8)]| list.iter().map(|(at, len)| net(*at, *len)).collect();
        match target {
            Target::Net(prefix) => vec![prefix],
            Target::Host => vec![self.gateway().into()],
            Target::Dns => self.dns().map(Ipv4Net::from).collect(),
            Target::Private => nets(&PRIVATE),
            Target::Metadata => nets(&ALL_METADATA),
        }
    }
}

/// One direction, while it is compiled.
struct DirectionCompiler<'a> {
    /// Outbound only: what else the VM must be kept from.
    around: Option<&'a Surroundings<'a>>,
    built_in: &'a [Entry],
    rules: &'a [DirectedRule],
    /// The rules that block `@host`.
    host: &'a [Rule],
    /// The verdict of a rule that allows.
    allowed: Destination,
}

impl DirectionCompiler<'_> {
    /// Long because each step needs what the one before has found, in this order.
    fn compile(&self, is_stateful: bool) -> Verdicts {
        let ports = self.rules.iter().filter_map(|(rule, action)| {
            Some(PortRule {
                prefix: rule.prefix,
                protocol: rule.protocol,
                ports: rule.ports?,
                action: *action,
            })
        });
        let at_host = |rule: &Rule| {
            let Rule {
                protocol, ports, ..
            } = *rule;
            self.host_addresses().filter_map(move |prefix| {
                Some(PortRule {
                    prefix,
                    protocol,
                    ports: ports?,
                    action: Action::Block,
                })
            })
        };
        let ports: Vec<PortRule> = ports.chain(self.host.iter().flat_map(at_host)).collect();
        let of_protocols = self.rules.iter().map(|(rule, _)| rule);
        let of_protocols = of_protocols.filter(|rule| rule.protocol.is_some());
        let mut by_more: Vec<Ipv4Net> = of_protocols.map(|rule| rule.prefix).collect();
        by_more.extend(ports.iter().map(|rule| rule.prefix));
        if self.host.iter().any(|rule| rule.protocol.is_some()) {
            by_more.extend(self.host_addresses());
        }
        let plain = Arc::new(self.table(None, &[]));
        if by_more.is_empty() && !is_stateful {
            return Verdicts {
                table: Arc::into_inner(plain).expect("nobody else has it"),
                details: None,
            };
        }
        let table = if is_stateful {
            PrefixTable::new(Vec::new(), Destination::NeedsMore)
        } else {
            self.table(None, &by_more)
        };
        let named = |protocol| {
            self.rules
                .iter()
                .any(|(rule, _)| rule.protocol == Some(protocol))
        };
        let of = |protocol| {
            if named(protocol) {
                Arc::new(self.table(Some(protocol), &[]))
            } else {
                Arc::clone(&plain)
            }
        };
        Verdicts {
            table,
            details: Some(Box::new(Details {
                ports: PortTable::new(&ports),
                by_kind: [
                    of(Protocol::Tcp),
                    of(Protocol::Udp),
                    of(Protocol::Icmp),
                    plain.clone(),
                ],
                allowed: self.allowed,
                guard: self.around.map(Surroundings::guard),
            })),
        }
    }

    fn host_addresses(&self) -> impl Iterator<Item = Ipv4Net> {
        let addresses = self.around.map_or(&[][..], |around| around.host);
        addresses.iter().map(|address| Ipv4Net::from(*address))
    }

    /// The verdicts of rules without ports for a protocol, or for all protocols that no rule can
    /// name, except for addresses that need a closer look.
    fn table(&self, protocol: Option<Protocol>, by_more: &[Ipv4Net]) -> PrefixTable {
        let rules = self.rules.iter().filter(|(rule, _)| {
            rule.ports.is_none() && (rule.protocol.is_none() || rule.protocol == protocol)
        });
        let mut entries = self.built_in.to_vec();
        if self.host.iter().any(|rule| {
            rule.ports.is_none() && (rule.protocol.is_none() || rule.protocol == protocol)
        }) {
            let host = self.host_addresses();
            entries.extend(host.map(|address| built_in(address, Destination::Blocked)));
        }
        if let Some(around) = self.around {
            entries.push(built_in(around.gateway().into(), Destination::Pass));
        }
        entries.extend(rules.clone().map(|(rule, action)| Entry {
            prefix: rule.prefix,
            weight: weight_of_rule(rule.prefix.prefix_len(), rule.protocol.is_some()),
            says: match action {
                Action::Allow => self.allowed,
                Action::Block => Destination::Blocked,
            },
        }));
        let mut otherwise = Destination::Pass;
        if let Some(around) = self.around {
            // By the rules only: neither isolation nor host-only mode changes that.
            let gateway = Entry {
                prefix: around.gateway().into(),
                weight: NEEDS_MORE - 1,
                says: speaker_for(around.gateway(), &entries),
            };
            if around.roles.mode == Mode::Host {
                entries = vec![gateway];
                otherwise = Destination::HostOnly;
            } else if let Some(subnet) = around.subnet().filter(|_| around.roles.isolation) {
                entries.extend([neighbours(subnet, rules), gateway]);
            }
        }
        entries.extend(by_more.iter().map(|prefix| Entry {
            prefix: *prefix,
            weight: NEEDS_MORE,
            says: Destination::NeedsMore,
        }));
        PrefixTable::new(entries, otherwise)
    }
}

/// The built-in rules, which do not depend on the policy.
fn built_in_entries() -> Vec<Entry> {
    let special = SPECIAL_PURPOSE.iter();
    let mut entries: Vec<Entry> = special
        .map(|(network, len, says)| built_in(net(*network, *len), *says))
        .collect();
    entries.extend(METADATA.map(|address| built_in(net(address, 32), Destination::Metadata)));
    // These have the weight of rules, so that allowing 0.0.0.0/0 does not open the host's loopback.
    entries.extend(NEVER_SENT.map(|byte| Entry {
        weight: weight_of_rule(8, false),
        ..built_in(net([byte, 0, 0, 0], 8), Destination::Local)
    }));
    entries
}

/// Keeps the VM from its neighbours. A rule for a wider range is about the outside world, and does
/// not open neighbours. But it can close the name servers, which isolation leaves open. A rule
/// within the network does open neighbours.
fn neighbours<'a>(subnet: Ipv4Net, rules: impl Iterator<Item = &'a DirectedRule>) -> Entry {
    let around = rules.filter(|(rule, _)| rule.prefix != subnet && rule.prefix.contains(&subnet));
    let longest = around
        .max_by_key(|(rule, action)| (rule.prefix.prefix_len(), rule.protocol.is_some(), *action));
    Entry {
        prefix: subnet,
        weight: weight_of_rule(subnet.prefix_len(), false) - 1,
        says: match longest {
            Some((_, Action::Block)) => Destination::Blocked,
            _ => Destination::Isolation,
        },
    }
}

fn built_in(prefix: Ipv4Net, says: Destination) -> Entry {
    Entry {
        prefix,
        weight: u16::from(prefix.prefix_len()),
        says,
    }
}

/// Greater than all built-in weights. Between two lengths there is room for a rule with a protocol,
/// and for isolation.
fn weight_of_rule(prefix_len: u8, names_protocol: bool) -> u16 {
    64 + 4 * u16::from(prefix_len) + 2 * u16::from(names_protocol)
}

/// Greater than all rules' weights.
const NEEDS_MORE: u16 = u16::MAX;

/// The verdict of a table of these entries for one address.
fn speaker_for(address: Ipv4Addr, entries: &[Entry]) -> Destination {
    let about = entries.iter().filter(|it| it.prefix.contains(&address));
    about
        .max_by_key(|entry| entry.weight)
        .map_or(Destination::Pass, |entry| entry.says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::policy::{Kind, PortPair};
    use crate::filter::roles::Station;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 1);
    const HOST: [Ipv4Addr; 2] = [Ipv4Addr::new(4, 4, 4, 4), Ipv4Addr::new(10, 0, 0, 5)];

    fn parse(allow: &str, block: &str) -> Policy {
        Policy::parse(allow, block).unwrap().0
    }

    fn roles(mode: Mode) -> Roles {
        Roles {
            gateway: Station::new(GATEWAY, None),
            subnet: Subnet::of(0xc0a8_4001, 0xffff_ff00),
            name_servers: [Ipv4Addr::new(10, 0, 0, 53)].into_iter().collect(),
            mode,
            isolation: true,
            max_frame: 1514,
        }
    }

    fn compile(policy: &Policy, roles: &Roles) -> Compiled {
        let around = Surroundings { roles, host: &HOST };
        policy.compile(&around, 1)
    }

    /// The verdict of plain rules for an address.
    fn says(allow: &str, block: &str, address: &str) -> Destination {
        let address: Ipv4Addr = address.parse().unwrap();
        let compiled = compile(&parse(allow, block), &roles(Mode::Nat));
        compiled.outbound.table.get(address.into())
    }

    #[test]
    fn a_table_holds_as_many_rules_as_are_accepted() {
        // Each splits the range that contains it.
        let targets: Vec<_> = (0..4096_u32)
            .map(|index| {
                Rule::bare(Target::Net(Ipv4Net::new_assert(
                    (0x0100_0000 + index * 2).into(),
                    32,
                )))
            })
            .collect();
        let policy = Policy::new(vec![], targets).unwrap();
        let table = compile(&policy, &roles(Mode::Nat)).outbound.table;
        assert_eq!(table.get(0x0100_1fff), Destination::Pass);
        assert_eq!(table.get(0x0100_1ffe), Destination::Blocked);
        assert_eq!(table.get(0x0100_2000), Destination::Pass);
    }

    #[test]
    fn host_mode_leaves_the_gateway_alone() {
        let policy = parse("0.0.0.0/0", "");
        let table = compile(&policy, &roles(Mode::Host)).outbound.table;
        assert_eq!(table.get(GATEWAY.into()), Destination::Pass);
        for address in [0, 0xc0a8_4000, 0xc0a8_4002, 0x0808_0808, u32::MAX] {
            assert_eq!(table.get(address), Destination::HostOnly, "{address:x}");
        }
    }

    #[test]
    fn neighbours_take_a_rule_within_their_network() {
        use Destination::{Blocked, Isolation, Pass};
        for (allow, block, neighbour, expected) in [
            ("", "", "192.168.64.50", Isolation),
            ("", "", "192.168.64.255", Isolation),
            ("192.168.0.0/16", "", "192.168.64.50", Isolation),
            ("192.168.0.0/16", "", "192.168.64.0", Isolation),
            ("192.168.0.0/16", "", "192.168.64.255", Isolation),
            ("192.168.0.0/16", "", "192.168.65.0", Pass),
            ("192.168.64.0/23", "", "192.168.64.50", Isolation),
            ("192.168.64.0/24", "", "192.168.64.50", Pass),
            ("192.168.64.0/24", "", "192.168.64.255", Pass),
            ("192.168.64.50/32", "", "192.168.64.50", Pass),
            ("192.168.64.50/32", "", "192.168.64.51", Isolation),
            (
                "192.168.64.0/25",
                "192.168.64.50/32",
                "192.168.64.50",
                Blocked,
            ),
            (
                "192.168.64.0/24",
                "192.168.64.0/24",
                "192.168.64.50",
                Blocked,
            ),
            // A wider rule can close an address, and only the longest one counts.
            ("", "0.0.0.0/0", "192.168.64.50", Blocked),
            ("192.168.0.0/16", "0.0.0.0/0", "192.168.64.50", Isolation),
            ("0.0.0.0/1", "192.168.0.0/16", "192.168.64.50", Blocked),
            ("192.168.0.0/16", "192.168.0.0/16", "192.168.64.50", Blocked),
            ("192.168.64.50/32", "0.0.0.0/0", "192.168.64.50", Pass),
            // The gateway's verdict is the same as without isolation.
            ("", "", "192.168.64.1", Pass),
            ("", "0.0.0.0/0", "192.168.64.1", Blocked),
            ("192.168.0.0/16", "0.0.0.0/0", "192.168.64.1", Pass),
            ("@host", "0.0.0.0/0", "192.168.64.1", Pass),
            ("", "192.168.64.0/24", "192.168.64.1", Blocked),
            ("192.168.64.1/32", "@host", "192.168.64.1", Blocked),
        ] {
            let said = says(allow, block, neighbour);
            assert_eq!(said, expected, "{neighbour}: +{allow} -{block}");
        }
    }

    #[test]
    fn neighbours_with_public_addresses_take_one_too() {
        let public = Roles {
            gateway: Station::new(Ipv4Addr::new(4, 4, 4, 1), None),
            subnet: Subnet::of(0x0404_0401, 0xffff_ff00),
            ..roles(Mode::Nat)
        };
        let table = compile(&Policy::default(), &public).outbound.table;
        for (address, expected) in [
            (0x0404_0400, Destination::Isolation),
            (0x0404_0401, Destination::Pass),
            (0x0404_0432, Destination::Isolation),
            (0x0404_04ff, Destination::Isolation),
            (0x0404_0500, Destination::Pass),
        ] {
            assert_eq!(table.get(address), expected, "{address:x}");
        }
        let table = compile(&parse("4.4.4.50/32", ""), &public).outbound.table;
        assert_eq!(table.get(0x0404_0432), Destination::Pass);
    }

    #[test]
    fn neighbours_of_an_open_network_are_like_others() {
        let open = Roles {
            isolation: false,
            ..roles(Mode::Nat)
        };
        let table = compile(&parse("192.168.0.0/16", ""), &open).outbound.table;
        assert_eq!(table.get(0xc0a8_4032), Destination::Pass);
    }

    #[test]
    fn blocking_the_host_closes_its_addresses_below_the_rules() {
        use Destination::{Blocked, Pass, Private};
        for (allow, block, address, expected) in [
            ("", "", "4.4.4.4", Pass),
            ("@host", "", "4.4.4.4", Pass),
            ("@host", "", "10.0.0.5", Private),
            ("", "192.168.64.1/32", "4.4.4.4", Pass),
            ("", "@host", "4.4.4.4", Blocked),
            ("@host", "@host", "4.4.4.4", Blocked),
            ("", "@host", "4.4.4.5", Pass),
            ("", "@host", "10.0.0.5", Blocked),
            ("", "@host", "10.0.0.6", Private),
            ("4.4.4.4/32", "@host", "4.4.4.4", Pass),
            ("10.0.0.0/8", "@host", "10.0.0.5", Pass),
            ("4.0.0.0/8", "@host,4.4.4.0/24", "4.4.4.4", Blocked),
        ] {
            let said = says(allow, block, address);
            assert_eq!(said, expected, "{address}: +{allow} -{block}");
        }
    }

    /// The verdict for a packet of the VM to an address, after a closer look if it needs one.
    fn outbound(policy: &Policy, kind: Kind, address: &str, port: Option<u16>) -> Destination {
        let verdicts = compile(policy, &roles(Mode::Nat)).outbound;
        let address = u32::from(address.parse::<Ipv4Addr>().unwrap());
        match verdicts.table.get(address) {
            Destination::NeedsMore => verdicts.verdict_for_packet(
                address,
                kind,
                port.map(|port| PortPair {
                    is_tcp: kind == Kind::Tcp,
                    remote: port,
                    own: 50_000,
                }),
            ),
            says => says,
        }
    }

    #[test]
    fn a_rule_with_ports_beats_all_without() {
        use Destination::{Blocked, Isolation, Local, Pass, Private};
        use Kind::{Icmp, Tcp, Udp};
        for (allow, block, kind, address, port, expected) in [
            ("", "0.0.0.0/0:25", Tcp, "1.2.3.4", Some(25), Blocked),
            ("", "0.0.0.0/0:25", Udp, "1.2.3.4", Some(25), Blocked),
            ("", "0.0.0.0/0:25", Tcp, "1.2.3.4", Some(26), Pass),
            ("", "0.0.0.0/0:25", Icmp, "1.2.3.4", None, Pass),
            ("", "tcp 0.0.0.0/0:25", Udp, "1.2.3.4", Some(25), Pass),
            ("0.0.0.0/0:443", "1.2.3.4", Tcp, "1.2.3.4", Some(443), Pass),
            (
                "0.0.0.0/0:443",
                "1.2.3.4",
                Tcp,
                "1.2.3.4",
                Some(80),
                Blocked,
            ),
            (
                "0.0.0.0/0:443",
                "0.0.0.0/0",
                Tcp,
                "10.9.9.9",
                Some(443),
                Pass,
            ),
            ("10.0.0.0/8:443", "", Tcp, "10.9.9.9", Some(443), Pass),
            ("10.0.0.0/8:443", "", Tcp, "10.9.9.9", Some(80), Private),
            (
                "10.0.0.0/8:1-100",
                "10.9.0.0/16:80",
                Tcp,
                "10.9.9.9",
                Some(80),
                Blocked,
            ),
            (
                "10.9.0.0/16:80",
                "10.9.0.0/16:80",
                Tcp,
                "10.9.9.9",
                Some(80),
                Blocked,
            ),
            // Wide rules open neither neighbours nor the host's loopback.
            (
                "192.168.0.0/16:22",
                "",
                Tcp,
                "192.168.64.5",
                Some(22),
                Isolation,
            ),
            ("192.168.0.0/16:22", "", Tcp, "192.168.65.5", Some(22), Pass),
            ("192.168.0.0/16:22", "", Tcp, "192.168.64.1", Some(22), Pass),
            (
                "192.168.64.0/24:22",
                "",
                Tcp,
                "192.168.64.5",
                Some(22),
                Pass,
            ),
            ("0.0.0.0/0:22", "", Tcp, "127.0.0.1", Some(22), Local),
            ("127.0.0.0/8:22", "", Tcp, "127.0.0.1", Some(22), Pass),
            // The host's other addresses are closed with the gateway.
            ("", "@host:22", Tcp, "192.168.64.1", Some(22), Blocked),
            ("", "@host:22", Tcp, "4.4.4.4", Some(22), Blocked),
            ("", "@host:22", Tcp, "4.4.4.4", Some(80), Pass),
            ("", "@host:22", Icmp, "4.4.4.4", None, Pass),
        ] {
            let said = outbound(&parse(allow, block), kind, address, port);
            assert_eq!(
                said, expected,
                "{kind:?} {address}:{port:?} +{allow} -{block}"
            );
        }
    }

    #[test]
    fn a_protocol_counts_after_the_length_of_the_prefix() {
        use Destination::{Blocked, Pass};
        use Kind::{Icmp, Other, Tcp, Udp};
        for (allow, block, kind, expected) in [
            ("icmp 0.0.0.0/0", "0.0.0.0/0", Icmp, Pass),
            ("icmp 0.0.0.0/0", "0.0.0.0/0", Tcp, Blocked),
            ("icmp 0.0.0.0/0", "1.2.3.0/24", Icmp, Blocked),
            ("1.2.3.4", "udp 0.0.0.0/0", Udp, Pass),
            ("1.2.3.4", "udp 1.2.3.4", Udp, Blocked),
            ("udp 1.2.3.4", "1.2.3.4", Udp, Pass),
            ("udp 1.2.3.4", "1.2.3.4", Other, Blocked),
            ("tcp 1.2.3.4", "tcp 1.2.3.4", Tcp, Blocked),
        ] {
            let port = (kind != Icmp && kind != Other).then_some(80);
            let said = outbound(&parse(allow, block), kind, "1.2.3.4", port);
            assert_eq!(said, expected, "{kind:?} +{allow} -{block}");
        }
    }

    #[test]
    fn aliases_stand_for_their_prefixes() {
        use Destination::{Blocked, Pass};
        for (allow, block, address, expected) in [
            ("@private", "", "10.1.1.1", Pass),
            ("@private", "", "100.64.0.1", Pass),
            ("@dns", "@private", "10.0.0.53", Pass),
            ("@dns", "@private", "10.0.0.54", Blocked),
            ("0.0.0.0/0", "@metadata", "169.254.169.254", Blocked),
            ("0.0.0.0/0", "@metadata", "168.63.129.16", Blocked),
            ("0.0.0.0/0", "@metadata", "8.8.8.8", Pass),
        ] {
            let said = outbound(&parse(allow, block), Kind::Other, address, None);
            assert_eq!(said, expected, "{address} +{allow} -{block}");
        }
    }

    #[test]
    fn a_direction_makes_rules_about_both() {
        let inbound = |allow: &str, block: &str| {
            let compiled = compile(&parse(allow, block), &roles(Mode::Nat));
            compiled.inbound.map(|verdicts| {
                let ports = PortPair {
                    is_tcp: true,
                    remote: 50_000,
                    own: 22,
                };
                verdicts.verdict_for_packet(0x0102_0304, Kind::Tcp, Some(ports))
            })
        };
        assert_eq!(inbound("", "0.0.0.0/0"), None);
        assert_eq!(inbound("out @host", ""), Some(Destination::Pass));
        assert_eq!(
            inbound("out @host", "0.0.0.0/0"),
            Some(Destination::Blocked)
        );
        assert_eq!(
            inbound("in 1.2.3.4", "0.0.0.0/0"),
            Some(Destination::Allowed)
        );
        let own = "in tcp 0.0.0.0/0 to 22";
        assert_eq!(inbound(own, "0.0.0.0/0"), Some(Destination::Allowed));
        assert_eq!(
            inbound("", "in 0.0.0.0/0 to 20-30"),
            Some(Destination::Blocked)
        );
        assert_eq!(inbound("", "in 0.0.0.0/0:22"), Some(Destination::Pass));
    }

    #[test]
    fn rules_are_counted_as_they_are_compiled() {
        for (allow, block, expected) in [
            ("", "", 0),
            ("10.0.0.0/8", "0.0.0.0/0", 2),
            ("10.0.0.0/8,10.1.2.3/8", "10.0.0.0/8", 1),
            ("@host,192.168.64.1/32", "", 1),
            ("out 10.0.0.0/8", "0.0.0.0/0", 3),
            ("1.2.3.4:80,1.2.3.4:81", "1.2.3.4", 3),
            ("@private", "@dns", 5),
        ] {
            let count = compile(&parse(allow, block), &roles(Mode::Nat)).rule_count;
            assert_eq!(count, expected, "+{allow} -{block}");
        }
    }
}
