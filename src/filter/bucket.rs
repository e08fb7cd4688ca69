//! A rate limit: so many at once, then so many per unit of time.

use crate::clock::Tick;

/// A token bucket. It counts in fractions of a token, chosen so that each tick earns a whole number
/// of them.
#[derive(Debug)]
pub(super) struct Bucket {
    parts: u64,
    capacity: u64,
    /// Fractions of a token.
    token: u64,
    /// Fractions earned per tick.
    earned: u64,
    /// The time up to which they have been earned.
    paid: Tick,
}

impl Bucket {
    /// A full bucket of `capacity` tokens, which earns one every `interval` ticks
    /// ([`Tick::PER_SECOND`]), at least one tick.
    pub(super) const fn new(capacity: u32, interval: u32) -> Self {
        Self::of(capacity, interval, 1)
    }

    /// A full bucket of `capacity` tokens, which earns `tokens` per second.
    pub(super) const fn per_second(capacity: u32, tokens: u32) -> Self {
        Self::of(capacity, Tick::PER_SECOND, tokens)
    }

    const fn of(capacity: u32, token: u32, earned: u32) -> Self {
        // Below 2^64, because both factors are below 2^32.
        let capacity = capacity as u64 * token as u64;
        Self {
            parts: capacity,
            capacity,
            token: token as u64,
            earned: earned as u64,
            paid: Tick::ZERO,
        }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Tick) -> bool {
        let earned = now.since(self.paid).saturating_mul(self.earned);
        self.parts = self.parts.saturating_add(earned).min(self.capacity);
        self.paid = self.paid.max(now);
        match self.parts.checked_sub(self.token) {
            Some(left) => {
                self.parts = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tokens there are at this second, up to 100.
    fn drain(bucket: &mut Bucket, second: u32) -> usize {
        (0..100)
            .take_while(|_| bucket.take(Tick::from_secs(second)))
            .count()
    }

    #[test]
    fn a_full_bucket_is_emptied_and_fills_slowly() {
        let mut bucket = Bucket::new(4, 10 * Tick::PER_SECOND);
        assert_eq!(drain(&mut bucket, 1000), 4);
        assert_eq!(drain(&mut bucket, 1009), 0);
        assert_eq!(drain(&mut bucket, 1010), 1);
        // The rest of an interval is not lost.
        assert_eq!(drain(&mut bucket, 1035), 2);
        assert_eq!(drain(&mut bucket, 1039), 0);
        assert_eq!(drain(&mut bucket, 1040), 1);
        assert_eq!(drain(&mut bucket, 5000), 4);
        assert_eq!(drain(&mut bucket, u32::MAX), 4);
    }

    #[test]
    fn a_steady_client_never_waits() {
        let mut bucket = Bucket::new(4, 10 * Tick::PER_SECOND);
        assert!((0..1000).all(|turn| bucket.take(Tick::from_secs(turn * 10))));
    }

    #[test]
    fn a_full_bucket_earns_nothing_for_later() {
        let mut bucket = Bucket::new(4, 10 * Tick::PER_SECOND);
        assert!(bucket.take(Tick::from_secs(100)));
        assert_eq!(drain(&mut bucket, 119), 4);
        assert_eq!(drain(&mut bucket, 128), 0);
    }

    #[test]
    fn many_a_second_are_spread_over_it() {
        let mut bucket = Bucket::new(64, Tick::PER_SECOND / 16);
        assert_eq!(drain(&mut bucket, 1000), 64);
        let mut taken = 0;
        for tick in 0..u64::from(2 * Tick::PER_SECOND) {
            taken += u32::from(bucket.take(Tick::from_secs(1000).after_ticks(tick)));
        }
        assert_eq!(taken, 31);
    }

    #[test]
    fn a_rate_that_no_whole_number_of_ticks_makes_is_kept() {
        for rate in [1, 3, 1000, 5000] {
            let mut bucket = Bucket::per_second(8192, rate);
            assert!((0..8192).all(|_| bucket.take(Tick::from_secs(1000))));
            let mut taken = 0;
            for tick in 1..=u64::from(3 * Tick::PER_SECOND) {
                let now = Tick::from_secs(1000).after_ticks(tick);
                taken += (0..10).take_while(|_| bucket.take(now)).count();
            }
            assert_eq!(taken, 3 * usize::try_from(rate).unwrap());
        }
    }

    #[test]
    fn the_greatest_rate_and_the_longest_time_overflow_nothing() {
        let mut bucket = Bucket::per_second(u32::MAX, u32::MAX);
        for now in [Tick::ZERO, Tick::NEVER, Tick::ZERO, Tick::NEVER] {
            assert!(bucket.take(now));
        }
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing() {
        let mut bucket = Bucket::new(2, Tick::PER_SECOND);
        assert_eq!(drain(&mut bucket, 100), 2);
        assert_eq!(drain(&mut bucket, 0), 0);
        assert_eq!(drain(&mut bucket, 101), 1);
    }
}
