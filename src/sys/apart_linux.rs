//! Keeping a thread off the core that another one works on. The scheduler wakes a thread near
//! the one that wakes it, at times on the same core, and moves it on only milliseconds later.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// A core by its number.
pub(crate) type Core = usize;

/// The core that the calling thread runs on now.
pub(crate) fn here() -> Core {
    sched_getcpu().unwrap_or(0)
}

/// Where one thread may run.
#[derive(Debug)]
pub(crate) struct Apart {
    allowed: CpuSet,
}

impl Apart {
    /// For the calling thread.
    pub(crate) fn new() -> Self {
        Self {
            allowed: sched_getaffinity(THIS).unwrap_or_default(),
        }
    }

    /// Moves the calling thread away if it runs on `core`, as far as it is allowed on others,
    /// and keeps it off there until it is to leave another one.
    pub(crate) fn leave(&self, core: Core) {
        if here() != core {
            return;
        }
        let mut others = self.allowed;
        // Neither is to be had where the thread is pinned: it stays, and its turns fail.
        let _ = others
            .unset(core)
            .and_then(|()| sched_setaffinity(THIS, &others));
    }
}

/// The calling thread.
const THIS: Pid = Pid::from_raw(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_leaves_a_core_if_it_may() {
        std::thread::spawn(|| {
            let apart = Apart::new();
            let core = here();
            apart.leave(core);
            let is_alone = std::thread::available_parallelism().unwrap().get() == 1;
            assert!(is_alone || here() != core);
        })
        .join()
        .unwrap();
    }
}
