//! Holding a subject, letting it go on, and telling when it has nothing to do any more.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::{LOOK_EVERY, PATIENCE, Testbed};
use crate::sys::{timestamp, usage};

impl Testbed {
    /// Stops all threads of the subject. They have stopped when this returns.
    pub(in crate::bench) fn hold(&mut self) -> io::Result<()> {
        kill(self.pid, Signal::SIGSTOP)?;
        match waitpid(self.pid, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(()),
            _ => Err(self.complaint("it ended")),
        }
    }

    /// Lets a subject that is held go on, and waits until it has nothing to do any more. To look
    /// takes time from it, so nobody does while it is `busy` in any case.
    pub(in crate::bench) fn release(&mut self, busy: Duration) -> io::Result<Released> {
        let before = usage::cpu(self.pid)?;
        let start = Instant::now();
        kill(self.pid, Signal::SIGCONT)?;
        thread::sleep(busy);
        let quiet_since = self.quiesce_since()?;
        Ok(Released {
            cpu: usage::cpu(self.pid)? - before,
            took: quiet_since - start,
        })
    }

    /// Waits until the subject sleeps.
    pub(in crate::bench) fn quiesce(&mut self) -> io::Result<()> {
        self.quiesce_since().map(drop)
    }

    /// The same, and returns since when it does.
    ///
    /// Its CPU clock is read first, which is one call and the same for all. To ask for the states
    /// of its threads takes several each, up to the first that works.
    fn quiesce_since(&mut self) -> io::Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        // Once is not enough: a thread sleeps for a moment when it waits for a page or a lock,
        // or with a timer for room; but then it works in between.
        let (mut looks, mut since, mut cpu) = (0, deadline, Duration::ZERO);
        let enough = if self.is_lossy() {
            LOOKS_AT_VMNET
        } else {
            LOOKS
        };
        while looks < enough {
            thread::sleep(LOOK_EVERY);
            let now = Instant::now();
            if now > deadline {
                return Err(self.complaint("it does not quiesce"));
            }
            let Ok(used) = usage::cpu(self.pid) else {
                return Err(self.complaint("it ended"));
            };
            if used != cpu {
                (looks, since, cpu) = (0, now, used);
                continue;
            }
            match usage::is_asleep(self.pid) {
                Ok(true) => looks += 1,
                Ok(false) => looks = 0,
                Err(_) => return Err(self.complaint("it ended")),
            }
        }
        Ok(since)
    }
}

/// What it took a subject to work off what was there.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Released {
    /// The CPU time.
    pub(in crate::bench) cpu: Duration,
    /// The time until it was first seen to have done all.
    pub(in crate::bench) took: Duration,
}

/// So many looks in a row find it asleep after another that found its clock where it is, for
/// longer than any timer of its own.
const LOOKS: u32 = if timestamp::BY_KERNEL { 2 } else { 8 };
/// Frames of vmnet's go through other processes, and so do a VM's: 5 ms.
const LOOKS_AT_VMNET: u32 = 100;
