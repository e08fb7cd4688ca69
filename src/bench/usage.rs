//! What a process has used so far, seen from outside, so that looking costs the process
//! nothing: its CPU clock and what Linux tells in /proc/PID (proc(5)).

use std::fs;
use std::io;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The CPU time of all threads, in user and kernel mode.
pub(super) fn cpu(pid: Pid) -> io::Result<Duration> {
    let clock: ClockId = clock_getcpuclockid(pid)?;
    Ok(clock_gettime(clock)?.into())
}

/// How often its threads gave up a core or lost it.
pub(super) fn switches(pid: Pid) -> io::Result<u64> {
    let mut total = 0;
    for task in tasks(pid)? {
        let Ok(status) = fs::read_to_string(task.join("status")) else {
            continue; // The thread has ended.
        };
        total += field(&status, "voluntary_ctxt_switches:");
        total += field(&status, "nonvoluntary_ctxt_switches:");
    }
    Ok(total)
}

/// Whether every thread sleeps and waits for an event.
pub(super) fn is_asleep(pid: Pid) -> io::Result<bool> {
    all_are(pid, 'S')
}

/// Memory in KiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Pages that are the process' own, with no file behind them.
    pub(super) anonymous: u64,
    /// All pages that it has in memory, those of the program's file too.
    pub(super) resident: u64,
    /// The same, each page divided by how many processes have it.
    pub(super) proportional: u64,
}

/// The memory of the process now.
pub(super) fn memory(pid: Pid) -> io::Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Memory {
        anonymous: field(&rollup, "Anonymous:"),
        resident: field(&rollup, "Rss:"),
        proportional: field(&rollup, "Pss:"),
    })
}

/// Puts the threads whose names end with `role`, or all of them with none, on one core: the
/// `index`th of those that this process may use, counted round and round.
pub(super) fn pin(pid: Pid, role: &str, index: usize) -> io::Result<()> {
    let core = core(index)?;
    for task in tasks(pid)? {
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
pub(super) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// On the core that [`pin`] calls by this number.
    pub(super) fn to(index: usize) -> io::Result<Self> {
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

fn all_are(pid: Pid, wanted: char) -> io::Result<bool> {
    for task in tasks(pid)? {
        let stat = fs::read_to_string(task.join("stat"))?;
        // The name before it is in parentheses and may hold anything.
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        if state != Some(wanted) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn tasks(pid: Pid) -> io::Result<Vec<std::path::PathBuf>> {
    fs::read_dir(format!("/proc/{pid}/task"))?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

/// The number behind the first line that begins with `name`, or 0.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_something() {
        let own = Pid::this();
        let before = cpu(own).unwrap();
        let memory = memory(own).unwrap();
        assert!(memory.anonymous > 100 && memory.resident > memory.anonymous);
        assert!(switches(own).unwrap() > 0);
        assert!(!is_asleep(own).unwrap(), "this thread runs");
        assert!(cpu(own).unwrap() > before);
    }
}
