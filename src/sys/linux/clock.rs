//! The clock that never goes back and goes on while the machine sleeps.

use nix::time::ClockId;

/// CLOCK_MONOTONIC stands still during sleep (clock_gettime(2)).
pub(crate) const SLEEPLESS: ClockId = ClockId::CLOCK_BOOTTIME;
