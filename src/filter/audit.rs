//! Auditing: what the policy alone would drop passes, and is counted.
//!
//! A frame costs nothing for that unless it is about to be dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::policy::Mode;
use super::roles::Roles;
use super::subnet::group_mac;
use super::verdict::DropReason;
use crate::direction::Direction;

/// How many frames passed that the policy would have dropped, shared by both directions.
#[derive(Debug, Default)]
pub struct Audit {
    passed: [Passed; 2],
}

#[derive(Debug)]
struct Passed([AtomicU64; DropReason::ALL.len()]);

impl Default for Passed {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::ALL.len()])
    }
}

impl Audit {
    /// The reasons for which frames would have been dropped, with how many.
    pub fn passed(&self, way: Direction) -> impl Iterator<Item = (DropReason, u64)> {
        let counts = self.passed[way as usize].0.each_ref();
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        DropReason::ALL
            .into_iter()
            .zip(counts)
            .filter(|&(_, count)| count > 0)
    }

    fn count(&self, way: Direction, reason: DropReason) {
        self.passed[way as usize].0[reason.index()].fetch_add(1, Ordering::Relaxed);
    }
}

/// One direction's view of the audit, if there is one.
#[derive(Debug)]
pub(super) struct Auditor {
    way: Direction,
    audit: Option<Arc<Audit>>,
}

impl Auditor {
    pub(super) const fn new(way: Direction) -> Self {
        Self { way, audit: None }
    }

    pub(super) fn begin(&mut self, audit: Arc<Audit>) {
        self.audit = Some(audit);
    }

    pub(super) const fn is_on(&self) -> bool {
        self.audit.is_some()
    }

    /// Lets a packet from or to `peer` pass, and counts it, although the rules refuse it.
    ///
    /// A rule may be about more than the policy: `--block 0.0.0.0/0` also covers the neighbours,
    /// groups and loopback. Those stay closed, whatever the reason is called.
    ///
    /// # Errors
    /// The reason, if it is enforced.
    #[cold]
    #[inline(never)]
    pub(super) fn excuse(
        &self,
        roles: &Roles,
        peer: u32,
        reason: DropReason,
    ) -> Result<(), DropReason> {
        let Some(audit) = &self.audit else {
            return Err(reason);
        };
        let is_closed = roles.isolation && roles.is_neighbour(peer)
            || roles.mode == Mode::Host && peer != roles.gateway.address
            || group_mac(peer, roles.subnet).is_some()
            || matches!(peer >> 24, 0 | 127);
        if is_closed || !reason.is_audited() {
            return Err(reason);
        }
        audit.count(self.way, reason);
        Ok(())
    }
}
