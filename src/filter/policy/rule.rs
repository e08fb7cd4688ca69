//! One rule in the form in which users write it:
//! `[in |out ][tcp |udp |icmp ]TARGET[:PORTS][ to PORTS]`. docs/rules.md says what each part means.
//!
//! Other implementations of the control channel also read `[in |out ]TARGET[:PORTS]`, with the same
//! meaning. They reject everything else.

use std::fmt;
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};
use thiserror::Error;

use crate::direction::Direction;

/// A rule. The list that it is in says whether it allows or blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Only packets in this direction. Without one, the policy determines which packets.
    pub direction: Option<Direction>,
    /// Only packets of this protocol.
    pub protocol: Option<Protocol>,
    /// The other machine.
    pub target: Target,
    /// The ports of the rule, if it has any.
    pub ports: Option<Scope>,
}

/// The other machines that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// All addresses of a prefix, without host bits.
    Net(Ipv4Net),
    /// `@host`: the gateway, whose address is known only once the interface is open.
    Host,
    /// `@dns`: the name servers of the lease.
    Dns,
    /// `@private`: the private ranges of RFC 1918 and RFC 6598.
    Private,
    /// `@metadata`: the clouds' metadata services.
    Metadata,
}

/// A protocol that a rule can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// Whose ports a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The other machine's, in both directions.
    Remote(Ports),
    /// The VM's own.
    Own(Ports),
}

/// Ports from `first` to `last`, neither of them 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest, not below `first`.
    pub last: u16,
}

/// A prefix that was written with host bits. They were cleared, which deserves a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostBits {
    /// What was written, as in `10.1.2.3/8`.
    pub written: Ipv4Net,
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{:.200}: {reason}", format!("{text:?}"))] // Of a text of 1 MiB a part tells which it is.
pub struct RuleError {
    /// What was written.
    pub text: String,
    /// What is wrong with it, and what is expected.
    pub reason: Reason,
}

/// What is wrong with the text of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Reason {
    /// IPv6 never passes, so a rule for it would promise something that softnet does not do.
    #[error("rules are for IPv4 only, IPv6 is never forwarded")]
    Ipv6,
    /// Names would have to be resolved again and again, by a resolver that the VM may influence.
    #[error("names are not resolved: write an IPv4 network, an address or an alias")]
    Name,
    /// Not one of the aliases.
    #[error("unknown alias: there are @host, @dns, @private and @metadata")]
    Alias,
    /// Neither a prefix nor an alias.
    #[error("neither an IPv4 network, as in 10.0.0.0/8, nor an IPv4 address")]
    Network,
    /// Neither a port nor a range of them.
    #[error("ports are N or A-B, from 1 to 65535, as in 443 or 8000-8099")]
    Ports,
    /// ICMP has no ports.
    #[error("ICMP has no ports")]
    IcmpPorts,
    /// Rules of both directions can name the other machine's port, but only `in` can name the VM's.
    #[error(
        "\"to PORTS\" is the VM's own port: write it in a rule with \"in\", and without \":PORTS\""
    )]
    OwnPorts,
    /// Tabs, or blanks at either end.
    #[error("separate words by one space, and put none at either end")]
    Blanks,
}

impl Rule {
    /// Parses a rule. Also returns its prefix if host bits had to be cleared.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<(Self, Option<HostBits>), RuleError> {
        Self::read(text).map_err(|reason| RuleError {
            text: text.to_owned(),
            reason,
        })
    }

    /// A rule about all packets from or to a target.
    #[must_use]
    pub const fn bare(target: Target) -> Self {
        Self {
            direction: None,
            protocol: None,
            target,
            ports: None,
        }
    }

    fn read(text: &str) -> Result<(Self, Option<HostBits>), Reason> {
        if text.starts_with(' ')
            || text.ends_with(' ')
            || text.contains(|it: char| it.is_whitespace() && it != ' ')
        {
            return Err(Reason::Blanks);
        }
        let (direction, rest) = word(text, &DIRECTIONS);
        let (protocol, rest) = word(rest, &PROTOCOLS);
        let (remote_end, own) = match rest.split_once(' ') {
            Some((remote_end, more)) => (remote_end, Some(own_ports(more)?)),
            None => (rest, None),
        };
        let (target, remote) = match remote_end.split_once(':') {
            Some((_, more)) if more.contains(':') => return Err(Reason::Ipv6),
            Some((target, ports)) => (target, Some(ports.parse()?)),
            None => (remote_end, None),
        };
        let (target, warning) = Target::read(target)?;
        let ports = match (remote, own) {
            (None, None) => None,
            (Some(ports), None) => Some(Scope::Remote(ports)),
            (None, Some(ports)) if direction == Some(Direction::Inbound) => Some(Scope::Own(ports)),
            (_, Some(_)) => return Err(Reason::OwnPorts),
        };
        if ports.is_some() && protocol == Some(Protocol::Icmp) {
            return Err(Reason::IcmpPorts);
        }
        let rule = Self {
            direction,
            protocol,
            target,
            ports,
        };
        Ok((rule, warning))
    }
}

/// Removes the keyword that a text begins with, and the spaces after it, if it is one of these.
fn word<'a, T: Copy>(text: &'a str, words: &[(&str, T)]) -> (Option<T>, &'a str) {
    let found = words.iter().find_map(|(word, meaning)| {
        let rest = text.strip_prefix(word)?.strip_prefix(' ')?;
        Some((Some(*meaning), rest.trim_start_matches(' ')))
    });
    found.unwrap_or((None, text))
}

/// Parses `to PORTS`, with or without spaces before it.
fn own_ports(text: &str) -> Result<Ports, Reason> {
    let ports = text.trim_start_matches(' ').strip_prefix("to ");
    let ports = ports.ok_or(Reason::Network)?;
    ports.trim_start_matches(' ').parse()
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        Self::parse(text).map(|(rule, _)| rule)
    }
}

impl Target {
    fn read(text: &str) -> Result<(Self, Option<HostBits>), Reason> {
        if text.starts_with('@') {
            let alias = ALIASES.iter().find(|(name, _)| *name == text);
            return alias.map(|(_, it)| (*it, None)).ok_or(Reason::Alias);
        }
        if text.parse::<Ipv6Net>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
            return Err(Reason::Ipv6);
        }
        let written: Ipv4Net = text
            .parse()
            .or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from))
            .map_err(|_| {
                if is_name(text) {
                    Reason::Name
                } else {
                    Reason::Network
                }
            })?;
        let prefix = written.trunc();
        let warning = (prefix != written).then_some(HostBits { written });
        Ok((Self::Net(prefix), warning))
    }
}

/// Whether this looks like a host name.
fn is_name(text: &str) -> bool {
    let mut labels = text.split('.').rev();
    let has_letters = |label: &str| label.contains(|it: char| it.is_ascii_alphabetic());
    labels.next().is_some_and(has_letters) && labels.next().is_some()
}

impl Ports {
    /// This port alone.
    pub(super) const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Whether a port is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for Ports {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Self, Reason> {
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|number| digits && *number != 0);
            number.ok_or(Reason::Ports)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(Reason::Ports);
        }
        Ok(Self { first, last })
    }
}

/// The normal form: equal rules have the same text.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(direction) = self.direction {
            write!(f, "{} ", name_of(&direction, &DIRECTIONS))?;
        }
        if let Some(protocol) = self.protocol {
            write!(f, "{} ", name_of(&protocol, &PROTOCOLS))?;
        }
        match self.target {
            Target::Net(prefix) => prefix.fmt(f)?,
            alias => f.write_str(name_of(&alias, &ALIASES))?,
        }
        match self.ports {
            Some(Scope::Remote(ports)) => write!(f, ":{ports}"),
            Some(Scope::Own(ports)) => write!(f, " to {ports}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last {
            return first.fmt(f);
        }
        write!(f, "{first}-{last}")
    }
}

impl fmt::Display for HostBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written } = self;
        write!(f, "{written} has host bits: taken as {}", written.trunc())?;
        if written.prefix_len() == 0 {
            f.write_str(
                ", every address; only a literal 0.0.0.0/0 in --allow also ends the isolation \
                 from other VMs",
            )?;
        }
        Ok(())
    }
}

fn name_of<T: PartialEq>(it: &T, words: &[(&'static str, T)]) -> &'static str {
    let found = words.iter().find(|(_, meaning)| meaning == it);
    found.map_or("", |(word, _)| word)
}

const DIRECTIONS: [(&str, Direction); 2] =
    [("in", Direction::Inbound), ("out", Direction::Outbound)];

const PROTOCOLS: [(&str, Protocol); 3] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("icmp", Protocol::Icmp),
];

const ALIASES: [(&str, Target); 4] = [
    ("@host", Target::Host),
    ("@dns", Target::Dns),
    ("@private", Target::Private),
    ("@metadata", Target::Metadata),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        text.parse::<Rule>().unwrap().to_string()
    }

    fn refusal(text: &str) -> Reason {
        text.parse::<Rule>().unwrap_err().reason
    }

    #[test]
    fn the_normal_form_is_the_shortest_way_to_write_a_rule() {
        for (written, expected) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("@host", "@host"),
            ("@host:22-22", "@host:22"),
            ("1.2.3.4/32:8000-8099", "1.2.3.4/32:8000-8099"),
            ("1.2.3.4:443", "1.2.3.4/32:443"),
            ("in  @host", "in @host"),
            ("out 0.0.0.0/0:0443", "out 0.0.0.0/0:443"),
            ("in tcp @host to 22", "in tcp @host to 22"),
            ("in @dns  to  5353", "in @dns to 5353"),
            ("out  udp  @private:53", "out udp @private:53"),
            ("icmp @metadata", "icmp @metadata"),
        ] {
            assert_eq!(normal(written), expected);
            assert_eq!(normal(expected), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        use Reason::{Alias, Blanks, IcmpPorts, Ipv6, Name, Network, OwnPorts};
        for (text, reason) in [
            ("", Network),
            ("in", Network),
            ("in ", Blanks),
            (" @host", Blanks),
            ("@host ", Blanks),
            ("in\t10.0.0.0/8", Blanks),
            ("in out @host", Network),
            ("IN @host", Network),
            ("tcp in @host", Network),
            ("@vpn", Alias),
            ("@host/32", Alias),
            ("::/0", Ipv6),
            ("fe80::1", Ipv6),
            ("2001:db8::/32", Ipv6),
            ("1.2.3.4:5:6", Ipv6),
            ("github.com", Name),
            ("github.com:443", Name),
            ("out a.b", Name),
            ("10.0.0.0/33", Network),
            ("10.0.0/8", Network),
            ("10.0.0.0/8/8", Network),
            ("01.2.3.4", Network),
            ("@host 22", Network),
            ("@host to 22", OwnPorts),
            ("out @host to 22", OwnPorts),
            ("in @host:22 to 22", OwnPorts),
            ("icmp @host:22", IcmpPorts),
            ("in icmp @host to 22", IcmpPorts),
        ] {
            assert_eq!(refusal(text), reason, "{text:?}");
        }
        for ports in ["", "0", "65536", "+1", "2-1", "1-", "-1", "1-2-3", "http"] {
            let text = format!("@host:{ports}");
            assert_eq!(refusal(&text), Reason::Ports, "{text:?}");
        }
    }

    #[test]
    fn an_error_is_one_line_with_the_text_in_it() {
        let error = "\u{1b}[1m\n".parse::<Rule>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"\\u{1b}[1m\\n\": separate words by one space, and put none at either end"
        );
    }
}
