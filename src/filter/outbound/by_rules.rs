//! Judges outbound packets about which the address alone does not decide: exceptions, rules with
//! ports or protocols, and connections.

use super::super::facts::{self, Membership};
use super::super::flows::{self, Context};
use super::super::prefix::Destination;
use super::super::validate::Transport;
use super::super::verdict::{DropReason, Step};
use super::Outbound;
use crate::direction::Direction;
use crate::wire::ethernet::Ethernet;
use crate::wire::ipv4::{Header, Plain};
use crate::wire::udp;

impl Outbound {
    /// Judges a packet to a destination that the table does not pass by its address alone. Of those
    /// that need more than the address, most belong to a connection that is open and confirmed.
    #[inline(never)]
    pub(super) fn undecided<const RARE: bool>(
        &self,
        ethernet: &Ethernet,
        header: &Header,
        plain: Option<&Plain>,
        transport: Transport,
        verdict: Destination,
    ) -> Result<Step, DropReason> {
        if verdict != Destination::NeedsMore {
            return self.exceptional::<RARE>(ethernet, header, transport, verdict);
        }
        let step = self.rest::<RARE>(ethernet, header, transport)?;
        if let Some(plain) = plain
            && self.view.rules().inbound.is_some()
            && self
                .tracker
                .goes_on(Direction::Outbound, plain, &self.context())
        {
            return Ok(step);
        }
        Ok(Step::Rules)
    }

    /// Judges a packet to a destination that the table refuses.
    #[inline(never)]
    fn exceptional<const RARE: bool>(
        &self,
        ethernet: &Ethernet,
        header: &Header,
        transport: Transport,
        verdict: Destination,
    ) -> Result<Step, DropReason> {
        let is_dns = transport.port() == Some(udp::DNS);
        let roles = self.view.roles();
        let verdict = roles.allow_name_server(verdict, header.destination.get(), is_dns);
        let refusal = verdict.refusal();
        if let Some(reason) = refusal
            && !self.auditor.is_on()
        {
            return Err(reason);
        }
        let rest = self.rest::<RARE>(ethernet, header, transport);
        let Some(reason) = refusal else { return rest };
        // What is dropped anyway has the reason that it has without an audit.
        rest.map_err(|_| reason)?;
        Ok(Step::Rules)
    }

    fn context(&self) -> Context {
        Context {
            policy: self.view.rules().number,
            lease: self.shared.lease.tenure(),
            now: self.now,
        }
    }

    /// Judges by ports and protocol as well as addresses, and by the connection that a packet
    /// belongs to. Returns whether the packet opens a TCP connection.
    pub(super) fn by_rules(&self, frame: &[u8]) -> Result<Opens, DropReason> {
        let (_, carried) = Ethernet::split(frame).ok_or(DropReason::Runt)?;
        let (rules, context) = (self.view.rules(), self.context());
        if rules.inbound.is_some()
            && let Some(kind) = self.tracker.known(carried, context)
        {
            return Ok(Opens::by(kind));
        }
        self.unknown(frame, carried, context)
    }

    /// A packet of no connection that is open under this policy. On its own, so that the packets of
    /// one do not pay for what it takes.
    #[inline(never)]
    fn unknown(&self, frame: &[u8], carried: &[u8], context: Context) -> Result<Opens, DropReason> {
        let rules = self.view.rules();
        let facts = facts::of(carried, Direction::Outbound).ok_or(DropReason::Ipv4Malformed)?;
        let verdict = |way| self.view.verdict(&facts, way);
        let excuse = |reason| {
            (self.auditor).excuse(self.view.roles(), facts.peer, reason)?;
            let denied = &self.shared.denied;
            denied.record(Direction::Outbound, frame, reason, self.now);
            Ok(())
        };
        if rules.inbound.is_some() {
            self.tracker.judge(&facts, context, verdict, &excuse)?;
        } else if let Some(reason) = verdict(Direction::Outbound).refusal() {
            excuse(reason)?;
        }
        Ok(match facts.membership {
            Membership::Connection(_, kind) => Opens::by(kind),
            _ => Opens::Nothing,
        })
    }
}

/// What a packet opens, if it passes.
pub(super) enum Opens {
    /// It opens a TCP connection, or repeats its SYN.
    Connection,
    Nothing,
}

impl Opens {
    const fn by(kind: flows::Kind) -> Self {
        if kind.counts_as_new() {
            Self::Connection
        } else {
            Self::Nothing
        }
    }
}
