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
        let Ok(here) = sched_getcpu() else {
            return;
        };
        if self.off.replace(here) == Some(here) {
            return;
        }
        let mut others = self.allowed;
        // Refused where it is pinned to this one core: it stays.
        let _ = others
            .unset(here)
            .and_then(|()| sched_setaffinity(self.thread, &others));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    /// Where a thread may run that was kept off the core which is left to this one. It is itself
    /// pinned to that core before, if so.
    fn kept_off(is_pinned: bool) -> (CpuSet, usize) {
        let here = sched_getcpu().unwrap();
        let mut one = CpuSet::new();
        one.set(here).unwrap();
        sched_setaffinity(gettid(), &one).unwrap();
        let (say, said) = channel();
        let (end, ended) = channel::<()>();
        let other = thread::spawn(move || {
            let all = if is_pinned { one } else { every() };
            sched_setaffinity(gettid(), &all).unwrap();
            say.send(Apart::me()).unwrap();
            let _ = ended.recv();
        });
        let mut apart = said.recv().unwrap();
        apart.keep_off_here();
        let cores = sched_getaffinity(apart.thread).unwrap();
        drop(end);
        other.join().unwrap();
        (cores, here)
    }

    fn every() -> CpuSet {
        // What the test may not use, the kernel takes away.
        let mut all = CpuSet::new();
        (0..CpuSet::count()).for_each(|core| all.set(core).unwrap());
        all
    }

    fn in_a_thread(work: impl FnOnce() + Send + 'static) {
        thread::spawn(work).join().unwrap();
    }

    #[test]
    fn a_thread_is_kept_off_a_core_if_it_may_run_on_others() {
        in_a_thread(|| {
            let is_alone = thread::available_parallelism().unwrap().get() == 1;
            let (cores, off) = kept_off(false);
            assert_eq!(cores.is_set(off).unwrap(), is_alone);
        });
    }

    #[test]
    fn a_thread_that_is_pinned_there_stays() {
        in_a_thread(|| {
            let (cores, off) = kept_off(true);
            assert!(cores.is_set(off).unwrap());
        });
    }
}
