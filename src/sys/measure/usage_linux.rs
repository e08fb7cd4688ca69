//! What a process has used so far, seen from outside, so that looking costs the process
//! nothing: its CPU clock and what Linux tells in /proc/PID (proc(5)). For `bench`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The CPU time of all threads, in user and kernel mode.
pub(crate) fn cpu(pid: Pid) -> io::Result<Duration> {
    let clock: ClockId = clock_getcpuclockid(pid)?;
    Ok(clock_gettime(clock)?.into())
}

/// How often its threads gave up a core or lost it.
pub(crate) fn switches(pid: Pid) -> io::Result<u64> {
    let tasks = tasks(pid)?;
    Ok(tasks.iter().map(|task| switches_of(task)).sum())
}

/// The same of its first thread alone, where the system tells.
#[allow(clippy::unnecessary_wraps)] // As elsewhere.
pub(crate) fn switches_of_first(pid: Pid) -> Option<u64> {
    Some(switches_of(Path::new(&format!("/proc/{pid}/task/{pid}"))))
}

fn switches_of(task: &Path) -> u64 {
    // Without this the thread has ended.
    let status = fs::read_to_string(task.join("status")).unwrap_or_default();
    let lines = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
    lines.map(|name| field(&status, name)).iter().sum()
}

/// Whether every thread sleeps and waits for an event.
pub(crate) fn is_asleep(pid: Pid) -> io::Result<bool> {
    all_are(pid, 'S')
}

/// Memory in KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Pages that are the process' own, with no file behind them.
    pub(crate) anonymous: u64,
    /// All pages that it has in memory, those of the program's file too.
    pub(crate) resident: u64,
    /// The same, each page divided by how many processes have it, where the system tells.
    pub(crate) proportional: Option<u64>,
}

/// The memory of the process now.
pub(crate) fn memory(pid: Pid) -> io::Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Memory {
        anonymous: field(&rollup, "Anonymous:"),
        resident: field(&rollup, "Rss:"),
        proportional: Some(field(&rollup, "Pss:")),
    })
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

/// The directory of each of its threads.
pub(super) fn tasks(pid: Pid) -> io::Result<Vec<PathBuf>> {
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
        let of_first = switches_of_first(own).unwrap();
        assert!(of_first > 0 && switches(own).unwrap() > of_first);
        assert!(!is_asleep(own).unwrap(), "this thread runs");
        assert!(cpu(own).unwrap() > before);
    }
}
