//! The clock that never goes back and goes on while the machine sleeps.

use nix::time::ClockId;

/// CLOCK_MONOTONIC goes on too, but it is derived from the time of day, and jumps when that is set
/// (Libc, gen/clock_gettime.c).
pub(crate) const SLEEPLESS: ClockId = ClockId::from_raw(libc::CLOCK_MONOTONIC_RAW);
