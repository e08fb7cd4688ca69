//! Keeping a thread off the core that another one works on. The scheduler wakes a thread near
//! the one that wakes it, at times on the same core. There it has to wait until that one
//! sleeps, or for milliseconds, before it may even ask for another core: so it is not the one
//! that asks.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// A thread, and where it may run.
#[derive(Debug)]
pub(crate) struct Apart {
    thread: Pid,
    allowed: CpuSet,
    /// The core that it is kept off.
    off: Option<usize>,
}

impl Apart {
    /// The calling thread.
    pub(crate) fn me() -> Self {
        let thread = gettid();
        Self {
            thread,
            allowed: sched_getaffinity(thread).unwrap_or_default(),
            off: None,
        }
    }

    /// Keeps it off the core that the calling thread runs on now, as far as it is allowed on
    /// others, until it is to be kept off another one.
    pub(crate) fn keep_off_here(&mut self) {
        let here = sched_getcpu().ok();
        if here.is_none() || here == self.off {
            return;
        }
        self.off = here;
        let mut others = self.allowed;
        // Refused where it is pinned to this one core: it stays.
        let _ = others
            .unset(here.unwrap_or(0))
            .and_then(|()| sched_setaffinity(self.thread, &others));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn a_thread_is_kept_off_a_core_if_it_may_run_on_others() {
        let (say, said) = channel();
        let (end, ended) = channel::<()>();
        let other = thread::spawn(move || {
            say.send(Apart::me()).unwrap();
            let _ = ended.recv();
            sched_getcpu().unwrap()
        });
        let mut apart = said.recv().unwrap();
        apart.keep_off_here();
        let off = apart.off.unwrap();
        drop(end);
        let is_alone = thread::available_parallelism().unwrap().get() == 1;
        assert!(other.join().unwrap() != off || is_alone);
    }
}
