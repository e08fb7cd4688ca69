//! Information about the system: its processor, and how busy it is: /proc/cpuinfo and /proc/loadavg (proc(5)). For `bench`.

use std::fs;

/// The model of the processor; None where the kernel does not tell (on ARM).
pub(crate) fn processor() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    line.map(|(_, name)| name.to_owned())
}

/// The load over one minute.
pub(crate) fn load() -> Option<f64> {
    let averages = fs::read_to_string("/proc/loadavg").ok()?;
    averages.split(' ').next()?.parse().ok()
}
