//! The subject's process: waiting until it forwards, holding it and letting it go on, telling
//! when it has nothing to do any more (it *quiesces*), and ending it.

use std::io::{self, Read};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::{LOOK_EVERY, PATIENCE, Testbed};
use crate::bench::subject::{FORWARDING, Report};
use crate::sys::{timestamp, usage};

impl Testbed {
    /// Waits until the subject says that it forwards.
    pub(super) fn await_start(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while !self.hear().contains(FORWARDING) {
            self.is_there()?;
            if Instant::now() > deadline {
                return Err(self.complaint("it does not start"));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Fails with the subject's own words if it has ended, which say why.
    pub(super) fn is_there(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            return Ok(());
        }
        let line = self.hear().lines().last();
        let line = line.unwrap_or("the forwarder under measurement ended without a word");
        let line = line.trim_start_matches("softnet: ");
        Err(io::Error::other(line.to_owned()))
    }

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

    /// Ends the subject and returns what it says of itself.
    pub(in crate::bench) fn finish(mut self) -> io::Result<Report> {
        kill(self.pid, Signal::SIGTERM)?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            // So that it has room to say more.
            self.hear();
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                return Err(self.complaint("it does not end"));
            }
            thread::sleep(LOOK_EVERY);
        };
        if !status.success() {
            return Err(self.complaint(&format!("it ended with {status}")));
        }
        Ok(Report::read(self.hear()))
    }

    /// Has the subject end as it would by itself, which stops vmnet's interface.
    fn end_gently(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill(self.pid, Signal::SIGTERM);
        // Where it is held.
        let _ = kill(self.pid, Signal::SIGCONT);
        let deadline = Instant::now() + END_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(LOOK_EVERY);
        }
    }

    /// All that the subject has said so far.
    fn hear(&mut self) -> &str {
        let mut said = Vec::new();
        if let Some(stderr) = &mut self.child.stderr {
            // Ends with that there is no more now.
            let _ = stderr.read_to_end(&mut said);
        }
        self.said.push_str(&String::from_utf8_lossy(&said));
        &self.said
    }

    pub(super) fn complaint(&mut self, what: &str) -> io::Error {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let words: Vec<_> = what.lines().chain(self.hear().lines()).collect();
        io::Error::other(format!(
            "the forwarder under measurement failed: {}",
            words.join(" ")
        ))
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if self.ends_gently {
            self.end_gently();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
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
/// Longer than vmnet may take to start.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// Softnet ends within a second.
const END_PATIENCE: Duration = Duration::from_secs(2);
