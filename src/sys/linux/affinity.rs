//! CPU affinity: keeps a thread off the core that another one works on.
//!
//! The scheduler wakes a thread near the one that wakes it, sometimes on the same core. There it
//! cannot run until the other thread sleeps, or until milliseconds have passed, so it cannot ask
//! for another core itself. The thread that wakes it does this.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// A thread, and the processors on which it may run.
#[derive(Debug)]
pub(crate) struct ThreadAffinity {
    thread: Pid,
    allowed: CpuSet,
    /// The core that it was last kept off.
    off: Option<usize>,
}

impl ThreadAffinity {
    /// The calling thread.
    pub(crate) fn of_this_thread() -> Self {
        let thread = gettid();
        Self {
            thread,
            allowed: sched_getaffinity(thread).unwrap_or_default(),
            off: None,
        }
    }

    /// Keeps the thread off the core that the calling thread runs on now, if it may run on others.
    /// This holds until the next call on another core.
    pub(crate) fn keep_off_this_core(&mut self) {
        let Ok(here) = sched_getcpu() else {
            return;
        };
        if self.off.replace(here) == Some(here) {
            return;
        }
        let mut others = self.allowed;
        // The kernel refuses if the thread is pinned to this core; then it stays there.
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

    /// Pins this thread to its current core and keeps another thread off it. Returns the processors
    /// on which the other thread may then run, and the core. With `is_pinned` the other thread is
    /// first pinned to the same core.
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
            say.send(ThreadAffinity::of_this_thread()).unwrap();
            let _ = ended.recv();
        });
        let mut affinity = said.recv().unwrap();
        affinity.keep_off_this_core();
        let cores = sched_getaffinity(affinity.thread).unwrap();
        drop(end);
        other.join().unwrap();
        (cores, here)
    }

    fn every() -> CpuSet {
        // The kernel removes the processors that the test may not use.
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
