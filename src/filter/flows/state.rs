//! What one flow has been through, and how long it may be silent.
//!
//! ```text
//!   TCP   SYN ──▶ embryonic ── the other side answers, the opener acknowledges ──▶ assured
//!                                                                            │ FIN, RST
//!                                                                            ▼
//!                     (a SYN opens it anew, if the rules allow it)  ◀──── closing
//!   UDP   one way ── an answer ──▶ both ways
//! ```
//!
//! Sequence numbers are not followed: what is kept out here is who was never asked to speak, and
//! for that flags do. A forged RST therefore ends nothing. It shortens how long the flow may be
//! silent, until the one that seems to have sent it goes on.

use super::Key;
use crate::direction::Direction;
use crate::wire::ipv4::protocol;
use crate::wire::udp;

/// No flow ends before so much silence, in sixteenths of a second.
pub(super) const IDLE_LEAST: u32 = 16 * 5;

/// What a packet does to its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// TCP, with its flags.
    Tcp(u8),
    /// UDP.
    Udp,
    /// An echo request or its reply.
    Echo { is_request: bool },
    /// A query of ICMP other than echo, or any other protocol.
    Other,
}

/// The bits of a flow's state; none of them for a place without a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State(pub(super) u8);

/// What a flow is worth when room is needed; the first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Free,
    Expired,
    Closing,
    Embryonic,
    OneWay,
    Assured,
}

const LIVE: u8 = 1;
/// Somebody writes the place just now.
const BUSY: u8 = 2;
/// The side that did not open the flow has sent something.
const REPLIED: u8 = 4;
/// The opener has acknowledged that.
const ASSURED: u8 = 8;
const FIN_OF_OPENER: u8 = 16;
const FIN_OF_OTHER: u8 = 32;
const RST_OF_OPENER: u8 = 64;
const RST_OF_OTHER: u8 = 128;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

impl Kind {
    /// Whether it is TCP that opens a connection.
    pub(super) const fn is_syn(self) -> bool {
        matches!(self, Self::Tcp(flags) if flags & (SYN | ACK | RST | FIN) == SYN)
    }

    /// Whether a NAT on the way may take it for the beginning of a connection of TCP: SYN without
    /// ACK, whatever else is set.
    pub(in super::super) const fn counts_as_new(self) -> bool {
        matches!(self, Self::Tcp(flags) if flags & (SYN | ACK) == SYN)
    }

    /// Whether a packet of no known flow may open one. A segment of the VM's in the middle of a
    /// connection may: softnet or the host has been started anew. Nobody else's may, or
    /// whoever sends an ACK would be let in.
    pub(super) fn opens(self, from: Direction) -> bool {
        match self {
            Self::Tcp(flags) if flags & (RST | FIN) != 0 => false,
            Self::Tcp(flags) if flags & SYN != 0 => flags & ACK == 0,
            Self::Tcp(flags) => flags & ACK != 0 && from == Direction::Outbound,
            Self::Echo { is_request } => is_request,
            Self::Udp | Self::Other => true,
        }
    }
}

impl State {
    pub(super) const FREE: Self = Self(0);
    pub(super) const WRITTEN: Self = Self(BUSY);

    /// That of a flow whose first packet this is.
    pub(super) const fn opened_by(_: Kind) -> Self {
        Self(LIVE)
    }

    pub(super) const fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    pub(super) const fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }

    /// Of TCP: whether both sides have not confirmed it yet.
    pub(super) const fn is_embryonic(self) -> bool {
        self.is_live() && self.0 & ASSURED == 0
    }

    /// Whether a SYN belongs to the flow as it is: sent again, or by the other side at the same
    /// time (RFC 9293, 3.5). On any other flow it is a new connection.
    pub(super) const fn takes_syn(self, from_opener: bool) -> bool {
        let has_replied = self.0 & REPLIED != 0;
        let is_over = self.0 & (FIN_OF_OPENER | FIN_OF_OTHER | RST_OF_OPENER | RST_OF_OTHER) != 0;
        !is_over
            && if from_opener {
                !has_replied
            } else {
                self.0 & ASSURED == 0
            }
    }

    /// The state after a packet.
    #[inline]
    pub(super) const fn after(self, kind: Kind, from_opener: bool) -> Self {
        let Kind::Tcp(flags) = kind else {
            let replied = if from_opener { 0 } else { REPLIED };
            return Self(self.0 | replied);
        };
        let (fin, rst) = if from_opener {
            (FIN_OF_OPENER, RST_OF_OPENER)
        } else {
            (FIN_OF_OTHER, RST_OF_OTHER)
        };
        if flags & RST != 0 {
            return Self(self.0 | rst);
        }
        let mut state = self.0 & !rst;
        if !from_opener {
            state |= REPLIED;
        } else if flags & ACK != 0 && state & REPLIED != 0 {
            state |= ASSURED;
        }
        if flags & FIN != 0 {
            state |= fin;
        }
        Self(state)
    }

    pub(super) const fn class(self, protocol: u8) -> Class {
        let is_tcp = protocol == protocol::TCP;
        if self.is_closing() {
            Class::Closing
        } else if is_tcp && self.is_embryonic() {
            Class::Embryonic
        } else if !is_tcp && self.0 & REPLIED == 0 {
            Class::OneWay
        } else {
            Class::Assured
        }
    }

    const fn is_closing(self) -> bool {
        self.0 & (FIN_OF_OPENER | FIN_OF_OTHER | RST_OF_OPENER | RST_OF_OTHER) != 0
    }

    /// How long the flow may be silent, in sixteenths of a second; `hurries` says whether the
    /// table is nearly full.
    #[inline]
    pub(super) fn idle_max(self, key: Key, hurries: impl FnOnce() -> bool) -> u32 {
        let has_replied = self.0 & REPLIED != 0;
        let seconds = match key.protocol {
            protocol::TCP if self.0 & (RST_OF_OPENER | RST_OF_OTHER) != 0 => 90,
            protocol::TCP if self.is_closing() => 120,
            // RFC 5382, REQ-5: at least 2 hours 4 minutes.
            protocol::TCP if self.0 & ASSURED != 0 => 7440,
            protocol::TCP if hurries() => 5,
            protocol::TCP => 30,
            // Nobody answers a query twice.
            protocol::UDP if has_replied && key.peer_port == udp::DNS => 10,
            // RFC 4787, REQ-5: at least 2 minutes.
            protocol::UDP if has_replied => 180,
            protocol::UDP | protocol::ICMP => 30,
            _ if has_replied => 600,
            _ => 120,
        };
        16 * seconds
    }
}
