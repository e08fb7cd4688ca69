//! Judging by connections, once a rule names a direction: a packet passes because the rules let its
//! sender open a connection, or because it belongs to one that is open.
//!
//! docs/rules.md has what holds for whom. [`super::flows`] knows the connections.

use std::sync::Arc;

use super::facts::{self, Belongs, Facts};
use super::flows::fragments::Fragments;
use super::flows::{Context, Flows, Found, Full, Key, Kind};
use super::prefix::Destination;
use super::verdict::DropReason;
use crate::clock::Tick;
use crate::direction::Direction;

/// One direction's part of it.
#[derive(Debug)]
pub(super) struct Tracker {
    way: Direction,
    flows: Arc<Flows>,
    fragments: Fragments,
    /// When expired flows were looked for last.
    swept: u64,
}

impl Tracker {
    pub(super) fn new(way: Direction, flows: Arc<Flows>) -> Self {
        let slots = match way {
            Direction::Outbound => OUTBOUND_FRAGMENTED_MAX,
            Direction::Inbound => INBOUND_FRAGMENTED_MAX,
        };
        Self {
            way,
            flows,
            fragments: Fragments::new(slots),
            swept: 0,
        }
    }

    /// Looks for expired flows, now and then.
    pub(super) fn sweep(&mut self, now: Tick) {
        let sixteenth = now.in_sixteenths();
        if self.swept != sixteenth {
            self.swept = sixteenth;
            self.flows.sweep(now);
        }
    }

    /// An ordinary packet of a connection that is open under this policy, as most are: nothing
    /// else is asked of them.
    #[inline]
    pub(super) fn known(&self, carried: &[u8], context: Context) -> Option<Kind> {
        let (key, kind) = facts::ordinary(carried, self.way)?;
        let found = self.flows.find(self.way, key, kind, context);
        (found == Found::Flow).then_some(kind)
    }

    /// Decides about a packet. `verdict` tells what the rules say of a packet that goes one way
    /// or the other between the two.
    pub(super) fn judge(
        &self,
        facts: &Facts,
        context: Context,
        verdict: impl Fn(Direction) -> Destination,
    ) -> Result<(), DropReason> {
        if let Some(part) = &facts.part
            && part.offset != 0
        {
            let follows = self.fragments.go_on(part, context.now);
            return follows.then_some(()).ok_or(DropReason::Untracked);
        }
        match facts.belongs {
            Belongs::To(key, kind) => self.by_flow(key, kind, context, verdict)?,
            Belongs::About(key) if self.flows.is_related(key, context) => {}
            _ => self.untracked(verdict(self.way))?,
        }
        match &facts.part {
            Some(part) if !self.fragments.begin(part, context.now) => {
                Err(DropReason::FragmentsFull)
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn by_flow(
        &self,
        key: Key,
        kind: Kind,
        context: Context,
        verdict: impl Fn(Direction) -> Destination,
    ) -> Result<(), DropReason> {
        match self.flows.find(self.way, key, kind, context) {
            Found::Flow => Ok(()),
            Found::Stale { opener } => {
                let allowed = self.refuse(verdict(opener));
                if allowed.is_ok() {
                    self.flows.confirm(key, context);
                    // Now it counts like any other packet of the flow.
                    self.flows.find(self.way, key, kind, context);
                } else {
                    self.flows.cut(key, context);
                }
                allowed
            }
            Found::Opens => {
                let said = verdict(self.way);
                self.refuse(said)?;
                // What comes to the VM where no rule is about that passes anyway. Its answers need
                // the connection only where rules are about them.
                let is_tracked = self.way == Direction::Outbound
                    || said == Destination::Allowed
                    || matches!(
                        verdict(Direction::Outbound),
                        Destination::Allowed | Destination::Blocked
                    );
                if is_tracked {
                    let opened = self.flows.open(self.way, key, kind, context);
                    opened.map_err(|Full| DropReason::FlowsFull)?;
                }
                Ok(())
            }
            Found::Untracked => self.untracked(verdict(self.way)),
        }
    }

    /// A packet without a connection cannot use a rule that allows connections; it passes where
    /// no rule is about it.
    fn untracked(&self, said: Destination) -> Result<(), DropReason> {
        match said {
            Destination::Allowed => Err(DropReason::Untracked),
            said => self.refuse(said),
        }
    }

    fn refuse(&self, said: Destination) -> Result<(), DropReason> {
        match (said.refusal(), self.way) {
            (None, _) => Ok(()),
            (Some(reason), Direction::Outbound) => Err(reason),
            (Some(_), Direction::Inbound) => Err(DropReason::SourceBlocked),
        }
    }
}

/// How many datagrams of the VM may be under way in fragments: enough for a burst of NFS or DNS.
const OUTBOUND_FRAGMENTED_MAX: usize = 64;
const INBOUND_FRAGMENTED_MAX: usize = 256;
