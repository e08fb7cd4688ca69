//! A VM in some state and network, in both forms: the two filters, and the facts of the
//! naive one.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use ipnet::Ipv4Net;
use softnet::batch::Slot;
use softnet::clock::Tick;
use softnet::filter::{
    self, Claims, Config, DropReason, Filter, Inbound, LeaseCell, Mode, Names, Outbound, Policy,
    Rules, Step, Verdict,
};
use softnet::wire::Mac;

use crate::choices::Choices;
use crate::generate::{self, INTERNET, lease};
use crate::naive::{self, Allowance, Facts, Passed};

pub(crate) struct Scene {
    pub(crate) facts: Facts,
    /// The address that the VM is granted, or would be.
    pub(crate) address: Ipv4Addr,
    /// The network, whether it is known or not.
    pub(crate) network: Ipv4Net,
    /// Most frames are DHCP.
    pub(crate) is_about_dhcp: bool,
    /// Packets that passed lately, and whether they left the VM.
    pub(crate) recent: Vec<(bool, Vec<u8>)>,
    outbound: Outbound,
    inbound: Inbound,
    lease: Arc<LeaseCell>,
    rules: Arc<Rules>,
    registry: Arc<Registry>,
}

/// What the VMs of the host have: others, and this one.
#[derive(Debug)]
struct Registry {
    taken: Vec<Ipv4Addr>,
    taken_names: Vec<String>,
    held: Mutex<Option<Ipv4Addr>>,
    name: Mutex<Option<String>>,
}

impl Claims for Registry {
    fn claim(&self, address: Ipv4Addr, bind: &mut dyn FnMut()) -> bool {
        let is_free = !self.taken.contains(&address);
        if is_free {
            bind();
            *self.held.lock().unwrap() = Some(address);
        }
        is_free
    }

    fn release_stale(&self, leased: &dyn Fn() -> Option<Ipv4Addr>) {
        let mut held = self.held.lock().unwrap();
        *held = leased().filter(|address| *held == Some(*address));
    }

    fn claim_name(&self, name: &str) -> bool {
        let is_free = !self.taken_names.iter().any(|taken| taken == name);
        if is_free {
            *self.name.lock().unwrap() = Some(name.to_owned());
        }
        is_free
    }
}

impl Scene {
    pub(crate) fn new(choices: &mut Choices<'_>) -> Result<Self, String> {
        let (gateway, network, address) = choices.pick(&NETWORKS);
        let gateway: Ipv4Addr = gateway.parse().unwrap();
        let network: Ipv4Net = network.parse().unwrap();
        let address: Ipv4Addr = address.parse().unwrap();
        let is_told = !choices.sometimes(80);
        let told_network = (!choices.sometimes(60)).then_some(network);
        let mut facts = Facts {
            vm: VM,
            gateway,
            gateway_mac: is_told.then_some(GATEWAY),
            is_gateway_mac_told: is_told,
            network: told_network,
            host_only: choices.sometimes(40),
            isolation: !choices.sometimes(100),
            max_frame: choices.pick(&[1514, 1514, 1514, 9014, 590]),
            rules: Vec::new(),
            policy: 0,
            tracked: Vec::new(),
            datagrams: Vec::new(),
            unanswered_by: HashMap::new(),
            taken: vec![Ipv4Addr::from(u32::from(network.network()) + 7)],
            taken_names: vec!["taken".to_owned()],
            host_name: "mac".to_owned(),
            strips_names: choices.sometimes(40),
            claimed_name: None,
            question: None,
            may_ask_at: 0,
            lease: None,
            offered: None,
            asked: Vec::new(),
            wishes: Vec::new(),
            answered: None,
            messages: Allowance::one_in(1, 32),
            declines: Allowance::one_in(60, 4),
            connections: Allowance::per_second(1000, 8192),
            broadcast_arp: Allowance::per_second(16, 64),
            unanswered: 0,
            host_addresses: vec![gateway, INTERNET, Ipv4Addr::new(10, 9, 8, 7)],
            now: 1000,
        };
        let (mut allow, mut block) = (Vec::new(), Vec::new());
        // Once one names a direction, connections are tracked.
        let names_directions = choices.sometimes(100);
        for _ in 0..choices.below(6) {
            let text = rule(choices, &facts, network, names_directions);
            let allows = !choices.sometimes(100);
            facts.rules.push(naive::Rule::read(&text, allows));
            if allows { &mut allow } else { &mut block }.push(text);
        }
        let (policy, _) = Policy::read(&allow, &block).unwrap();
        let config = Config {
            vm_mac: Mac(VM),
            gateway,
            gateway_mac: facts.gateway_mac.map(Mac),
            subnet: told_network,
            mode: if facts.host_only {
                Mode::Host
            } else {
                Mode::Nat
            },
            isolation: facts.isolation,
            max_frame: facts.max_frame,
            policy: &policy,
            connection_rate: filter::CONNECTION_RATE,
            names: if facts.strips_names {
                Names::Strip
            } else {
                Names::Pass {
                    host: "Mac.example.org",
                }
            },
        };
        let registry = Arc::new(Registry {
            taken: facts.taken.clone(),
            taken_names: facts.taken_names.clone(),
            held: Mutex::default(),
            name: Mutex::default(),
        });
        let claims = Arc::clone(&registry);
        let (outbound, inbound, lease, rules) = filter::pair_claiming(&config, claims);
        rules.set_host_addresses(facts.host_addresses.clone());
        let mut scene = Self {
            facts,
            address,
            network,
            recent: Vec::new(),
            is_about_dhcp: choices.sometimes(64),
            outbound,
            inbound,
            lease,
            rules,
            registry,
        };
        scene.bring_about(choices)?;
        Ok(scene)
    }

    /// A frame leaves the VM, or comes to it: the outcome, or how the two filters disagree.
    pub(crate) fn pass(&mut self, outbound: bool, frame: &[u8]) -> Result<Outcome, String> {
        let before = self.facts.clone();
        let (decided, ruling) = if outbound {
            let decided = decide(&mut self.outbound, frame, &before);
            (decided, self.facts.outbound(frame))
        } else {
            let decided = decide(&mut self.inbound, frame, &before);
            (decided, self.facts.inbound(frame))
        };
        let agree = match (&decided, &ruling) {
            (Ok(passed), Ok(Passed::As(expected))) => {
                passed.as_deref().unwrap_or(frame) == &expected[..]
            }
            (Ok(Some(passed)), Ok(Passed::Question(address))) => {
                self.facts.note_question(passed, *address)
            }
            (Ok(None), Ok(Passed::Message | Passed::Question(_))) => false,
            (Ok(Some(passed)), Ok(Passed::Message)) => {
                let asked = self.facts.answered.as_ref().filter(|_| !outbound);
                self.facts.is_rewritten_well(frame, passed, asked)
            }
            (Err(reason), Err(faults)) => faults.contains(&reason.label()),
            _ => false,
        };
        let way = if outbound { "outbound" } else { "inbound" };
        if !agree || !self.has_learned_the_same() {
            return Err(format!(
                "{way}: the filter says {decided:?} and knows {:?}; the naive one says {ruling:?} \
                 and knows {:?}; of {frame:02x?}; before there was {before:?}",
                self.lease, self.facts
            ));
        }
        if decided.is_ok() && frame.get(12..14) == Some(&[8, 0]) {
            self.recent.push((outbound, frame.to_vec()));
            self.recent.drain(..self.recent.len().saturating_sub(8));
        }
        Ok(decided.map(|_| ()).map_err(DropReason::label))
    }

    pub(crate) fn wait(&mut self, seconds: u32) {
        // The time of connections comes around after eight years without a frame.
        let is_tracking = self.facts.is_tracking();
        let seconds = if is_tracking {
            seconds.min(10_000_000)
        } else {
            seconds
        };
        self.facts.now = self.facts.now.saturating_add(seconds).min(u32::MAX - 1);
    }

    /// To the state before the first frame, by frames that pass.
    fn bring_about(&mut self, choices: &mut Choices<'_>) -> Result<(), String> {
        let how_far = choices.pick(&[2, 2, 2, 2, 2, 2, 2, 2, 1, 0, 3]);
        let time = choices.pick(&[600, 600, 600, u32::MAX, u32::MAX - 1, 1, 600, 0]);
        let servers: Vec<Ipv4Addr> = (0..choices.below(6))
            .map(|_| generate::name_server(choices, self))
            .collect();
        if how_far >= 1 {
            self.discover()?;
        }
        if how_far >= 2 {
            self.select(time, &servers)?;
        }
        if how_far >= 3 {
            self.wait(time);
        }
        Ok(())
    }

    /// From now on the VM has its address for ever.
    pub(crate) fn lease_for_ever(&mut self) -> Result<(), String> {
        self.discover()?;
        self.select(u32::MAX, &[])
    }

    fn discover(&mut self) -> Result<(), String> {
        assert_eq!(self.pass(true, &lease::discover(self))?, Ok(()));
        assert_eq!(self.pass(false, &lease::offer(self))?, Ok(()));
        Ok(())
    }

    fn select(&mut self, seconds: u32, servers: &[Ipv4Addr]) -> Result<(), String> {
        assert_eq!(self.pass(true, &lease::select(self))?, Ok(()));
        let ack = lease::ack(self, seconds, servers);
        assert_eq!(self.pass(false, &ack)?, Ok(()));
        Ok(())
    }

    /// Another policy, by the texts of what it allows and blocks.
    pub(crate) fn set_policy(&mut self, allow: &[&str], block: &[&str]) {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (allow, block): (Vec<String>, Vec<String>) = (owned(allow), owned(block));
        let (policy, _) = Policy::read(&allow, &block).unwrap();
        if self.rules.set_policy(policy) {
            self.facts.policy += 1;
        }
        let read = |texts: Vec<String>, allows| {
            texts
                .into_iter()
                .map(move |text| naive::Rule::read(&text, allows))
        };
        self.facts.rules = read(allow, true).chain(read(block, false)).collect();
    }

    fn has_learned_the_same(&self) -> bool {
        let lease = self.lease.lease().map(|lease| naive::Lease {
            address: lease.address,
            expires: (lease.expires != Tick::NEVER)
                .then(|| u32::try_from(lease.expires.as_secs()).unwrap()),
            name_servers: self.rules.name_servers().to_vec(),
        });
        let gateway_mac = self.rules.gateway_mac().map(|mac| mac.0);
        let held = *self.registry.held.lock().unwrap();
        // An address is given up when its lease has run out, but not by frames.
        let is_held = match (&self.facts.lease, self.facts.valid_lease()) {
            (None, _) => held.is_none(),
            (Some(lease), Some(_)) => held == Some(lease.address),
            (Some(_), None) => true,
        };
        let name = self.registry.name.lock().unwrap();
        is_held
            && *name == self.facts.claimed_name
            && lease == self.facts.lease
            && gateway_mac == self.facts.gateway_mac
    }
}

/// The label of the reason for a drop.
pub(crate) type Outcome = Result<(), &'static str>;

/// The filter's word, with that on DHCP where it has it, and then the frame as it goes on.
/// Deciding must be repeatable.
fn decide(
    filter: &mut impl Filter,
    frame: &[u8],
    facts: &Facts,
) -> Result<Option<Vec<u8>>, DropReason> {
    filter.begin(Tick::from_secs(facts.now));
    let step = filter.judge(frame);
    let verdict = match step {
        Step::Done(Verdict::Forward) => return Ok(None),
        Step::Done(verdict) => verdict,
        why => {
            let mut slot = frame.to_vec();
            let mut len = u32::try_from(frame.len()).unwrap();
            slot.resize((facts.max_frame + 1).next_multiple_of(64), 0xee);
            match filter.inspect(&mut Slot::new(&mut slot, &mut len), why) {
                Verdict::Forward => {
                    slot.truncate(len as usize);
                    return Ok(Some(slot));
                }
                verdict => verdict,
            }
        }
    };
    match verdict {
        Verdict::Drop(reason) => Err(reason),
        Verdict::Forward => unreachable!("it was returned"),
    }
}

fn rule(
    choices: &mut Choices<'_>,
    facts: &Facts,
    network: Ipv4Net,
    names_directions: bool,
) -> String {
    let net = match choices.below(8) {
        0 => None,
        1 => Some(Ipv4Net::default()),
        2 => Some(network),
        3 => Some(choices.pick(&generate::SPECIAL_RANGES).parse().unwrap()),
        4 => Ipv4Net::new(facts.gateway, choices.pick(&[32, 31, 24, 9])).ok(),
        5 => {
            let address = generate::special_edge(choices);
            Ipv4Net::new(address, choices.pick(&[32, 31, 16, 3])).ok()
        }
        6 => Ipv4Net::new(INTERNET, choices.pick(&[32, 30, 8, 1])).ok(),
        _ => Ipv4Net::new(choices.u32().into(), choices.byte() % 33).ok(),
    };
    let target = net.map_or_else(
        || {
            choices
                .pick(&["@host", "@host", "@dns", "@private", "@metadata"])
                .to_owned()
        },
        |net| net.trunc().to_string(),
    );
    let protocol = choices.pick(&["", "", "", "", "tcp ", "udp ", "icmp "]);
    let ports = choices.pick(&["", "", "", "", ":53", ":443", ":1-1024", ":68-65535"]);
    let ports = if protocol == "icmp " { "" } else { ports };
    let direction = choices.pick(&["", "", "in ", "in ", "out "]);
    let direction = if names_directions { direction } else { "" };
    if direction == "in " && protocol != "icmp " && choices.sometimes(60) {
        return format!("in {protocol}{target} to 400-500");
    }
    format!("{direction}{protocol}{target}{ports}")
}

pub(crate) const VM: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
pub(crate) const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x50];

/// Gateway, network, the VM's address.
const NETWORKS: [(&str, &str, &str); 6] = [
    ("192.168.64.1", "192.168.64.0/24", "192.168.64.2"),
    ("10.0.0.1", "10.0.0.0/30", "10.0.0.2"),
    ("172.31.255.254", "172.16.0.0/12", "172.16.0.1"),
    ("192.168.1.0", "192.168.1.0/31", "192.168.1.1"),
    ("8.8.8.1", "8.8.8.0/24", "8.8.8.254"),
    ("100.64.0.1", "100.64.0.0/10", "100.127.255.254"),
];
