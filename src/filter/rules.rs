//! The rules that frames are judged by, and the roles of the stations on the VM's network. Both may
//! change while frames flow.
//!
//! ```text
//!   policy, roles, the host's addresses  -- compiled -->  Snapshot: rules and roles
//!            ^                                                | looked for by `begin`
//!            | main thread; inbound, when it                  v once a batch
//!            | learns from a grant                         View of each filter
//!          Rules
//! ```
//!
//! A snapshot never changes; it is replaced as a whole by another. So no frame is judged by a
//! mixture of two, and replacing a snapshot never waits for a filter, nor a filter for that.

use std::convert::Infallible;
use std::mem;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Cache};

use super::Config;
use super::denied::Row as DeniedRow;
use super::facts::Facts;
use super::policy::{Compiled, Policy, Rule, Surroundings};
use super::prefix::Destination;
use super::roles::{NameServers, Roles};
use super::subnet::Subnet;
use super::verdict::DropReason;
use crate::direction::Direction;
use crate::wire::Mac;

/// The handle of one VM's rules and roles. What is set here applies from each filter's next batch
/// on.
#[derive(Debug)]
pub struct Rules {
    current: Arc<ArcSwap<Snapshot>>,
    sources: Mutex<Sources>,
}

/// What rules are compiled from, beside the roles.
#[derive(Debug)]
struct Sources {
    /// How often they have been compiled.
    number: u32,
    policy: Policy,
    /// The addresses that this host answers to.
    host: Vec<Ipv4Addr>,
}

/// The rules and the roles as they are from one moment to the next change.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) rules: Arc<Compiled>,
    pub(super) roles: Roles,
}

/// The snapshot by which one filter judges its batch.
#[derive(Debug)]
pub(super) struct View {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    snapshot: Arc<Snapshot>,
}

/// What the server that grants a lease says about the network.
#[derive(Debug)]
pub(super) struct Learned {
    /// The server's MAC address, if it is the gateway's and to be trusted.
    pub(super) gateway_mac: Option<Mac>,
    /// The network, if its mask is plausible.
    pub(super) subnet: Option<Subnet>,
    pub(super) name_servers: NameServers,
}

impl Rules {
    pub(super) fn new(config: &Config<'_>) -> Self {
        let mut sources = Sources {
            number: 0,
            policy: config.policy.clone(),
            host: Vec::new(),
        };
        let snapshot = sources.compile(Roles::new(config));
        Self {
            current: Arc::new(ArcSwap::from_pointee(snapshot)),
            sources: Mutex::new(sources),
        }
    }

    /// Replaces the policy, and returns whether the new one differs. Isolation does not change: the
    /// interface was opened with or without it.
    pub fn set_policy(&self, policy: Policy) -> bool {
        self.change_policy(|_| Ok::<_, Infallible>(policy)) == Ok(true)
    }

    /// Replaces the policy by what `change` makes of it, and returns whether that differs. No other
    /// change comes between the two.
    ///
    /// # Errors
    /// That of `change`, and then nothing changes.
    pub fn change_policy<E>(
        &self,
        change: impl FnOnce(&Policy) -> Result<Policy, E>,
    ) -> Result<bool, E> {
        let mut sources = self.sources();
        let policy = change(&sources.policy)?;
        let differs = sources.policy.normal_form() != policy.normal_form();
        if differs {
            sources.policy = policy;
            self.compile(&mut sources);
        }
        Ok(differs)
    }

    /// For each row the rule that would allow its packets, if one more rule can: not against
    /// isolation or host-only mode, nor against a rule as narrow that blocks.
    #[must_use]
    pub fn rules_that_allow(&self, rows: &[DeniedRow]) -> Vec<Option<Rule>> {
        let sources = self.sources();
        let snapshot = self.current.load();
        let around = sources.around(&snapshot.roles);
        let rule = |row: &DeniedRow| {
            let peer = row.reason.is_audited().then(|| row.peer())?;
            let opening = sources.policy.opening(&around, row.way, &peer);
            opening.filter(|_| row.reason != DropReason::Untracked)
        };
        rows.iter().map(rule).collect()
    }

    /// The policy, and how many different rules it has once it is compiled.
    #[must_use]
    pub fn policy(&self) -> (Policy, usize) {
        // Under the lock, so that the count belongs to this policy.
        let sources = self.sources();
        (sources.policy.clone(), self.current.load().rules.rule_count)
    }

    /// Sets the addresses that this host answers to; the gateway's may be among them or not. They
    /// accept only TCP, UDP and ICMP, and nothing while the policy blocks `@host`. Only the first
    /// [`HOST_ADDRESSES_MAX`] count.
    pub fn set_host_addresses(&self, mut addresses: Vec<Ipv4Addr>) {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(HOST_ADDRESSES_MAX);
        let mut sources = self.sources();
        let before = mem::replace(&mut sources.host, addresses);
        if before != sources.host {
            self.compile(&mut sources);
        }
    }

    /// Sets the gateway's current MAC address. For a caller that can ask the system, when a bridge
    /// has been recreated or has taken another port's address.
    pub fn set_gateway_mac(&self, mac: Mac) {
        self.change_roles(|roles| roles.gateway.set_mac(mac));
    }

    /// The gateway's MAC address, once it is known.
    #[must_use]
    pub fn gateway_mac(&self) -> Option<Mac> {
        self.current.load().roles.gateway.mac()
    }

    /// The DHCP server's address, and its MAC address once that is known.
    #[must_use]
    pub fn dhcp_server(&self) -> (Ipv4Addr, Option<Mac>) {
        let server = self.current.load().roles.dhcp_server();
        (server.address.into(), server.mac())
    }

    /// The name servers that came with the last lease.
    #[must_use]
    pub fn name_servers(&self) -> NameServers {
        self.current.load().roles.name_servers.clone()
    }

    /// Remembers what a grant says. For the inbound filter. A network that the system named, or an
    /// earlier grant, stays.
    pub(super) fn learn(&self, learned: &Learned) {
        self.change_roles(|roles| {
            if let Some(mac) = learned.gateway_mac {
                roles.gateway.set_mac(mac);
            }
            roles.subnet = roles.subnet.or(learned.subnet);
            roles.name_servers.clone_from(&learned.name_servers);
        });
    }

    fn change_roles(&self, change: impl FnOnce(&mut Roles)) {
        // Under the lock of the sources, as every change is, so that none is lost.
        let mut sources = self.sources();
        let before = self.current.load();
        let mut roles = before.roles.clone();
        change(&mut roles);
        if roles == before.roles {
            return;
        }
        // A connection to a name server may have been open for that alone.
        let may_name_servers = sources.policy.names_dns() || sources.policy.is_stateful();
        let is_about_rules = roles.subnet != before.roles.subnet
            || may_name_servers && roles.name_servers != before.roles.name_servers;
        let next = if is_about_rules {
            sources.compile(roles)
        } else {
            let rules = Arc::clone(&before.rules);
            Snapshot { rules, roles }
        };
        self.current.store(Arc::new(next));
    }

    pub(super) fn view(&self) -> View {
        View {
            cache: Cache::new(Arc::clone(&self.current)),
            snapshot: self.current.load_full(),
        }
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, sources: &mut Sources) {
        let next = sources.compile(self.current.load().roles.clone());
        self.current.store(Arc::new(next));
    }
}

impl Sources {
    fn around<'a>(&'a self, roles: &'a Roles) -> Surroundings<'a> {
        Surroundings {
            roles,
            host: &self.host,
        }
    }

    fn compile(&mut self, roles: Roles) -> Snapshot {
        let around = self.around(&roles);
        let rules = Arc::new(self.policy.compile(&around, self.number));
        self.number = self.number.wrapping_add(1);
        Snapshot { rules, roles }
    }
}

impl View {
    /// Takes the latest snapshot. This is one load if it is still the same.
    #[inline]
    pub(super) fn refresh(&mut self) {
        let latest = self.cache.load();
        if !Arc::ptr_eq(latest, &self.snapshot) {
            self.snapshot = Arc::clone(latest);
        }
    }

    /// The rules that hold for the whole batch.
    #[inline]
    pub(super) fn rules(&self) -> &Compiled {
        &self.snapshot.rules
    }

    /// What the rules say about a packet in this direction between the VM and its peer: outbound
    /// with the exception for the lease's name servers. Without rules for a direction, whatever
    /// comes to the VM passes.
    pub(super) fn verdict(&self, facts: &Facts, way: Direction) -> Destination {
        let (rules, peer) = (self.rules(), facts.peer);
        match (way, &rules.inbound) {
            (Direction::Outbound, _) => {
                let verdict = (rules.outbound).verdict_for_packet(peer, facts.kind, facts.ports);
                (self.roles()).allow_name_server(verdict, peer, facts.is_dns)
            }
            (Direction::Inbound, Some(inbound)) => {
                inbound.verdict_for_packet(peer, facts.kind, facts.ports)
            }
            (Direction::Inbound, None) => Destination::Pass,
        }
    }

    /// The roles that hold for the whole batch.
    #[inline]
    pub(super) fn roles(&self) -> &Roles {
        &self.snapshot.roles
    }
}

/// How many of the host's addresses count. Together with the rules they must not make more ranges
/// than the table can hold, which is 65535 (prefix.rs).
pub const HOST_ADDRESSES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::policy::Mode;

    fn rules(allow: &str, block: &str) -> Rules {
        let (policy, _) = Policy::parse(allow, block).unwrap();
        Rules::new(&Config {
            vm_mac: Mac([0x52, 0x54, 0, 0, 0, 2]),
            gateway: Ipv4Addr::new(192, 168, 64, 1),
            gateway_mac: None,
            subnet: None,
            mode: Mode::Nat,
            isolation: true,
            max_frame: 1514,
            policy: &policy,
            connection_rate: 0,
            names: crate::filter::Names::default(),
        })
    }

    fn says(view: &View, address: [u8; 4]) -> Destination {
        view.rules().outbound.table.get(u32::from_be_bytes(address))
    }

    #[test]
    fn a_view_keeps_its_snapshot_until_it_looks_again() {
        let rules = rules("", "");
        let mut view = rules.view();
        rules.set_policy(Policy::parse("", "1.2.3.4/32").unwrap().0);
        assert_eq!(says(&view, [1, 2, 3, 4]), Destination::Pass);
        view.refresh();
        assert_eq!(says(&view, [1, 2, 3, 4]), Destination::Blocked);
        rules.set_policy(Policy::default());
        view.refresh();
        assert_eq!(says(&view, [1, 2, 3, 4]), Destination::Pass);
    }

    #[test]
    fn what_was_set_apart_counts_together() {
        let rules = rules("192.168.0.0/16", "");
        let mut view = rules.view();
        rules.set_host_addresses(vec![Ipv4Addr::new(4, 4, 4, 4)]);
        rules.learn(&Learned {
            gateway_mac: None,
            subnet: Subnet::of(0xc0a8_4001, 0xffff_ff00),
            name_servers: NameServers::new(),
        });
        rules.set_policy(Policy::parse("192.168.0.0/16", "@host").unwrap().0);
        view.refresh();
        assert_eq!(says(&view, [192, 168, 63, 2]), Destination::Pass);
        assert_eq!(says(&view, [192, 168, 64, 2]), Destination::Isolation);
        assert_eq!(says(&view, [192, 168, 64, 1]), Destination::Blocked);
        assert_eq!(says(&view, [4, 4, 4, 4]), Destination::Blocked);
    }

    #[test]
    fn addresses_that_are_the_same_compile_nothing() {
        let aware = rules("", "@host");
        let mut view = aware.view();
        let addresses = [[4, 4, 4, 4], [5, 5, 5, 5], [4, 4, 4, 4]].map(Ipv4Addr::from);
        aware.set_host_addresses(addresses.to_vec());
        view.refresh();
        let before = Arc::clone(&view.snapshot);
        aware.set_host_addresses(vec![addresses[1], addresses[0]]);
        view.refresh();
        assert!(Arc::ptr_eq(&before, &view.snapshot));
    }

    #[test]
    fn as_many_addresses_as_count_fit_beside_as_many_rules_as_are_accepted() {
        let block: Vec<String> = (0..4095_u32)
            .map(|index| format!("{}/32", Ipv4Addr::from(0x0100_0000 + 2 * index)))
            .collect();
        let rules = rules("", &format!("@host,{}", block.join(",")));
        let address = |index: u32| Ipv4Addr::from(0x0200_0000 + 2 * index);
        rules.set_host_addresses((0..20_000).map(address).collect());
        let view = rules.view();
        let last = u32::try_from(HOST_ADDRESSES_MAX).unwrap() - 1;
        assert_eq!(says(&view, address(last).octets()), Destination::Blocked);
        assert_eq!(says(&view, address(last + 1).octets()), Destination::Pass);
    }
}
