//! Which rule decides, as docs/rules.md has it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Facts;
use super::packet::Packet;

/// A rule, read anew from its text.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) allows: bool,
    /// Its number in the IPv4 header.
    protocol: Option<u8>,
    pub(crate) target: String,
    ports: Option<(u16, u16)>,
}

impl Rule {
    pub(crate) fn read(text: &str, allows: bool) -> Self {
        let (protocol, text) = match text.split_once(' ') {
            Some(("tcp", rest)) => (Some(6), rest),
            Some(("udp", rest)) => (Some(17), rest),
            Some(("icmp", rest)) => (Some(1), rest),
            _ => (None, text),
        };
        let (target, ports) = text.split_once(':').unwrap_or((text, ""));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let ports = first.parse().ok().zip(last.parse().ok());
        Self {
            allows,
            protocol,
            target: target.to_owned(),
            ports,
        }
    }

    pub(crate) const fn is_plain(&self) -> bool {
        self.protocol.is_none() && self.ports.is_none()
    }
}

impl Facts {
    /// What a rule's target stands for.
    pub(crate) fn nets(&self, target: &str) -> Vec<Ipv4Net> {
        let list: Vec<String> = match target {
            "@host" => vec![format!("{}/32", self.gateway)],
            "@dns" => {
                let servers = self.lease.iter().flat_map(|lease| &lease.name_servers);
                let servers = servers.filter(|server| {
                    let first = server.octets()[0];
                    first != 0 && first != 127 && first < 224
                });
                servers.map(|server| format!("{server}/32")).collect()
            }
            "@private" => split("10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10"),
            "@metadata" => split(
                "169.254.0.0/16 100.100.100.200/32 168.63.129.16/32 192.0.0.192/32 192.80.8.124/32",
            ),
            net => vec![net.to_owned()],
        };
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    /// Of the rules that match and are with ports or without: the length of the prefix of the
    /// one that decides, and whether it allows.
    pub(super) fn deciding(
        &self,
        packet: &Packet<'_>,
        address: Ipv4Addr,
        with_ports: bool,
    ) -> Option<(u8, bool)> {
        let mut best: Option<(u8, bool, bool)> = None;
        for rule in &self.rules {
            let Some(len) = self.matches(rule, packet, address, with_ports) else {
                continue;
            };
            let this = (len, rule.protocol.is_some(), !rule.allows);
            if best.is_none_or(|best| this > best) {
                best = Some(this);
            }
        }
        best.map(|(len, _, blocks)| (len, !blocks))
    }

    fn matches(
        &self,
        rule: &Rule,
        packet: &Packet<'_>,
        address: Ipv4Addr,
        with_ports: bool,
    ) -> Option<u8> {
        if rule.ports.is_some() != with_ports {
            return None;
        }
        if rule
            .protocol
            .is_some_and(|protocol| protocol != packet.protocol)
        {
            return None;
        }
        if let Some((first, last)) = rule.ports {
            let port = packet.port_for_rules?;
            if port < first || port > last {
                return None;
            }
        }
        let mut nets = self.nets(&rule.target);
        if with_ports && rule.target == "@host" && !rule.allows {
            nets.extend(self.host_addresses.iter().map(|it| Ipv4Net::from(*it)));
        }
        let holding = nets.iter().filter(|net| net.contains(&address));
        holding.map(Ipv4Net::prefix_len).max()
    }

    /// Whether `@host` is blocked for the packet, with all of its ports.
    pub(super) fn blocks_host(&self, packet: &Packet<'_>) -> bool {
        self.rules.iter().any(|rule| {
            let is_about = rule
                .protocol
                .is_none_or(|protocol| protocol == packet.protocol);
            rule.target == "@host" && !rule.allows && rule.ports.is_none() && is_about
        })
    }

    /// Whether a prefix that is allowed opens an address to every protocol.
    pub(super) fn opens_protocols(&self, address: Ipv4Addr) -> bool {
        self.rules.iter().any(|rule| {
            let is_prefix = !rule.target.starts_with('@');
            let opens = rule.allows && rule.is_plain() && is_prefix;
            opens
                && self
                    .nets(&rule.target)
                    .iter()
                    .any(|net| net.contains(&address))
        })
    }
}

fn split(list: &str) -> Vec<String> {
    list.split(' ').map(str::to_owned).collect()
}
