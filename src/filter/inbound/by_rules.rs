//! Judges inbound packets by the rules, and by the connections that the VM has.

use super::super::facts;
use super::super::flows::Context;
use super::super::verdict::DropReason;
use super::Inbound;
use crate::direction::Direction;
use crate::wire::ethernet::Ethernet;

impl Inbound {
    pub(super) fn context(&self) -> Context {
        Context {
            policy: self.view.rules().number,
            lease: self.shared.lease.tenure(),
            now: self.now,
        }
    }

    /// When connections are tracked: judges a packet by the rules and by the VM's own connections.
    pub(super) fn by_rules(&self, frame: &[u8]) -> Result<(), DropReason> {
        let (_, carried) = Ethernet::split(frame).ok_or(DropReason::Runt)?;
        let rules = self.view.rules();
        if rules.inbound.is_none() {
            return Ok(());
        }
        let context = self.context();
        if self.tracker.known(carried, context).is_some() {
            return Ok(());
        }
        let facts = facts::of(carried, Direction::Inbound).ok_or(DropReason::Ipv4Malformed)?;
        let excuse = |reason| {
            (self.auditor).excuse(self.view.roles(), facts.peer, reason)?;
            let denied = &self.shared.denied;
            denied.record(Direction::Inbound, frame, reason, self.now);
            Ok(())
        };
        // Of a connection that the VM has opened, a new policy is asked for the VM's direction.
        let verdict = |way| self.view.verdict(&facts, way);
        self.tracker.judge(&facts, context, verdict, &excuse)
    }
}
