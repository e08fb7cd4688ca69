//! Gives back memory that softnet needs now and then only: reading the command line, opening
//! devices and giving up rights are most of its code, and DHCP and log lines come seldom.

use std::time::{Duration, Instant};

use tracing::debug;

use crate::sys::code;

/// Keeps the program's code out of this process' memory but for what frames and the look
/// around each second need, a third of it.
#[derive(Debug)]
pub struct SeldomCode {
    due: Instant,
}

impl SeldomCode {
    /// Gives back the code of the start.
    #[must_use]
    pub fn after_start() -> Self {
        give_back_code();
        Self {
            due: Instant::now() + SETTLED,
        }
    }

    /// Gives back what has come since, if it is time to: to be called whenever the main
    /// thread is awake.
    pub fn look(&mut self) {
        let now = Instant::now();
        if now >= self.due {
            give_back_code();
            self.due = now + EVERY;
        }
    }
}

/// Takes the program's code out of this process' memory; what is needed comes back, some 20
/// page faults of about 1 us. The rest stays in the system's cache of files, shared by all that
/// run it, as long as there is room: this is for who adds up what many forwarders have
/// resident.
pub fn give_back_code() {
    if let Err(error) = code::let_go() {
        debug!("the code of the start stays in memory: {error}");
    }
}

/// By then the rights are gone, the log has said so, and the VM's first frames have come.
const SETTLED: Duration = Duration::from_secs(4);
const EVERY: Duration = Duration::from_mins(1);
