//! Limits how often the VM may ask: so many messages at once, then one in a while.

use crate::filter::Seconds;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: u32,
    capacity: u32,
    /// Seconds until another token.
    interval: u32,
    /// Until when tokens were earned.
    paid: Seconds,
}

impl Bucket {
    /// A full bucket of so many tokens, which earns one in so many seconds, at least one.
    pub(super) const fn new(capacity: u32, interval: u32) -> Self {
        Self {
            tokens: capacity,
            capacity,
            interval,
            paid: Seconds(0),
        }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Seconds) -> bool {
        let missing = self.capacity - self.tokens;
        let earned = now.0.saturating_sub(self.paid.0) / self.interval;
        if earned >= missing {
            self.tokens = self.capacity;
            self.paid = now;
        } else {
            self.tokens += earned;
            self.paid.0 += earned * self.interval;
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
            .take_while(|_| bucket.take(Seconds(second)))
            .count()
    }

    #[test]
    fn a_full_bucket_is_emptied_and_fills_slowly() {
        let mut bucket = Bucket::new(4, 10);
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
        let mut bucket = Bucket::new(4, 10);
        assert!((0..1000).all(|turn| bucket.take(Seconds(turn * 10))));
    }

    #[test]
    fn a_full_bucket_earns_nothing_for_later() {
        let mut bucket = Bucket::new(4, 10);
        assert!(bucket.take(Seconds(100)));
        assert_eq!(drain(&mut bucket, 119), 4);
        assert_eq!(drain(&mut bucket, 128), 0);
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing() {
        let mut bucket = Bucket::new(2, 1);
        assert_eq!(drain(&mut bucket, 100), 2);
        assert_eq!(drain(&mut bucket, 0), 0);
        assert_eq!(drain(&mut bucket, 101), 1);
    }
}
