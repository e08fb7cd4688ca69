//! Which rule decides, as docs/rules.md has it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Facts;
use super::packet::Packet;

/// A rule, read anew from its text.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) allows: bool,
    /// `in` or `out`, if it names one.
    is_in: Option<bool>,
    /// Its number in the IPv4 header.
    protocol: Option<u8>,
    pub(crate) target: String,
    ports: Option<(u16, u16)>,
    /// Ports of the VM's.
    own: Option<(u16, u16)>,
}

/// What the rules say of a packet, and what is built in.
pub(super) enum Said {
    /// A rule allows it.
    Allowed,
    /// No rule is about it, and it passes.
    Nothing,
    /// It does not pass.
    No(&'static str),
}

/// A packet as rules see it.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) protocol: u8,
    pub(super) address: Ipv4Addr,
    /// The other machine's port and the VM's.
    pub(super) ports: Option<(u16, u16)>,
}

impl Rule {
    pub(crate) fn read(text: &str, allows: bool) -> Self {
        let (is_in, text) = match text.split_once(' ') {
            Some(("in", rest)) => (Some(true), rest),
            Some(("out", rest)) => (Some(false), rest),
            _ => (None, text),
        };
        let (text, own) = text.split_once(" to ").unwrap_or((text, ""));
        let (protocol, text) = match text.split_once(' ') {
            Some(("tcp", rest)) => (Some(6), rest),
            Some(("udp", rest)) => (Some(17), rest),
            Some(("icmp", rest)) => (Some(1), rest),
            _ => (None, text),
        };
        let (target, ports) = text.split_once(':').unwrap_or((text, ""));
        let range = |ports: &str| -> Option<(u16, u16)> {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            first.parse().ok().zip(last.parse().ok())
        };
        let (ports, own) = (range(ports), range(own));
        Self {
            allows,
            is_in,
            own,
            protocol,
            target: target.to_owned(),
            ports,
        }
    }

    pub(crate) const fn is_plain(&self) -> bool {
        self.protocol.is_none() && self.ports.is_none() && self.own.is_none()
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

    /// Whether connections are tracked.
    pub(crate) fn is_tracking(&self) -> bool {
        self.rules.iter().any(|rule| rule.is_in.is_some())
    }

    fn is_for(&self, rule: &Rule, inbound: bool) -> bool {
        let both = self.is_tracking();
        rule.is_in
            .map_or(both || !inbound, |is_in| is_in == inbound)
    }

    /// What the rules for one direction say of a packet that goes either way.
    pub(super) fn said(
        &self,
        packet: &Packet<'_>,
        outbound: bool,
        peer: Ipv4Addr,
        inbound_rules: bool,
    ) -> Said {
        let seen = Seen {
            protocol: packet.protocol,
            address: peer,
            ports: packet
                .ports_for_rules
                .map(|(from, to)| if outbound { (to, from) } else { (from, to) }),
        };
        if inbound_rules {
            let rule = |with_ports| self.deciding(&seen, with_ports, true);
            return match rule(true).or_else(|| rule(false)) {
                Some((_, true)) => Said::Allowed,
                Some((_, false)) => Said::No("source-blocked"),
                None => Said::Nothing,
            };
        }
        let said = self.outbound_said(&seen);
        match said {
            Said::No(fault) if self.is_name_server(packet, outbound, peer, fault) => Said::Nothing,
            said => said,
        }
    }

    /// Of the rules that match and are with ports or without: the length of the prefix of the
    /// one that decides, and whether it allows.
    pub(super) fn deciding(
        &self,
        seen: &Seen,
        with_ports: bool,
        inbound: bool,
    ) -> Option<(u8, bool)> {
        let mut best: Option<(u8, bool, bool)> = None;
        for rule in &self.rules {
            let Some(len) = self.matches(rule, seen, with_ports, inbound) else {
                continue;
            };
            let this = (len, rule.protocol.is_some(), !rule.allows);
            if best.is_none_or(|best| this > best) {
                best = Some(this);
            }
        }
        best.map(|(len, _, blocks)| (len, !blocks))
    }

    fn matches(&self, rule: &Rule, seen: &Seen, with_ports: bool, inbound: bool) -> Option<u8> {
        let has_ports = rule.ports.is_some() || rule.own.is_some();
        if has_ports != with_ports || !self.is_for(rule, inbound) {
            return None;
        }
        if rule
            .protocol
            .is_some_and(|protocol| protocol != seen.protocol)
        {
            return None;
        }
        let is_in = |(first, last): (u16, u16), port| first <= port && port <= last;
        if has_ports {
            let (remote, own) = seen.ports?;
            if rule.ports.is_some_and(|range| !is_in(range, remote))
                || rule.own.is_some_and(|range| !is_in(range, own))
            {
                return None;
            }
        }
        let mut nets = self.nets(&rule.target);
        if with_ports && rule.target == "@host" && !rule.allows && !inbound {
            nets.extend(self.host_addresses.iter().map(|it| Ipv4Net::from(*it)));
        }
        let holding = nets.iter().filter(|net| net.contains(&seen.address));
        holding.map(Ipv4Net::prefix_len).max()
    }

    /// Whether `@host` is blocked for the packet, with all of its ports.
    pub(super) fn blocks_host(&self, seen: &Seen) -> bool {
        self.rules.iter().any(|rule| {
            let is_about = rule
                .protocol
                .is_none_or(|protocol| protocol == seen.protocol);
            let is_whole = rule.ports.is_none() && rule.own.is_none();
            rule.target == "@host"
                && !rule.allows
                && is_whole
                && is_about
                && self.is_for(rule, false)
        })
    }

    /// Whether a prefix that is allowed opens an address to every protocol.
    pub(super) fn opens_protocols(&self, address: Ipv4Addr) -> bool {
        self.rules.iter().any(|rule| {
            let is_prefix = !rule.target.starts_with('@');
            let opens = rule.allows && rule.is_plain() && is_prefix && self.is_for(rule, false);
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
