//! Tests the table against a model: any sequence of packets, waits, policies and leases.

use std::collections::HashMap;

use proptest::prelude::*;

use super::tests::{ACK, FIN, RST, SYN, TCP, UDP, World, key};
use super::*;
use crate::direction::Direction::{Inbound, Outbound};

/// What the table must know about a flow after each step.
#[derive(Debug, Clone, Copy)]
struct Known {
    opener: Direction,
    policy: u32,
    lease: u32,
    seen: u64,
    replied: bool,
    assured: bool,
    fins: bool,
    resets: [bool; 2],
}

impl Known {
    fn idle_max(&self, key: Key) -> u64 {
        match key.protocol {
            6 if self.resets != [false; 2] => 90,
            6 if self.fins => 120,
            6 if self.assured => 7440,
            6 => 30,
            17 if self.replied && key.server().2 == 53 => 10,
            17 if self.replied => 180,
            17 | 1 => 30,
            _ if self.replied => 600,
            _ => 120,
        }
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Packet {
        from: Direction,
        key: usize,
        flags: u8,
    },
    Wait {
        seconds: u32,
    },
    Policy,
    Lease(u32),
}

fn operation() -> impl Strategy<Value = Operation> {
    let from = prop_oneof![Just(Outbound), Just(Inbound)];
    let flags = prop_oneof![
        Just(SYN),
        Just(SYN | ACK),
        Just(ACK),
        Just(ACK),
        Just(FIN | ACK),
        Just(RST),
        Just(0)
    ];
    prop_oneof![
        12 => (from, 0..KEYS.len(), flags)
            .prop_map(|(from, key, flags)| Operation::Packet { from, key, flags }),
        2 => prop_oneof![1_u32..12, 20_u32..40, 80_u32..200, 500_u32..8000]
            .prop_map(|seconds| Operation::Wait { seconds }),
        1 => Just(Operation::Policy),
        1 => (7_u32..9).prop_map(Operation::Lease),
    ]
}

const KEYS: [Key; 5] = [
    TCP,
    key(6, 50_001, 443),
    UDP,
    key(17, 50_000, 53),
    key(1, 5, 0),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn flows_are_known_as_the_model_has_it(operations in prop::collection::vec(operation(), 1..60)) {
        let mut world = World { flows: Flows::with_sets(64), ..World::new() };
        let mut known: HashMap<(Key, u32), Known> = HashMap::new();
        for operation in operations {
            match operation {
                Operation::Wait { seconds } => world.wait(seconds),
                Operation::Policy => world.context.policy += 1,
                Operation::Lease(lease) => world.context.lease = lease,
                Operation::Packet { from, key, flags } => {
                    let key = KEYS[key];
                    let kind = match key.protocol {
                        6 => Kind::Tcp(flags),
                        17 => Kind::Udp,
                        _ => Kind::Echo { is_request: flags & ACK == 0 },
                    };
                    let expected = expect(&mut known, from, key, kind, flags, world.context);
                    // What the fast path lets pass needs no second look.
                    let found = if world.flows.goes_on(from, key, kind, &world.context) {
                        Found::Flow
                    } else {
                        world.find(from, key, kind)
                    };
                    prop_assert_eq!(found, expected, "{:?} {:?}", key, kind);
                    match found {
                        Found::Opens => world.flows.open(from, key, kind, world.context).unwrap(),
                        // Rules that allow what the VM opens and, of the rest, flows whose policy
                        // is even.
                        Found::Stale { opener } => {
                            if opener == Outbound || world.context.policy.is_multiple_of(2) {
                                world.flows.confirm(key, world.context);
                            } else {
                                world.flows.cut(key, world.context);
                            }
                        }
                        _ => {}
                    }
                }
            }
            prop_assert_eq!(world.flows.own(), world.flows.servers.open());
        }
    }
}

/// Long because it is the model of all that can happen to a flow, read from top to bottom.
fn expect(
    all: &mut HashMap<(Key, u32), Known>,
    from: Direction,
    key: Key,
    kind: Kind,
    flags: u8,
    context: Context,
) -> Found {
    let now = context.now.as_secs();
    let opens = match kind {
        Kind::Tcp(flags) if flags & (FIN | RST) != 0 => false,
        Kind::Tcp(SYN) => true,
        Kind::Tcp(flags) => flags == ACK && from == Outbound,
        Kind::Echo { is_request } => is_request,
        _ => true,
    };
    let new = Known {
        opener: from,
        policy: context.policy,
        lease: context.lease,
        seen: now,
        replied: false,
        assured: false,
        fins: false,
        resets: [false; 2],
    };
    let place = (key, context.lease);
    let Some(flow) = all
        .get_mut(&place)
        .filter(|flow| now - flow.seen < flow.idle_max(key))
    else {
        if opens {
            all.insert(place, new);
            return Found::Opens;
        }
        return Found::Untracked;
    };
    assert_eq!(flow.lease, context.lease);
    let by_opener = flow.opener == from;
    if kind == Kind::Tcp(SYN) {
        let is_over = flow.fins || flow.resets != [false; 2];
        let belongs = !is_over
            && if by_opener {
                !flow.replied
            } else {
                !flow.assured
            };
        if !belongs {
            // A SYN that may be forged changes nothing.
            if !flow.assured || is_over {
                *flow = new;
            }
            return Found::Opens;
        }
    }
    if kind == (Kind::Echo { is_request: true }) && !by_opener {
        *flow = new;
        return Found::Opens;
    }
    if flow.policy != context.policy {
        let opener = flow.opener;
        if opener == Outbound || context.policy.is_multiple_of(2) {
            flow.policy = context.policy;
        } else {
            all.remove(&place);
        }
        return Found::Stale { opener };
    }
    flow.seen = now;
    let is_tcp = matches!(kind, Kind::Tcp(_));
    if is_tcp && flags & RST != 0 {
        flow.resets[usize::from(by_opener)] = true;
        return Found::Flow;
    }
    flow.resets[usize::from(by_opener)] &= !is_tcp;
    flow.replied |= !by_opener;
    flow.assured |= is_tcp && by_opener && flow.replied && flags & ACK != 0;
    flow.fins |= is_tcp && flags & FIN != 0;
    Found::Flow
}
