//! What clients are told about the VM's packets: its connections, and what its policy denied.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Vm;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::filter::{Connection, Connections, DeniedRow, Stage};
use crate::wire::ipv4::protocol;

/// A page of the connections that are tracked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsResult {
    /// The connections, in no order.
    pub flows: Vec<Flow>,
    /// Where the next page starts, if there is one.
    pub next: Option<usize>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// `tcp`, `udp`, `icmp`, or the protocol's number.
    pub protocol: String,
    /// The VM's port, or the identifier of an echo.
    pub vm_port: u16,
    /// The other machine.
    pub peer: String,
    /// The other machine's port.
    pub peer_port: u16,
    /// `out` if the VM opened it, else `in`.
    pub opened: String,
    /// `opening`, `open`, `one-way` or `closing`.
    pub state: String,
    /// Seconds since its first packet.
    pub age: u32,
    /// Seconds since its last packet.
    pub idle: u32,
}

/// What was denied lately, the last first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedResult {
    /// Rows, each about packets of one kind.
    pub denied: Vec<DeniedPackets>,
    /// How many packets more there were, in no row.
    pub missed: u64,
}

/// Packets of one kind that were denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedPackets {
    /// `out` if the VM sent them, else `in`.
    pub direction: String,
    /// The reason, as in logs and counters.
    pub reason: String,
    /// `tcp`, `udp`, `icmp`, or the protocol's number.
    pub protocol: String,
    /// The other machine.
    pub address: String,
    /// The port at which the packets were aimed, if there is one: the other machine's or the VM's.
    pub port: Option<u16>,
    /// How many.
    pub count: u32,
    /// When the first of them came, in seconds since 1970.
    pub first_seen: u64,
    /// When the last of them came.
    pub last_seen: u64,
    /// The rule that would allow them, if one can.
    pub allow: Option<String>,
}

impl FlowsResult {
    pub(super) fn of(connections: &Connections, start: usize, now: Tick) -> Self {
        let (page, next) = connections.page(start, PAGE, now);
        Self {
            flows: page.iter().map(Flow::of).collect(),
            next,
        }
    }
}

impl Flow {
    fn of(connection: &Connection) -> Self {
        let state = match connection.stage {
            Stage::Opening => "opening",
            Stage::Open => "open",
            Stage::OneWay => "one-way",
            Stage::Closing => "closing",
        };
        Self {
            protocol: protocol_name(connection.protocol),
            vm_port: connection.vm_port,
            peer: connection.peer.to_string(),
            peer_port: connection.peer_port,
            opened: direction_name(connection.opener),
            state: state.to_owned(),
            age: connection.age,
            idle: connection.idle,
        }
    }
}

impl DeniedResult {
    pub(super) fn of(vm: &Vm, now: Tick) -> Self {
        let rows = vm.denied.rows();
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let clock = clock.map_or(0, |since| since.as_secs());
        let at = |tick: Tick| clock.saturating_sub(now.as_secs().saturating_sub(tick.as_secs()));
        let allowing = vm.rules.rules_that_allow(&rows);
        let told = |(row, rule): (&DeniedRow, Option<_>)| DeniedPackets {
            direction: direction_name(row.way),
            reason: row.reason.label().to_owned(),
            protocol: protocol_name(row.protocol),
            address: row.peer.to_string(),
            port: (row.port != 0).then_some(row.port),
            count: row.count,
            first_seen: at(row.first),
            last_seen: at(row.last),
            allow: rule.map(|rule| ToString::to_string(&rule)),
        };
        Self {
            denied: rows.iter().zip(allowing).map(told).collect(),
            missed: vm.denied.missed(),
        }
    }
}

/// As in rules.
fn direction_name(direction: Direction) -> String {
    let name = match direction {
        Direction::Outbound => "out",
        Direction::Inbound => "in",
    };
    name.to_owned()
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMP => "icmp".to_owned(),
        other => other.to_string(),
    }
}

/// How many connections a page has, and at most seven more: in JSON each takes up to 160 bytes, and
/// a response must not be longer than a request may be, 1 MiB.
const PAGE: usize = 4096;
