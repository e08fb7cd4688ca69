//! The clock for lease expiry and rate limits.

use std::time::Duration;

use nix::time::clock_gettime;

use crate::sys::clock;

/// Reads the clock, at its full resolution.
#[must_use]
pub fn read() -> Duration {
    clock_gettime(clock::SLEEPLESS).map_or(Duration::ZERO, Duration::from)
}

/// A moment, in 1024ths of a second of a clock that never goes back and that goes on while the
/// machine sleeps, as leases do.
///
/// The forwarder reads it once per batch ([`Tick::now`]), so that judging a frame needs no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(u64);

impl Tick {
    /// The earliest moment.
    pub const ZERO: Self = Self(0);

    /// Later than every moment that the clock can return.
    pub const NEVER: Self = Self(u64::MAX);

    /// The number of ticks in a second: a power of two, so that conversion to seconds is a shift.
    pub const PER_SECOND: u32 = 1 << SHIFT;

    /// Reads the clock.
    #[must_use]
    pub fn now() -> Self {
        Self::from(read())
    }

    /// The moment this many seconds after [`Tick::ZERO`].
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self((seconds as u64) << SHIFT)
    }

    /// Whole seconds since [`Tick::ZERO`].
    #[must_use]
    #[inline]
    pub const fn as_secs(self) -> u64 {
        self.0 >> SHIFT
    }

    /// Whole sixteenths of a second since [`Tick::ZERO`].
    #[must_use]
    #[inline]
    pub const fn in_sixteenths(self) -> u64 {
        self.0 >> (SHIFT - 4)
    }

    /// This many seconds later. A time of all ones means forever (RFC 2131, 3.3).
    #[must_use]
    pub const fn after(self, seconds: u32) -> Self {
        if seconds == u32::MAX {
            return Self::NEVER;
        }
        self.after_ticks((seconds as u64) << SHIFT)
    }

    /// This many ticks later, but before [`Tick::NEVER`].
    #[must_use]
    pub const fn after_ticks(self, ticks: u64) -> Self {
        match self.0.saturating_add(ticks) {
            u64::MAX => Self(u64::MAX - 1),
            later => Self(later),
        }
    }

    /// How many ticks have passed since an earlier moment; zero since a later one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<Duration> for Tick {
    /// The moment this long after [`Tick::ZERO`].
    fn from(since: Duration) -> Self {
        let part = u64::from(since.subsec_nanos()) << SHIFT;
        Self((since.as_secs() << SHIFT) | (part / 1_000_000_000))
    }
}

const SHIFT: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back() {
        let first = Tick::now();
        assert!(first > Tick::ZERO && Tick::now() >= first);
    }

    #[test]
    fn a_lease_without_end_never_ends_and_every_other_does() {
        let start = Tick::from_secs(1000);
        assert_eq!(start.after(600), Tick::from_secs(1600));
        assert_eq!(start.after(u32::MAX), Tick::NEVER);
        assert!(start.after(u32::MAX - 1) < Tick::NEVER);
        assert!(Tick(u64::MAX - 2).after(7) < Tick::NEVER);
    }

    #[test]
    fn a_tick_is_a_1024th_of_a_second() {
        assert_eq!(Tick::from(Duration::from_millis(1500)), Tick(1536));
        assert_eq!(Tick::from(Duration::from_nanos(999_999_999)), Tick(1023));
        assert_eq!((Tick(1023).as_secs(), Tick(1024).as_secs()), (0, 1));
    }

    #[test]
    fn nothing_has_passed_since_a_later_moment() {
        let (early, late) = (Tick::from_secs(1), Tick::from_secs(3));
        assert_eq!(late.since(early), u64::from(2 * Tick::PER_SECOND));
        assert_eq!(early.since(late), 0);
    }
}
