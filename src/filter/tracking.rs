//! Connection tracking, once a rule names a direction: a packet passes because the rules let its
//! sender open a connection, or because it belongs to an open one.
//!
//! docs/rules.md describes the rules for this. [`super::flows`] stores the connections.

use std::sync::Arc;

use super::facts::{self, Facts, Membership};
use super::flows::fragments::Fragments;
use super::flows::{Context, Flows, Found, Key, Kind, NoRoom};
use super::prefix::Destination;
use super::verdict::DropReason;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::wire::ipv4::Plain;

/// Connection tracking for one direction.
#[derive(Debug)]
pub(super) struct Tracker {
    way: Direction,
    flows: Arc<Flows>,
    fragments: Fragments,
    /// When the table was last swept for expired flows.
    swept: u64,
}

impl Tracker {
    pub(super) fn new(way: Direction, flows: Arc<Flows>) -> Self {
        let fragments = match way {
            Direction::Outbound => Fragments::limited(OUTBOUND_FRAGMENTED_MAX),
            Direction::Inbound => Fragments::evicting(INBOUND_FRAGMENTED_MAX),
        };
        Self {
            way,
            flows,
            fragments,
            swept: 0,
        }
    }

    /// Sweeps the table for expired flows, at intervals.
    pub(super) fn sweep(&mut self, now: Tick) {
        let sixteenth = now.in_sixteenths();
        if self.swept != sixteenth {
            self.swept = sixteenth;
            self.flows.sweep(now);
        }
    }

    /// A fast path for an ordinary packet of a connection that both sides have confirmed and that
    /// is open under this policy, as most are: nothing else is checked. `false` says nothing about
    /// the packet. `way` is the tracker's, which each caller knows when it is compiled.
    #[inline(always)]
    pub(super) fn goes_on(&self, way: Direction, plain: &Plain, context: &Context) -> bool {
        let (key, kind) = facts::ordinary(plain, way);
        self.flows.goes_on(way, key, kind, context)
    }

    /// The same for one of any connection that is open under this policy.
    #[inline]
    pub(super) fn known(&self, carried: &[u8], context: Context) -> Option<Kind> {
        let (key, kind) = facts::ordinary(Plain::parse(carried)?, self.way);
        let found = self.flows.find(self.way, key, kind, context);
        (found == Found::Flow).then_some(kind)
    }

    /// Judges a packet. `verdict` returns what the rules say about a packet in the given direction
    /// between the two machines, and `excuse` whether a packet passes that they refuse.
    pub(super) fn judge(
        &self,
        facts: &Facts,
        context: Context,
        verdict: impl Fn(Direction) -> Destination,
        excuse: Excuse<'_>,
    ) -> Result<(), DropReason> {
        if let Some(part) = &facts.part
            && part.offset != 0
        {
            let follows = self.fragments.go_on(part, context);
            return if follows {
                Ok(())
            } else {
                excuse(DropReason::Untracked)
            };
        }
        match facts.membership {
            Membership::Connection(key, kind) => {
                self.by_flow(key, kind, context, verdict, excuse)?;
            }
            Membership::ErrorAbout(key) if self.flows.is_related(key, context) => {}
            _ => self.untracked(verdict(self.way), excuse)?,
        }
        match &facts.part {
            Some(part) if !self.fragments.begin(part, context) => Err(DropReason::FragmentsFull),
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
        excuse: Excuse<'_>,
    ) -> Result<(), DropReason> {
        match self.flows.find(self.way, key, kind, context) {
            Found::Flow => Ok(()),
            Found::Stale { opener } => {
                let allowed = self.refuse(verdict(opener), excuse);
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
                self.refuse(said, excuse)?;
                // A packet to the VM that no rule is about passes anyway. Its connection is needed
                // only if rules are about the answers. One that is excused is like one that a rule
                // allows, so that its answers need no excuse.
                let is_tracked = self.way == Direction::Outbound
                    || said == Destination::Allowed
                    || said.refusal().is_some()
                    || matches!(
                        verdict(Direction::Outbound),
                        Destination::Allowed | Destination::Blocked
                    );
                if is_tracked {
                    let opened = self.flows.open(self.way, key, kind, context);
                    opened.map_err(|why| match why {
                        NoRoom::Table => DropReason::FlowsFull,
                        NoRoom::Server => DropReason::ServerLimit,
                    })?;
                }
                Ok(())
            }
            Found::Untracked => self.untracked(verdict(self.way), excuse),
        }
    }

    /// A packet without a connection cannot use a rule that allows connections. It passes if no
    /// rule is about it.
    fn untracked(&self, said: Destination, excuse: Excuse<'_>) -> Result<(), DropReason> {
        match said {
            Destination::Allowed => excuse(DropReason::Untracked),
            said => self.refuse(said, excuse),
        }
    }

    fn refuse(&self, said: Destination, excuse: Excuse<'_>) -> Result<(), DropReason> {
        match (said.refusal(), self.way) {
            (None, _) => Ok(()),
            (Some(reason), Direction::Outbound) => excuse(reason),
            (Some(_), Direction::Inbound) => excuse(DropReason::SourceBlocked),
        }
    }
}

/// Returns the reason again, unless an audit lets the packet pass. Called for those alone that are
/// refused, so that a call through a pointer costs the others nothing.
type Excuse<'a> = &'a dyn Fn(DropReason) -> Result<(), DropReason>;

/// How many datagrams from the VM may be incomplete at once: enough for a burst of NFS or DNS.
const OUTBOUND_FRAGMENTED_MAX: usize = 64;
const INBOUND_FRAGMENTED_MAX: usize = 256;
