//! Limits how often something may happen: so often at once, then so often in a while.

use crate::clock::Tick;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: u32,
    capacity: u32,
    /// Ticks until another token.
    interval: u32,
    /// Until when tokens were earned.
    paid: Tick,
}

impl Bucket {
    /// A full bucket of so many tokens, which earns another in so many ticks
    /// ([`Tick::PER_SECOND`]), at least one.
    pub(super) const fn new(capacity: u32, interval: u32) -> Self {
        Self {
            tokens: capacity,
            capacity,
            interval,
            paid: Tick::ZERO,
        }
    }

    /// Takes a token, if there is one.
    #[inline]
    pub(super) fn take(&mut self, now: Tick) -> bool {
        let missing = self.capacity - self.tokens;
        let passed = now.since(self.paid);
        let earned = passed / u64::from(self.interval);
        match u32::try_from(earned) {
            Ok(earned) if earned < missing => {
                self.tokens += earned;
                let paid = u64::from(earned) * u64::from(self.interval);
                self.paid = self.paid.after_ticks(paid);
            }
            _ => {
                self.tokens = self.capacity;
                self.paid = now;
            }
        }
        let has_token = self.tokens > 0;
        self.tokens -= u32::from(has_token);
        has_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tokens there are at a second, up to 100.
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
        // What is left of an interval is not lost.
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
    fn a_clock_that_goes_back_earns_nothing() {
        let mut bucket = Bucket::new(2, Tick::PER_SECOND);
        assert_eq!(drain(&mut bucket, 100), 2);
        assert_eq!(drain(&mut bucket, 0), 0);
        assert_eq!(drain(&mut bucket, 101), 1);
    }
}
