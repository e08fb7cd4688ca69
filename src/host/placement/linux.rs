//! Placement on Linux: sets of processors, chosen by the last-level cache that they share.

use std::fs;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::Pin;
use crate::direction::Direction;

/// Where the threads will run, as far as this machine allows.
#[derive(Debug, Clone)]
pub enum Placement {
    /// No preference.
    Anywhere,
    /// One set of processors for all threads.
    Together(CpuSet),
    /// One processor for each direction.
    Apart {
        /// The processor of the threads that move frames from the VM.
        outbound: usize,
        /// The processor of the threads that move frames to the VM.
        inbound: usize,
    },
}

impl Placement {
    /// Whether [`Pin::Cpus`] is available.
    pub const CAN_PIN: bool = true;

    /// Plans the placement for this machine. [`Pin::Auto`] selects the group of the processor that
    /// this thread runs on, so that the VMs of a large machine end up where it had room.
    ///
    /// # Errors
    /// A text for the log, which says what could not be determined.
    pub fn plan(pin: Pin) -> Result<Self, String> {
        match pin {
            Pin::None => Ok(Self::Anywhere),
            Pin::Cpus { outbound, inbound } => Ok(Self::Apart { outbound, inbound }),
            Pin::Auto => {
                let allowed = sched_getaffinity(Pid::from_raw(0));
                let allowed = allowed.map_err(|error| format!("allowed processors: {error}"))?;
                let cpu = sched_getcpu().map_err(|error| format!("this processor: {error}"))?;
                together(&allowed, cpu, Path::new("/sys/devices/system/cpu"))
            }
        }
    }

    /// Places the calling thread, which works for `direction`.
    ///
    /// # Errors
    /// A text for the log, which says what failed. The thread can still run where it could before.
    pub fn apply(&self, direction: Direction) -> Result<(), String> {
        let (outbound, inbound) = match self {
            Self::Anywhere => return Ok(()),
            Self::Together(set) => {
                return sched_setaffinity(Pid::from_raw(0), set)
                    .map_err(|error| format!("cannot stay within one cache: {error}"));
            }
            Self::Apart { outbound, inbound } => (*outbound, *inbound),
        };
        let cpu = match direction {
            Direction::Outbound => outbound,
            Direction::Inbound => inbound,
        };
        let mut set = CpuSet::new();
        // The set has room for the first 1024 processors; beyond that it returns EINVAL too.
        let pinned = set
            .set(cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        pinned.map_err(|error| format!("cannot pin to processor {cpu}: {error}"))
    }
}

/// The `allowed` processors that share a last-level cache with `cpu`.
fn together(allowed: &CpuSet, cpu: usize, sysfs: &Path) -> Result<Placement, String> {
    let unknown = |path: &Path| format!("cannot tell which processors share {}", path.display());
    let caches = sysfs.join(format!("cpu{cpu}/cache"));
    let mut last = None;
    for index in fs::read_dir(&caches)
        .map_err(|_| unknown(&caches))?
        .flatten()
    {
        let level = fs::read_to_string(index.path().join("level")).ok();
        let level: Option<u32> = level.and_then(|level| level.trim().parse().ok());
        last = last.max(level.map(|level| (level, index.path())));
    }
    let (_, cache) = last.ok_or_else(|| unknown(&caches))?;
    let list = fs::read_to_string(cache.join("shared_cpu_list")).map_err(|_| unknown(&cache))?;
    let sharing = parse_list(list.trim()).ok_or_else(|| unknown(&cache))?;
    let is_allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    let (mut set, mut all_share) = (CpuSet::new(), true);
    for cpu in (0..CpuSet::count()).filter(is_allowed) {
        if sharing.iter().any(|range| range.contains(&cpu)) {
            set.set(cpu).map_err(|_| unknown(&cache))?;
        } else {
            all_share = false;
        }
    }
    Ok(if all_share {
        Placement::Anywhere
    } else {
        Placement::Together(set)
    })
}

/// Parses a list of processors in the kernel's format: `0-3,8,10-11`.
fn parse_list(text: &str) -> Option<Vec<std::ops::RangeInclusive<usize>>> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::thread;

    use super::*;

    fn set(cpus: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(*cpu).unwrap());
        set
    }

    #[test]
    fn a_group_is_what_shares_the_last_cache_and_is_allowed() {
        // A machine with two groups, whose sysfs lists an instruction cache last.
        let sysfs = env::temp_dir().join(format!("softnet-sysfs-{}", std::process::id()));
        for (index, level, list) in [
            ("index0", 1, "5"),
            ("index2", 3, "4-7,12"),
            ("index3", 1, "5"),
        ] {
            let cache = sysfs.join("cpu5/cache").join(index);
            fs::create_dir_all(&cache).unwrap();
            fs::write(cache.join("level"), format!("{level}\n")).unwrap();
            fs::write(cache.join("shared_cpu_list"), format!("{list}\n")).unwrap();
        }
        let plan = |allowed: &[usize]| together(&set(allowed), 5, &sysfs);
        let split = plan(&[0, 1, 5, 6, 12]);
        let whole = plan(&[4, 5, 12]);
        let unknown = together(&set(&[0]), 9, &sysfs);
        fs::remove_dir_all(&sysfs).unwrap();
        assert!(matches!(split, Ok(Placement::Together(group)) if group == set(&[5, 6, 12])));
        assert!(matches!(whole, Ok(Placement::Anywhere)));
        assert!(unknown.unwrap_err().contains("cpu9"));
    }

    #[test]
    fn a_thread_pins_itself_to_its_direction_s_processor() {
        let cpu = sched_getcpu().unwrap();
        let wish = Placement::Apart {
            outbound: cpu,
            inbound: 1023,
        };
        let thread = thread::spawn(move || {
            wish.apply(Direction::Outbound).unwrap();
            let pinned = sched_getaffinity(Pid::from_raw(0)).unwrap();
            (pinned == set(&[cpu]), wish.apply(Direction::Inbound))
        });
        let (pinned, refused) = thread.join().unwrap();
        assert!(pinned);
        assert!(refused.unwrap_err().contains("processor 1023"));
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        Placement::plan(Pin::Auto)
            .unwrap()
            .apply(Direction::Inbound)
            .unwrap();
    }
}
