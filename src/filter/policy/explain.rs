//! Explains what the rules do with a packet, which rule decides, and why. It is for people who
//! write a policy, and needs no VM.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

use super::super::prefix::Destination;
use super::ports::{Action, PortPair};
use super::verdicts::Kind;
use super::{Mode, Policy, Ports, Protocol, Rule, Scope, Surroundings, Target};
use crate::direction::Direction;
use crate::filter::roles::{NameServers, Roles, Station};
use crate::filter::subnet::Subnet;

/// The VM's surroundings, as far as rules depend on them.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// The VM's network.
    pub subnet: Option<Ipv4Net>,
    /// NAT or host-only.
    pub mode: Mode,
}

/// The other machine, as in `1.2.3.4:443/tcp`: the one that the VM sends to, or that sends to the
/// VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: Ipv4Addr,
    /// The port: the peer's if the VM sends, the VM's if the peer sends.
    pub port: Option<u16>,
    /// TCP by default; none if neither a protocol nor a port is given.
    pub protocol: Option<Protocol>,
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Which way it goes.
    pub from: Direction,
    /// The label of the reason, if it is dropped.
    pub dropped: Option<&'static str>,
    /// The rule that decides, and whether it allows; `None` if the built-in rules decide.
    pub rule: Option<(Rule, bool)>,
}

impl Policy {
    /// What the rules do with the first packet of a connection between the VM and a peer, as if no
    /// connection were open.
    ///
    /// Long because it repeats, in their order, the steps that a packet takes.
    #[must_use]
    pub fn explain(&self, place: &Place, from: Direction, peer: &Peer) -> Explanation {
        let roles = Roles {
            gateway: Station::new(place.gateway, None),
            subnet: place.subnet.map(Subnet::from),
            name_servers: NameServers::new(),
            mode: place.mode,
            isolation: !self.wants_isolation_off() || place.mode == Mode::Host,
            max_frame: 0,
        };
        let around = Surroundings {
            roles: &roles,
            host: &[],
        };
        let kind = match peer.protocol {
            Some(Protocol::Tcp) => Kind::Tcp,
            Some(Protocol::Udp) => Kind::Udp,
            Some(Protocol::Icmp) => Kind::Icmp,
            None => Kind::Other,
        };
        let ports = peer.ports(from);
        let compiled = self.compile(&around, 0);
        let address = u32::from(peer.address);
        let said = match (from, &compiled.inbound) {
            (Direction::Outbound, _) => match compiled.outbound.table.get(address) {
                Destination::NeedsMore => {
                    compiled.outbound.verdict_for_packet(address, kind, ports)
                }
                said => said,
            },
            // No rule is asked about these.
            (Direction::Inbound, _)
                if place.mode == Mode::Host && peer.address != place.gateway =>
            {
                Destination::HostOnly
            }
            (Direction::Inbound, _) if roles.isolation && roles.is_neighbour(address) => {
                Destination::Isolation
            }
            (Direction::Inbound, Some(inbound)) => inbound.verdict_for_packet(address, kind, ports),
            (Direction::Inbound, None) => Destination::Pass,
        };
        let dropped = said.refusal().map(|reason| match (from, said) {
            (Direction::Outbound, _)
            | (Direction::Inbound, Destination::HostOnly | Destination::Isolation) => {
                reason.label()
            }
            (Direction::Inbound, _) => "source-blocked",
        });
        let wanted = if dropped.is_some() {
            Action::Block
        } else {
            Action::Allow
        };
        let rule = self.strongest(&around, from, peer, ports, wanted);
        let rule = rule.map(|(_, rule)| (rule, wanted == Action::Allow));
        // No rule is responsible for what isolation, the closed loopback or host-only mode drop.
        let is_a_rules = matches!(
            said,
            Destination::Pass | Destination::Allowed | Destination::Blocked
        );
        Explanation {
            from,
            dropped,
            rule: rule.filter(|_| is_a_rules),
        }
    }

    /// The narrowest rule that allows such packets, with a direction if this policy has rules with
    /// one. None if this policy also has a rule as narrow that blocks them.
    pub(in crate::filter) fn opening(
        &self,
        around: &Surroundings<'_>,
        from: Direction,
        peer: &Peer,
    ) -> Option<Rule> {
        let ports = peer.port.map(Ports::one).map(|ports| match from {
            Direction::Outbound => Scope::Remote(ports),
            Direction::Inbound => Scope::Own(ports),
        });
        let rule = Rule {
            direction: self.is_stateful().then_some(from),
            protocol: peer.protocol,
            target: Target::Net(peer.address.into()),
            ports,
        };
        let weight = (ports.is_some(), 32, peer.protocol.is_some());
        let blocks = self.strongest(around, from, peer, peer.ports(from), Action::Block);
        let is_outdone = blocks.is_some_and(|(strongest, _)| strongest >= weight);
        (!is_outdone).then_some(rule)
    }

    /// Of the rules that allow or block such packets, the one that decides, with its weight.
    fn strongest(
        &self,
        around: &Surroundings<'_>,
        from: Direction,
        peer: &Peer,
        ports: Option<PortPair>,
        wanted: Action,
    ) -> Option<(Weight, Rule)> {
        let list = match wanted {
            Action::Allow => self.allowed(),
            Action::Block => self.blocked(),
        };
        let matching = list.iter().filter_map(|rule| {
            let is_for = match rule.direction {
                Some(direction) => direction == from,
                None => from == Direction::Outbound || self.is_stateful(),
            };
            let has_port = match (rule.ports, ports) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(Scope::Remote(range)), Some(pair)) => range.contains(pair.remote),
                (Some(Scope::Own(range)), Some(pair)) => range.contains(pair.own),
            };
            let is_protocols = rule.protocol.is_none() || rule.protocol == peer.protocol;
            let holding = around.prefixes(rule.target).into_iter();
            let holding = holding.filter(|prefix| prefix.contains(&peer.address));
            let len = holding.map(|prefix| prefix.prefix_len()).max()?;
            let weight = (rule.ports.is_some(), len, rule.protocol.is_some());
            (is_for && has_port && is_protocols).then_some((weight, *rule))
        });
        matching.max_by_key(|(weight, _)| *weight)
    }

    /// Whether the lease's name servers, which are not known here, could change the result.
    #[must_use]
    pub fn depends_on_lease(&self) -> bool {
        self.allowed()
            .iter()
            .chain(self.blocked())
            .any(|rule| rule.target == Target::Dns)
    }
}

/// Which of two rules decides, the greater one: whether it has ports, the length of its prefix, and
/// whether it has a protocol.
type Weight = (bool, u8, bool);

impl Peer {
    /// The ports of a packet from or to it, if its protocol has any. A field that rules do not test
    /// may have any value; 0 is in no rule.
    fn ports(&self, from: Direction) -> Option<PortPair> {
        let port = self.port.unwrap_or(0);
        let (remote, own) = match from {
            Direction::Outbound => (port, 0),
            Direction::Inbound => (0, port),
        };
        let is_tcp = match self.protocol? {
            Protocol::Tcp => true,
            Protocol::Udp => false,
            Protocol::Icmp => return None,
        };
        Some(PortPair {
            is_tcp,
            remote,
            own,
        })
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected ADDRESS[:PORT][/tcp|/udp|/icmp], as in 1.2.3.4:443/tcp".to_owned();
        let (rest, word) = text
            .split_once('/')
            .map_or((text, None), |(rest, it)| (rest, Some(it)));
        let (address, port) = rest
            .split_once(':')
            .map_or((rest, None), |(it, port)| (it, Some(port)));
        let port = port.map(|port| {
            port.parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(wrong)
        });
        let port = port.transpose()?;
        let protocol = match word {
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            Some("icmp") if port.is_none() => Some(Protocol::Icmp),
            Some(_) => return Err(wrong()),
            None => port.map(|_| Protocol::Tcp),
        };
        Ok(Self {
            address: address.parse().map_err(|_| wrong())?,
            port,
            protocol,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.protocol {
            Some(Protocol::Tcp) => f.write_str("/tcp"),
            Some(Protocol::Udp) => f.write_str("/udp"),
            Some(Protocol::Icmp) => f.write_str("/icmp"),
            None => Ok(()),
        }
    }
}

/// One line, such as `dropped as destination-blocked, by the rule "block 10.0.0.0/8"`.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dropped {
            None => f.write_str("passes")?,
            Some(reason) => write!(f, "dropped as {reason}")?,
        }
        match (&self.rule, self.dropped) {
            (Some((rule, true)), _) => write!(f, ", by the rule \"allow {rule}\""),
            (Some((rule, false)), _) => write!(f, ", by the rule \"block {rule}\""),
            (None, None) => f.write_str(", as no rule is about it and nothing built in closes it"),
            (None, Some("isolation")) if self.from == Direction::Inbound => {
                f.write_str(": with isolation on, no neighbour sends to the VM")
            }
            (None, Some("isolation")) => f.write_str(
                ": with isolation on, neighbours take a rule whose prefix lies within the VM's \
                 network",
            ),
            (None, Some("host-only")) => f.write_str(": no rule opens more in host-only mode"),
            (None, Some("destination-local")) => {
                f.write_str(": only a rule with a prefix of at least 8 bits opens that")
            }
            (None, Some("destination-blocked")) => {
                f.write_str(", as a rule that blocks holds the VM's whole network")
            }
            (None, Some(_)) => {
                f.write_str(", which is built in; a rule that allows it would open it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(allow: &str, block: &str, from: Direction, peer: &str) -> String {
        let (policy, _) = Policy::parse(allow, block).unwrap();
        let place = Place {
            gateway: Ipv4Addr::new(192, 168, 64, 1),
            subnet: Some("192.168.64.0/24".parse().unwrap()),
            mode: Mode::Nat,
        };
        policy
            .explain(&place, from, &peer.parse().unwrap())
            .to_string()
    }

    #[test]
    fn the_rule_that_decides_is_named() {
        let out = Direction::Outbound;
        for (allow, block, peer, expected) in [
            (
                "",
                "",
                "1.2.3.4:443",
                "passes, as no rule is about it and nothing built in closes it",
            ),
            (
                "10.0.0.0/8",
                "",
                "10.1.2.3",
                "passes, by the rule \"allow 10.0.0.0/8\"",
            ),
            (
                "0.0.0.0/0:443",
                "1.2.3.4",
                "1.2.3.4:443/tcp",
                "passes, by the rule \"allow 0.0.0.0/0:443\"",
            ),
            (
                "0.0.0.0/0:443",
                "1.2.3.4",
                "1.2.3.4:80/tcp",
                "dropped as destination-blocked, by the rule \"block 1.2.3.4/32\"",
            ),
            (
                "",
                "",
                "10.1.2.3",
                "dropped as destination-private, which is built in; a rule that allows it would open it",
            ),
            (
                "192.168.0.0/16:22",
                "",
                "192.168.64.5:22",
                "dropped as isolation: with isolation on, neighbours take a rule whose prefix lies \
                 within the VM's network",
            ),
            (
                "@host",
                "0.0.0.0/0",
                "192.168.64.1",
                "passes, by the rule \"allow @host\"",
            ),
            (
                "icmp 0.0.0.0/0",
                "0.0.0.0/0",
                "8.8.8.8/icmp",
                "passes, by the rule \"allow icmp 0.0.0.0/0\"",
            ),
        ] {
            assert_eq!(
                explain(allow, block, out, peer),
                expected,
                "{peer} +{allow} -{block}"
            );
        }
    }

    #[test]
    fn who_gets_in_is_explained_too() {
        let own = "in tcp 0.0.0.0/0 to 22";
        for (peer, expected) in [
            (
                "9.9.9.9:22",
                "passes, by the rule \"allow in tcp 0.0.0.0/0 to 22\"",
            ),
            (
                "9.9.9.9:23",
                "dropped as source-blocked, by the rule \"block in 0.0.0.0/0\"",
            ),
        ] {
            assert_eq!(
                explain(own, "in 0.0.0.0/0", Direction::Inbound, peer),
                expected
            );
        }
        assert_eq!(
            explain(
                "in 192.168.64.50",
                "",
                Direction::Inbound,
                "192.168.64.50:22"
            ),
            "dropped as isolation: with isolation on, no neighbour sends to the VM"
        );
        let stateless = explain("", "0.0.0.0/0", Direction::Inbound, "9.9.9.9:22");
        assert_eq!(
            stateless,
            "passes, as no rule is about it and nothing built in closes it"
        );
    }

    #[test]
    fn the_rule_that_is_offered_opens() {
        let (out, inbound) = (Direction::Outbound, Direction::Inbound);
        for (allow, block, from, peer, expected) in [
            (
                "",
                "0.0.0.0/0",
                out,
                "1.2.3.4:443",
                Some("tcp 1.2.3.4/32:443"),
            ),
            ("", "", out, "10.1.2.3:53/udp", Some("udp 10.1.2.3/32:53")),
            (
                "",
                "1.2.3.4:443",
                out,
                "1.2.3.4:443",
                Some("tcp 1.2.3.4/32:443"),
            ),
            ("", "tcp 1.2.3.4:443", out, "1.2.3.4:443", None),
            ("", "udp 1.2.3.4:443", out, "1.2.3.4:443/udp", None),
            ("", "1.2.3.4", out, "1.2.3.4/icmp", Some("icmp 1.2.3.4/32")),
            ("", "1.2.3.4", out, "1.2.3.4", None),
            (
                "",
                "@host",
                out,
                "192.168.64.1:22",
                Some("tcp 192.168.64.1/32:22"),
            ),
            (
                "",
                "240.0.0.0/4",
                out,
                "240.1.2.3:1",
                Some("tcp 240.1.2.3/32:1"),
            ),
            (
                "in @host",
                "0.0.0.0/0",
                out,
                "8.8.8.8:53/udp",
                Some("out udp 8.8.8.8/32:53"),
            ),
            (
                "",
                "in 0.0.0.0/0",
                inbound,
                "9.9.9.9:22",
                Some("in tcp 9.9.9.9/32 to 22"),
            ),
            (
                "",
                "in 0.0.0.0/0",
                inbound,
                "9.9.9.9/icmp",
                Some("in icmp 9.9.9.9/32"),
            ),
            ("", "in tcp 9.9.9.9 to 22", inbound, "9.9.9.9:22", None),
        ] {
            let before = explain(allow, block, from, peer);
            assert!(before.starts_with("dropped"), "{peer} -{block}: {before}");
            let roles = Roles {
                gateway: Station::new(Ipv4Addr::new(192, 168, 64, 1), None),
                subnet: None,
                name_servers: NameServers::new(),
                mode: Mode::Nat,
                isolation: true,
                max_frame: 0,
            };
            let around = Surroundings {
                roles: &roles,
                host: &[],
            };
            let (policy, _) = Policy::parse(allow, block).unwrap();
            let offered = policy.opening(&around, from, &peer.parse().unwrap());
            let offered = offered.map(|rule| rule.to_string());
            assert_eq!(offered.as_deref(), expected, "{peer} -{block}");
            if let Some(rule) = offered {
                let allow = if allow.is_empty() {
                    rule
                } else {
                    format!("{allow},{rule}")
                };
                let after = explain(&allow, block, from, peer);
                assert!(
                    after.starts_with("passes, by the rule"),
                    "{peer} +{allow}: {after}"
                );
            }
        }
    }

    #[test]
    fn a_peer_is_an_address_with_a_port_and_a_protocol_or_without() {
        for wrong in [
            "",
            "1.2.3",
            "1.2.3.4:",
            "1.2.3.4:0",
            "1.2.3.4/sctp",
            "1.2.3.4:1/icmp",
            "a.b:1",
        ] {
            assert!(wrong.parse::<Peer>().is_err(), "{wrong}");
        }
        let peer: Peer = "1.2.3.4:443".parse().unwrap();
        assert_eq!((peer.port, peer.protocol), (Some(443), Some(Protocol::Tcp)));
    }
}
