//! The state of one flow, and its timeout.
//!
//! ```text
//!   TCP   SYN ──▶ embryonic ── the other side answers, the opener acknowledges ──▶ assured
//!                                                                            │ FIN, RST
//!                                                                            ▼
//!                     (a SYN opens it anew, if the rules allow it)  ◀──── closing
//!   UDP   one way ── an answer ──▶ both ways
//! ```
//!
//! Sequence numbers are not followed. The purpose is to keep out machines that were never asked to
//! speak, and flags suffice for that. So a forged RST ends nothing: it shortens the flow's timeout,
//! until the machine that seems to have sent it sends again. A forged SYN does nothing to an assured
//! flow.

use super::Key;
use crate::direction::Direction;
use crate::wire::ipv4::protocol;
use crate::wire::udp;

/// The shortest timeout of any flow, in sixteenths of a second.
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
    /// An ICMP query other than echo, or any other protocol.
    Other,
}

/// The bits of a flow's state. In an empty place none is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State(pub(super) u8);

/// A flow's priority when room is needed; the lowest is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EvictionPriority {
    Free,
    Expired,
    Closing,
    Embryonic,
    OneWay,
    Assured,
}

const LIVE: u8 = 1;
/// The place is being written.
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
    /// Whether it is a TCP segment that opens a connection.
    pub(super) const fn is_syn(self) -> bool {
        matches!(self, Self::Tcp(flags) if flags & (SYN | ACK | RST | FIN) == SYN)
    }

    /// Whether a NAT on the path may take it for the beginning of a TCP connection: SYN without
    /// ACK, whatever else is set.
    pub(in super::super) const fn counts_as_new(self) -> bool {
        matches!(self, Self::Tcp(flags) if flags & (SYN | ACK) == SYN)
    }

    /// Whether a packet of no known flow may open one. The VM's segment in the middle of a
    /// connection may, because softnet or the host may have been restarted. Nobody else's may, or
    /// else any sender of an ACK would be let in.
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

    /// The state of a flow whose first packet this is.
    pub(super) const fn opened_by(_: Kind) -> Self {
        Self(LIVE)
    }

    /// The state, confirmed by both sides, in which a packet of this kind from either side changes
    /// nothing.
    #[inline(always)]
    pub(super) const fn going_on(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Tcp(flags) if flags & (FIN | SYN | RST | ACK) == ACK => {
                Some(Self(LIVE | REPLIED | ASSURED))
            }
            Kind::Udp => Some(Self(LIVE | REPLIED)),
            _ => None,
        }
    }

    pub(super) const fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    pub(super) const fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }

    /// For TCP: whether both sides have not confirmed it yet.
    pub(super) const fn is_embryonic(self) -> bool {
        self.is_live() && self.0 & ASSURED == 0
    }

    /// Whether the other side has answered, which of TCP counts once it is confirmed.
    pub(super) const fn is_answered(self, is_tcp: bool) -> bool {
        self.0 & (if is_tcp { ASSURED } else { REPLIED }) != 0
    }

    /// Whether a SYN belongs to the existing flow: it was retransmitted, or both sides opened at
    /// the same time (RFC 9293, 3.5). On any other flow it begins a new connection.
    pub(super) const fn takes_syn(self, from_opener: bool) -> bool {
        let has_replied = self.0 & REPLIED != 0;
        !self.is_closing()
            && if from_opener {
                !has_replied
            } else {
                self.0 & ASSURED == 0
            }
    }

    /// Whether a flow stays as it is when a SYN passes that does not belong to it.
    pub(super) const fn outlives_syn(self) -> bool {
        self.0 & ASSURED != 0 && !self.is_closing()
    }

    /// The state after this packet.
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

    pub(super) const fn class(self, protocol: u8) -> EvictionPriority {
        let is_tcp = protocol == protocol::TCP;
        if self.is_closing() {
            EvictionPriority::Closing
        } else if is_tcp && self.is_embryonic() {
            EvictionPriority::Embryonic
        } else if !is_tcp && self.0 & REPLIED == 0 {
            EvictionPriority::OneWay
        } else {
            EvictionPriority::Assured
        }
    }

    const fn is_closing(self) -> bool {
        self.0 & (FIN_OF_OPENER | FIN_OF_OTHER | RST_OF_OPENER | RST_OF_OTHER) != 0
    }

    /// The flow's timeout, in sixteenths of a second. `hurries` says whether the table is nearly
    /// full.
    #[inline]
    pub(super) fn idle_max(self, key: Key, hurries: impl FnOnce() -> bool) -> u32 {
        let has_replied = self.0 & REPLIED != 0;
        let (protocol, _, peer_port) = key.server();
        let seconds = match protocol {
            protocol::TCP if self.0 & (RST_OF_OPENER | RST_OF_OTHER) != 0 => 90,
            protocol::TCP if self.is_closing() => 120,
            // RFC 5382, REQ-5: at least 2 hours 4 minutes.
            protocol::TCP if self.0 & ASSURED != 0 => 7440,
            protocol::TCP if hurries() => 5,
            protocol::TCP => 30,
            // A query gets only one answer.
            protocol::UDP if has_replied && peer_port == udp::DNS => 10,
            // RFC 4787, REQ-5: at least 2 minutes.
            protocol::UDP if has_replied => 180,
            protocol::UDP | protocol::ICMP => 30,
            _ if has_replied => 600,
            _ => 120,
        };
        16 * seconds
    }
}
