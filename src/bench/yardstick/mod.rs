//! The two loops that every figure is held against. Neither counts anything, or drops what
//! the other side has no room for.
//!
//! - The *bare loop*: a thread per direction receives a batch and sends it. No filter. What
//!   the kernel asks for moving frames this way, and so the limit.
//! - The *one-frame loop*: receives, filters and sends frame by frame, as simple forwarders
//!   do; on Linux one thread for both directions.
//!
//! On Linux they are made of system calls and share nothing with softnet. On macOS they are
//! over the endpoints: there is no shorter way to a call that has to be looked up, or to
//! vmnet, than the one that these take.

#[cfg(tap)]
#[path = "linux.rs"]
mod system;

#[cfg(vmnet)]
#[path = "darwin.rs"]
mod system;

pub(super) use system::*;

/// How many frames to ask for next, where they have so many bytes on average.
fn limit_for(mean_len: usize) -> usize {
    (BATCH_BYTES / mean_len.max(1)).clamp(FRAMES_MIN, FRAMES_MAX)
}

// The limits of the forwarder when it began, which were the best that were measured for a
// bare loop on average. They stay as they are, so that figures of different years compare.
const FRAMES_MAX: usize = 32;
const FRAMES_MIN: usize = 4;
const BATCH_BYTES: usize = 128 << 10;
