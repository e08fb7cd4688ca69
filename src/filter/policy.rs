//! Which destinations the VM may reach: the rules as the user wrote them, and what holds
//! where no rule speaks.
//!
//! In order of weight: a rule (the longest prefix wins, and on the same prefix block wins);
//! the gateway; the host's other addresses, which are refused if `@host` is; the ranges that
//! IANA keeps for special purposes and the clouds' metadata services, which are refused; the
//! rest of the internet, which passes. Isolation refuses the VM's own network, whatever wider
//! rules say. All of it is compiled into one table (prefix.rs), anew when any of it changes
//! (rules.rs).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use thiserror::Error;

use super::prefix::{Destination, Entry, PrefixTable};

/// What the interface connects the VM to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The gateway, and the networks behind it.
    #[default]
    Nat,
    /// The gateway alone; no rule can allow more.
    Host,
}

/// The rules of one VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    allow: Vec<Target>,
    block: Vec<Target>,
    /// Whether 0.0.0.0/0 is allowed, and was written like that.
    isolation_off: bool,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// All addresses of a prefix, without host bits.
    Net(Ipv4Net),
    /// `@host`: the gateway, whose address is known only once the interface is open.
    Host,
}

/// What the rules of a VM apply to, beside the internet.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) gateway: Ipv4Addr,
    pub(super) mode: Mode,
    /// Whether neighbours are kept from each other.
    pub(super) isolation: bool,
    /// The VM's network, once it is known.
    pub(super) subnet: Option<Ipv4Net>,
    /// What the host answers to.
    pub(super) host: Vec<Ipv4Addr>,
}

/// A prefix that was written with host bits, which were cleared: worth a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostBits {
    /// What was written, as in `10.1.2.3/8`.
    pub written: Ipv4Net,
}

/// Why a rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// IPv6 never passes, so that a rule for it would promise what is not kept.
    #[error("{0}: rules are for IPv4 only, IPv6 is never forwarded")]
    Ipv6(String),
    /// Only `@host` stands for something.
    #[error("{0}: unknown alias, the only one is @host")]
    UnknownAlias(String),
    /// Neither a prefix nor an alias.
    #[error("{0:?}: neither an IPv4 network, as in 10.0.0.0/8, nor an IPv4 address")]
    NotANetwork(String),
    /// Allowed and blocked ones are counted together.
    #[error("{0} targets, of which at most {TARGETS_MAX} are accepted")]
    TooManyTargets(usize),
}

impl Policy {
    /// Puts rules together.
    ///
    /// # Errors
    /// When there are more than [`TARGETS_MAX`].
    pub fn new(allow: Vec<Target>, block: Vec<Target>) -> Result<Self, PolicyError> {
        let policy = Self {
            isolation_off: allow.contains(&Target::Net(Ipv4Net::default())),
            allow,
            block,
        };
        match policy.rule_count() {
            count if count > TARGETS_MAX => Err(PolicyError::TooManyTargets(count)),
            _ => Ok(policy),
        }
    }

    /// Reads the comma-separated lists of `--allow` and `--block`; an empty list has no
    /// rules. Returns beside the policy what in it deserves a warning.
    ///
    /// # Errors
    /// The first target that cannot be read, or more than [`TARGETS_MAX`] of them.
    pub fn parse(allow: &str, block: &str) -> Result<(Self, Vec<HostBits>), PolicyError> {
        let mut warnings = Vec::new();
        let mut targets = |list: &str| -> Result<Vec<Target>, PolicyError> {
            let written = list
                .split(',')
                .map(str::trim)
                .filter(|_| !list.trim().is_empty());
            written
                .map(|text| {
                    let (target, warning) = Target::parse(text)?;
                    warnings.extend(warning);
                    Ok(target)
                })
                .collect()
        };
        // What only comes to the same, as 0.0.0.1/0 does, is a slip rather than a wish.
        let isolation_off = allow.split(',').any(|text| text.trim() == "0.0.0.0/0");
        let (allow, block) = (targets(allow)?, targets(block)?);
        let policy = Self {
            isolation_off,
            ..Self::new(allow, block)?
        };
        Ok((policy, warnings))
    }

    /// What may be reached, in the order written.
    #[must_use]
    pub fn allowed(&self) -> &[Target] {
        &self.allow
    }

    /// What may not be reached, in the order written.
    #[must_use]
    pub fn blocked(&self) -> &[Target] {
        &self.block
    }

    /// How many targets there are, allowed and blocked.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.allow.len() + self.block.len()
    }

    /// Whether `--allow 0.0.0.0/0`, as such, asks to reach other VMs too, for which the
    /// interface's isolation must be off; blocking the same prefix does not take that back. A
    /// prefix that only comes to the same, such as 10.0.0.0/0, does not ask for it.
    #[must_use]
    pub const fn wants_isolation_off(&self) -> bool {
        self.isolation_off
    }

    /// Whether the VM may send the gateway more than TCP, UDP and ICMP: a prefix that holds its
    /// address says so. `@host` does not, which people write to except the gateway from what
    /// they block.
    pub(super) fn opens_protocols_of(&self, gateway: Ipv4Addr) -> bool {
        let holds = |target: &Target| match target {
            Target::Net(prefix) => prefix.contains(&gateway),
            Target::Host => false,
        };
        self.allow.iter().any(holds)
    }

    /// Whether `--block` names `@host`, which closes the host's other addresses too.
    pub(super) fn blocks_host(&self) -> bool {
        self.block.contains(&Target::Host)
    }

    /// The table for a VM in these surroundings.
    pub(super) fn compile(&self, around: &Surroundings) -> PrefixTable {
        let mut entries = self.entries(around);
        // As the rules have it: neither isolation nor host-only mode changes that.
        let gateway = Entry {
            prefix: around.gateway.into(),
            weight: u16::MAX,
            destination: speaker_for(around.gateway, &entries),
        };
        if around.mode == Mode::Host {
            return PrefixTable::new(vec![gateway], Destination::HostOnly);
        }
        if let Some(subnet) = around.subnet.filter(|_| around.isolation) {
            entries.extend([self.neighbours(subnet), gateway]);
        }
        PrefixTable::new(entries, Destination::Pass)
    }

    /// All but isolation.
    fn entries(&self, around: &Surroundings) -> Vec<Entry> {
        let mut entries: Vec<Entry> = SPECIAL_PURPOSE
            .iter()
            .map(|(network, len, destination)| built_in(net(*network, *len), *destination))
            .collect();
        let metadata = METADATA.map(|address| built_in(net(address, 32), Destination::Metadata));
        entries.extend(metadata);
        // These weigh like rules, so that allowing 0.0.0.0/0 does not open the host's loopback.
        entries.extend(NEVER_SENT.map(|byte| rule(net([byte, 0, 0, 0], 8), Destination::Local)));
        if self.blocks_host() {
            let host = around.host.iter().map(|address| Ipv4Net::from(*address));
            entries.extend(host.map(|address| built_in(address, Destination::Blocked)));
        }
        entries.push(built_in(around.gateway.into(), Destination::Pass));
        for (targets, destination) in [
            (&self.allow, Destination::Pass),
            (&self.block, Destination::Blocked),
        ] {
            entries.extend(targets.iter().map(|target| match target {
                Target::Net(prefix) => rule(*prefix, destination),
                Target::Host => rule(around.gateway.into(), destination),
            }));
        }
        entries
    }

    /// What keeps the VM from its neighbours. A rule for a wider range speaks of the world
    /// outside, and does not open them; but it can close what isolation leaves open, the name
    /// servers. A rule that lies within the network does name them.
    fn neighbours(&self, subnet: Ipv4Net) -> Entry {
        let longest_around = |targets: &[Target]| {
            let prefixes = targets.iter().filter_map(|target| match target {
                Target::Net(prefix) => Some(*prefix),
                Target::Host => None,
            });
            prefixes
                .filter(|prefix| *prefix != subnet && prefix.contains(&subnet))
                .map(|prefix| prefix.prefix_len())
                .max()
        };
        let blocked = longest_around(&self.block);
        let is_blocked = blocked.is_some() && blocked >= longest_around(&self.allow);
        Entry {
            prefix: subnet,
            weight: weight_of_rule(subnet.prefix_len()) - 1,
            destination: if is_blocked {
                Destination::Blocked
            } else {
                Destination::Isolation
            },
        }
    }
}

impl Target {
    /// Reads `10.0.0.0/8`, `10.0.0.1`, which is a /32, or `@host`, and says when host bits had to
    /// be cleared.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<(Self, Option<HostBits>), PolicyError> {
        if text.starts_with('@') {
            return match text {
                "@host" => Ok((Self::Host, None)),
                _ => Err(PolicyError::UnknownAlias(text.into())),
            };
        }
        if text.contains(':') {
            return Err(PolicyError::Ipv6(text.into()));
        }
        let written: Ipv4Net = text
            .parse()
            .or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from))
            .map_err(|_| PolicyError::NotANetwork(text.into()))?;
        let prefix = written.trunc();
        Ok((
            Self::Net(prefix),
            (prefix != written).then_some(HostBits { written }),
        ))
    }
}

impl FromStr for Target {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::parse(text).map(|(target, _)| target)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(prefix) => prefix.fmt(f),
            Self::Host => f.write_str("@host"),
        }
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

/// How many targets a policy may have.
pub const TARGETS_MAX: usize = 4096;

fn built_in(prefix: Ipv4Net, destination: Destination) -> Entry {
    Entry {
        prefix,
        weight: u16::from(prefix.prefix_len()),
        destination,
    }
}

fn rule(prefix: Ipv4Net, destination: Destination) -> Entry {
    Entry {
        prefix,
        weight: weight_of_rule(prefix.prefix_len()),
        destination,
    }
}

/// More than all that is built in, with room between two lengths for isolation.
fn weight_of_rule(prefix_len: u8) -> u16 {
    64 + 2 * u16::from(prefix_len)
}

/// What a table of these entries would say about one address.
fn speaker_for(address: Ipv4Addr, entries: &[Entry]) -> Destination {
    let about = entries.iter().filter(|it| it.prefix.contains(&address));
    about
        .max_by_key(|entry| entry.weight)
        .map_or(Destination::Pass, |entry| entry.destination)
}

fn net([a, b, c, d]: [u8; 4], len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len)
}

/// The ranges that are not for the public internet: RFC 6890 as of IANA's registry, and
/// multicast (RFC 5771). Those that the registry has as globally reachable are missing here
/// (192.31.196.0/24, 192.52.193.0/24, 192.175.48.0/24), except for the two addresses
/// 192.0.0.9 and 192.0.0.10 that lie within a range that is not.
const SPECIAL_PURPOSE: [([u8; 4], u8, Destination); 14] = [
    ([10, 0, 0, 0], 8, Destination::Private),       // RFC 1918
    ([172, 16, 0, 0], 12, Destination::Private),    // RFC 1918
    ([192, 168, 0, 0], 16, Destination::Private),   // RFC 1918
    ([100, 64, 0, 0], 10, Destination::Private),    // RFC 6598, behind a provider's NAT
    ([169, 254, 0, 0], 16, Destination::LinkLocal), // RFC 3927
    ([192, 0, 0, 0], 24, Destination::Special),     // RFC 6890, protocol assignments
    ([192, 0, 2, 0], 24, Destination::Special),     // RFC 5737, documentation
    ([198, 51, 100, 0], 24, Destination::Special),  // RFC 5737
    ([203, 0, 113, 0], 24, Destination::Special),   // RFC 5737
    ([192, 88, 99, 0], 24, Destination::Special),   // RFC 7526, 6to4 relays, withdrawn
    ([198, 18, 0, 0], 15, Destination::Special),    // RFC 2544, benchmarks
    ([224, 0, 0, 0], 4, Destination::Multicast),    // RFC 5771
    ([240, 0, 0, 0], 4, Destination::Reserved),     // RFC 1112
    ([255, 255, 255, 255], 32, Destination::Broadcast), // RFC 919
];

/// Public addresses at which a cloud answers its machines, with their credentials among other
/// things, and with what it takes to get those: a VM on such a machine would be taken for it.
/// Other clouds have theirs in ranges that are closed anyway: 169.254/16, Alibaba and Tencent
/// in 100.64/10, Oracle in 192.0.0/24 too.
const METADATA: [[u8; 4]; 2] = [
    // WireServer, "a virtual public IP address" that is the same in all of Azure, and a name
    // server: learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16.
    [168, 63, 129, 16],
    // Equinix Metal, once Packet: metadata.platformequinix.com. The address stands in what
    // keeps pods from it (equinix-labs/pulumi-equinix-kubernetes-cluster,
    // nodejs/cloud-init/scripts/net-deny-metadata.sh).
    [192, 80, 8, 124],
];

/// First bytes of what no host may send to: "this network" and loopback (RFC 1122, 3.2.1.3).
const NEVER_SENT: [u8; 2] = [0, 127];

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 1);

    fn parse(allow: &str, block: &str) -> Policy {
        Policy::parse(allow, block).unwrap().0
    }

    fn around(mode: Mode) -> Surroundings {
        Surroundings {
            gateway: GATEWAY,
            mode,
            isolation: true,
            subnet: Some("192.168.64.0/24".parse().unwrap()),
            host: vec![Ipv4Addr::new(4, 4, 4, 4), Ipv4Addr::new(10, 0, 0, 5)],
        }
    }

    /// What the rules make of an address.
    fn says(allow: &str, block: &str, address: &str) -> Destination {
        let address: Ipv4Addr = address.parse().unwrap();
        let table = parse(allow, block).compile(&around(Mode::Nat));
        table.get(address.into())
    }

    fn refusal(list: &str) -> String {
        Policy::parse(list, "").unwrap_err().to_string()
    }

    #[test]
    fn lists_are_read_in_the_order_written() {
        let policy = parse("10.0.0.0/8, @host,1.2.3.4/32", "0.0.0.0/0");
        let written: Vec<_> = policy.allowed().iter().map(Target::to_string).collect();
        assert_eq!(written, ["10.0.0.0/8", "@host", "1.2.3.4/32"]);
        assert_eq!(policy.blocked(), [Target::Net(Ipv4Net::default())]);
        assert_eq!(policy.rule_count(), 4);
        assert_eq!(parse("", " "), Policy::default());
    }

    #[test]
    fn host_bits_are_cleared_with_a_warning() {
        let (policy, warnings) = Policy::parse("10.1.2.3/8,10.0.0.0/8", "").unwrap();
        assert_eq!(policy, parse("10.0.0.0/8,10.0.0.0/8", ""));
        let [warning] = &warnings[..] else {
            panic!("{warnings:?}")
        };
        assert_eq!(
            warning.to_string(),
            "10.1.2.3/8 has host bits: taken as 10.0.0.0/8"
        );
    }

    #[test]
    fn host_bits_that_come_to_everything_say_what_that_means() {
        let (policy, warnings) = Policy::parse("0.0.0.1/0", "").unwrap();
        assert_eq!(policy.allowed(), [Target::Net(Ipv4Net::default())]);
        assert_eq!(
            warnings[0].to_string(),
            "0.0.0.1/0 has host bits: taken as 0.0.0.0/0, every address; only a literal 0.0.0.0/0 \
             in --allow also ends the isolation from other VMs"
        );
    }

    #[test]
    fn an_address_alone_is_a_prefix_of_32_bits() {
        assert_eq!(
            parse("1.2.3.4", "0.0.0.0"),
            parse("1.2.3.4/32", "0.0.0.0/32")
        );
        let (_, warnings) = Policy::parse("1.2.3.4", "").unwrap();
        assert_eq!(warnings, []);
        assert_eq!(
            "1.2.3.4".parse::<Target>().unwrap().to_string(),
            "1.2.3.4/32"
        );
    }

    #[test]
    fn what_is_no_rule_is_refused_in_one_line() {
        assert_eq!(
            refusal("@vpn"),
            "@vpn: unknown alias, the only one is @host"
        );
        for ipv6 in ["::/0", "fe80::1", "2001:db8::/32"] {
            let expected = format!("{ipv6}: rules are for IPv4 only, IPv6 is never forwarded");
            assert_eq!(refusal(ipv6), expected);
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "host",
            "1.2.3.4/",
            "1.2.3",
            "01.2.3.4",
        ] {
            let list = format!("@host,{text}");
            let expected =
                format!("{text:?}: neither an IPv4 network, as in 10.0.0.0/8, nor an IPv4 address");
            assert_eq!(refusal(&list), expected);
        }
    }

    #[test]
    fn at_most_4096_targets_are_accepted() {
        let list = vec!["@host"; 4095].join(",");
        assert_eq!(parse(&list, "@host").rule_count(), 4096);
        let error = Policy::parse(&list, "@host,@host").unwrap_err();
        assert_eq!(
            error.to_string(),
            "4097 targets, of which at most 4096 are accepted"
        );
    }

    #[test]
    fn allowing_everything_wants_isolation_off() {
        assert!(parse("0.0.0.0/0", "0.0.0.0/0").wants_isolation_off());
        assert!(parse("@host,1.2.3.4/0,0.0.0.0/0", "").wants_isolation_off());
        assert!(!parse("@host,1.2.3.4/0", "").wants_isolation_off());
        assert!(!parse("0.0.0.1/0", "").wants_isolation_off());
        assert!(!parse("0.0.0.0", "").wants_isolation_off());
        assert!(!parse("0.0.0.0/1,128.0.0.0/1", "").wants_isolation_off());
        assert!(!parse("", "0.0.0.0/0").wants_isolation_off());
    }

    #[test]
    fn a_table_holds_as_many_rules_as_are_accepted() {
        // Each splits the range that it is in.
        let targets: Vec<_> = (0..4096_u32)
            .map(|index| Target::Net(Ipv4Net::new_assert((0x0100_0000 + index * 2).into(), 32)))
            .collect();
        let policy = Policy::new(vec![], targets).unwrap();
        let table = policy.compile(&around(Mode::Nat));
        assert_eq!(table.get(0x0100_1fff), Destination::Pass);
        assert_eq!(table.get(0x0100_1ffe), Destination::Blocked);
        assert_eq!(table.get(0x0100_2000), Destination::Pass);
    }

    #[test]
    fn host_mode_leaves_the_gateway_alone() {
        let table = parse("0.0.0.0/0", "").compile(&around(Mode::Host));
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
            // A wider rule can close, and only the longest of them counts.
            ("", "0.0.0.0/0", "192.168.64.50", Blocked),
            ("192.168.0.0/16", "0.0.0.0/0", "192.168.64.50", Isolation),
            ("0.0.0.0/1", "192.168.0.0/16", "192.168.64.50", Blocked),
            ("192.168.0.0/16", "192.168.0.0/16", "192.168.64.50", Blocked),
            ("192.168.64.50/32", "0.0.0.0/0", "192.168.64.50", Pass),
            // The gateway is as it would be without isolation.
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
        let public = Surroundings {
            gateway: Ipv4Addr::new(4, 4, 4, 1),
            subnet: Some("4.4.4.0/24".parse().unwrap()),
            ..around(Mode::Nat)
        };
        let table = Policy::default().compile(&public);
        for (address, expected) in [
            (0x0404_0400, Destination::Isolation),
            (0x0404_0401, Destination::Pass),
            (0x0404_0432, Destination::Isolation),
            (0x0404_04ff, Destination::Isolation),
            (0x0404_0500, Destination::Pass),
        ] {
            assert_eq!(table.get(address), expected, "{address:x}");
        }
        let table = parse("4.4.4.50/32", "").compile(&public);
        assert_eq!(table.get(0x0404_0432), Destination::Pass);
    }

    #[test]
    fn neighbours_of_an_open_network_are_like_others() {
        let open = Surroundings {
            isolation: false,
            ..around(Mode::Nat)
        };
        let table = parse("192.168.0.0/16", "").compile(&open);
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
}
