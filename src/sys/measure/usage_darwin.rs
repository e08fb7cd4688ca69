//! What a process of the same user has used so far, seen from outside: libproc's
//! proc_pidinfo and proc_pid_rusage (xnu, bsd/sys/proc_info.h and resource.h). For `bench`.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{self, size_of};
use std::time::Duration;

use mach2::mach_time::mach_timebase_info;
use nix::unistd::Pid;

/// The CPU time of all threads, in user and kernel mode.
pub(crate) fn cpu(pid: Pid) -> io::Result<Duration> {
    let task = task(pid)?;
    let mut base = mach_timebase_info { numer: 0, denom: 0 };
    // SAFETY: mach/mach_time.h: room for the two numbers.
    unsafe { mach_timebase_info(&raw mut base) };
    let ticks = task.pti_total_user + task.pti_total_system;
    Ok(super::mach_time::duration(ticks, base.numer, base.denom))
}

/// How often its threads gave up a core or lost it.
pub(crate) fn switches(pid: Pid) -> io::Result<u64> {
    // The kernel counts in 32 bits.
    Ok(task(pid)?.pti_csw.cast_unsigned().into())
}

/// The same of its first thread alone, where the system tells.
pub(crate) fn switches_of_first(_pid: Pid) -> Option<u64> {
    None
}

/// Whether every thread sleeps and waits for an event.
pub(crate) fn is_asleep(pid: Pid) -> io::Result<bool> {
    let mut handles = [0_u64; THREADS_MAX];
    let len = ask(pid, PROC_PIDLISTTHREADS, 0, &mut handles)?;
    let count = len / size_of::<u64>();
    let waits = |&handle: &u64| {
        // SAFETY: a plain C structure of integers, for which all bytes zero is a valid value.
        let mut thread: libc::proc_threadinfo = unsafe { mem::zeroed() };
        // A thread that has ended meanwhile was not asleep.
        ask(pid, libc::PROC_PIDTHREADINFO, handle, &mut thread).is_ok()
            && thread.pth_run_state == libc::TH_STATE_WAITING
    };
    // What fills the list is not all of it.
    Ok(count < THREADS_MAX && handles[..count].iter().all(waits))
}

/// Memory in KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// What the kernel holds against the process: its footprint, compressed pages included.
    pub(crate) anonymous: u64,
    /// All pages that it has in memory, those of the program's file too.
    pub(crate) resident: u64,
    /// The same, each page divided by how many processes have it, where the system tells.
    pub(crate) proportional: Option<u64>,
}

/// The memory of the process now.
pub(crate) fn memory(pid: Pid) -> io::Result<Memory> {
    // SAFETY: a plain C structure of integers, for which all bytes zero is a valid value.
    let mut usage: libc::rusage_info_v2 = unsafe { mem::zeroed() };
    // SAFETY: by libproc.h, a process, a version of the structure, and room for that version.
    let result = unsafe {
        libc::proc_pid_rusage(pid.as_raw(), libc::RUSAGE_INFO_V2, (&raw mut usage).cast())
    };
    super::cvt(result)?;
    Ok(Memory {
        anonymous: usage.ri_phys_footprint >> 10,
        resident: usage.ri_resident_size >> 10,
        proportional: None,
    })
}

fn task(pid: Pid) -> io::Result<libc::proc_taskinfo> {
    // SAFETY: a plain C structure of integers, for which all bytes zero is a valid value.
    let mut task: libc::proc_taskinfo = unsafe { mem::zeroed() };
    ask(pid, libc::PROC_PIDTASKINFO, 0, &mut task)?;
    Ok(task)
}

/// Has the kernel write what `question` asks for, which is one `T` or, as far as they fit,
/// several integers. Returns how many bytes were written.
fn ask<T: Copy>(pid: Pid, question: c_int, argument: u64, answer: &mut T) -> io::Result<usize> {
    let room = size_of::<T>().try_into().map_err(io::Error::other)?;
    let answer: *mut c_void = (&raw mut *answer).cast();
    // SAFETY: by libproc.h, a process, a question and its argument, and room for `room` bytes;
    // whatever bytes come, they are values of the integers that `T` is made of.
    let written = unsafe { libc::proc_pidinfo(pid.as_raw(), question, argument, answer, room) };
    match usize::try_from(written) {
        Ok(written @ 1..) => Ok(written),
        // By libproc.c, 0 stands for an error, which is in errno.
        _ => Err(io::Error::last_os_error()),
    }
}

/// xnu, bsd/sys/proc_info.h; its answers are handles for `PROC_PIDTHREADINFO`.
const PROC_PIDLISTTHREADS: c_int = 6;
/// What is measured has six at most.
const THREADS_MAX: usize = 64;
