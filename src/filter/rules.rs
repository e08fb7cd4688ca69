//! The rules that frames are judged by. They may change while frames flow.
//!
//! ```text
//!   policy, gateway, mode, isolation            compiled
//!   the VM's network, the host's addresses ----------------> Snapshot
//!            ^                                                  | looked for by `begin`
//!            | main thread; inbound, when it                    v once a batch
//!            | learns the network                       View of each filter
//!          Rules
//! ```
//!
//! A snapshot never changes; it is replaced as a whole by another. So no frame is judged by a
//! mixture of two, and replacing the rules never waits for a filter, nor a filter for that.

use std::mem;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Cache};
use ipnet::Ipv4Net;

use super::policy::{Compiled, Mode, Policy, Surroundings};
use super::{Config, NameServers};

/// The handle of one VM's rules. What is set here applies from each filter's next batch on.
#[derive(Debug)]
pub struct Rules {
    current: Arc<ArcSwap<Snapshot>>,
    sources: Mutex<Sources>,
}

/// What a snapshot is compiled from.
#[derive(Debug)]
struct Sources {
    /// How often they have been changed.
    number: u32,
    policy: Policy,
    surroundings: Surroundings,
}

/// Compiled rules, which never change.
pub(super) type Snapshot = Compiled;

/// The snapshot by which one filter judges its batch.
#[derive(Debug)]
pub(super) struct View {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    snapshot: Arc<Snapshot>,
}

impl Rules {
    pub(super) fn new(config: &Config<'_>) -> Self {
        let sources = Sources {
            number: 0,
            policy: config.policy.clone(),
            surroundings: Surroundings {
                gateway: config.gateway,
                mode: config.mode,
                isolation: config.isolation || config.mode == Mode::Host,
                subnet: config.subnet,
                host: Vec::new(),
                name_servers: NameServers::new(),
            },
        };
        Self {
            current: Arc::new(ArcSwap::from_pointee(sources.compile())),
            sources: Mutex::new(sources),
        }
    }

    /// Replaces the policy, and returns whether the new one differs. Isolation does not change: the
    /// interface was opened with or without it.
    pub fn set_policy(&self, policy: Policy) -> bool {
        let mut sources = self.sources();
        let differs = sources.policy.normal_form() != policy.normal_form();
        if differs {
            sources.policy = policy;
            self.replace(&mut sources);
        }
        differs
    }

    /// The policy, and how many different rules it has once it is compiled.
    #[must_use]
    pub fn policy(&self) -> (Policy, usize) {
        // Under the lock, so that the count belongs to this policy.
        let sources = self.sources();
        (sources.policy.clone(), self.current.load().rule_count)
    }

    /// Sets the addresses that this host answers to; the gateway's may be among them or not. They
    /// accept only TCP, UDP and ICMP, and nothing while the policy blocks `@host`. Only the first
    /// [`HOST_ADDRESSES_MAX`] count.
    pub fn set_host_addresses(&self, mut addresses: Vec<Ipv4Addr>) {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(HOST_ADDRESSES_MAX);
        let mut sources = self.sources();
        let before = mem::replace(&mut sources.surroundings.host, addresses);
        if before != sources.surroundings.host {
            self.replace(&mut sources);
        }
    }

    /// Sets the VM's network. For the inbound filter, which learns it with the first lease if the
    /// system did not give it.
    pub(super) fn set_subnet(&self, subnet: Ipv4Net) {
        let mut sources = self.sources();
        sources.surroundings.subnet = Some(subnet);
        self.replace(&mut sources);
    }

    /// Sets the name servers of the lease. For the inbound filter.
    pub(super) fn set_name_servers(&self, servers: &NameServers) {
        let mut sources = self.sources();
        if sources.surroundings.name_servers != *servers {
            sources.surroundings.name_servers.clone_from(servers);
            // A connection to a name server may have been open for that alone.
            if sources.policy.names_dns() || sources.policy.is_stateful() {
                self.replace(&mut sources);
            }
        }
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

    /// Under the lock of the sources, so that the last snapshot contains everything that was set.
    fn replace(&self, sources: &mut Sources) {
        sources.number = sources.number.wrapping_add(1);
        self.current.store(Arc::new(sources.compile()));
    }
}

impl Sources {
    fn compile(&self) -> Snapshot {
        self.policy.compile(&self.surroundings, self.number)
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

    /// The snapshot that holds for the whole batch.
    #[inline]
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// How many of the host's addresses count. Together with the rules they must not make more ranges
/// than the table can hold, which is 65535 (prefix.rs).
pub const HOST_ADDRESSES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::prefix::Destination;
    use crate::wire::Mac;

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
        view.snapshot()
            .outbound
            .table
            .get(u32::from_be_bytes(address))
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
        rules.set_subnet("192.168.64.0/24".parse().unwrap());
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
