//! Which core the threads of a process run on, set from outside (sched_setaffinity(2)). For
//! `bench`, which has all that it compares meet the same.

use std::fs;
use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::usage;

/// Whether there is such a thing.
pub(crate) const CAN_PIN: bool = true;

/// Puts the threads whose names end with `role`, or all of them with none, on one core: the
/// `index`th of those that this process may use, counted round and round.
pub(crate) fn pin(pid: Pid, role: &str, index: usize) -> io::Result<()> {
    let core = core(index)?;
    for task in usage::tasks(pid)? {
        if !fs::read_to_string(task.join("comm"))?
            .trim_end()
            .ends_with(role)
        {
            continue;
        }
        let id = task
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let id = id.ok_or_else(|| io::Error::other("a thread without a number"))?;
        sched_setaffinity(Pid::from_raw(id), &core)?;
    }
    Ok(())
}

/// Keeps the thread that made it on one core as long as it lives.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// On the core that [`pin`] calls by this number.
    pub(crate) fn to(index: usize) -> io::Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        sched_setaffinity(Pid::from_raw(0), &core(index)?)?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

fn core(index: usize) -> io::Result<CpuSet> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let cores: Vec<_> = (0..CpuSet::count())
        .filter(|&core| allowed.is_set(core).unwrap_or(false))
        .collect();
    let mut one = CpuSet::new();
    one.set(cores[index % cores.len()])?;
    Ok(one)
}
