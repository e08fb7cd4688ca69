//! The time of macOS' kernel, which counts in ticks: a nanosecond on Intel, 125/3 of one on Apple
//! Silicon (mach_timebase_info, mach/mach_time.h).

use std::time::Duration;

/// The duration of `ticks`, each of which takes `numer`/`denom` nanoseconds.
pub(crate) fn duration(ticks: u64, numer: u32, denom: u32) -> Duration {
    let (numer, denom) = (u64::from(numer), u64::from(denom.max(1)));
    // In two steps, which do not overflow for centuries.
    let whole = (ticks / denom).saturating_mul(numer);
    Duration::from_nanos(whole.saturating_add(ticks % denom * numer / denom))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_as_long_as_the_machine_says() {
        assert_eq!(duration(24_000_000, 125, 3), Duration::from_secs(1));
        assert_eq!(duration(5, 1, 1), Duration::from_nanos(5));
        // Ten years of a busy core, and nonsense.
        let ticks = 24_000_000 * 86_400 * 3650;
        assert_eq!(duration(ticks, 125, 3), Duration::from_secs(86_400 * 3650));
        assert_eq!(
            duration(u64::MAX, u32::MAX, 0).as_nanos(),
            u128::from(u64::MAX)
        );
    }
}
