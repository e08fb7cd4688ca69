//! Where a thread may run, on macOS: a quality-of-service class and, on Intel, a hint to share a
//! cache.

use std::io;

/// Requests the quality-of-service class for which the performance cores are meant, for the calling
/// thread.
pub(crate) fn be_interactive() -> io::Result<()> {
    // SAFETY: by pthread/qos.h, a class and a priority within it; the calling thread's alone
    // changes.
    let result = unsafe {
        libc::pthread_set_qos_class_self_np(libc::qos_class_t::QOS_CLASS_USER_INTERACTIVE, 0)
    };
    match result {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Hints that threads of one process with the same `tag` should share a second-level cache. Apple
/// Silicon does not support this (xnu, osfmk/arm/cpu_affinity.h).
#[cfg(target_arch = "x86_64")]
pub(crate) fn share_cache(tag: i32) -> io::Result<()> {
    use mach2::kern_return::KERN_SUCCESS;
    use mach2::mach_init::mach_thread_self;
    use mach2::mach_port::mach_port_deallocate;
    use mach2::thread_policy::{
        THREAD_AFFINITY_POLICY, THREAD_AFFINITY_POLICY_COUNT, thread_affinity_policy_data_t,
        thread_policy_set,
    };
    use mach2::traps::mach_task_self;

    let mut policy = thread_affinity_policy_data_t { affinity_tag: tag };
    // SAFETY: takes nothing, and gives a reference to the port of this thread.
    let thread = unsafe { mach_thread_self() };
    // SAFETY: by mach/thread_policy.h, a thread, a flavor, and its policy in as many integers
    // as the count says.
    let result = unsafe {
        thread_policy_set(
            thread,
            THREAD_AFFINITY_POLICY,
            (&raw mut policy).cast(),
            THREAD_AFFINITY_POLICY_COUNT,
        )
    };
    // SAFETY: takes nothing; the port of this task.
    let task = unsafe { mach_task_self() };
    // SAFETY: the reference from above, given back once.
    unsafe { mach_port_deallocate(task, thread) };
    match result {
        KERN_SUCCESS => Ok(()),
        // Mach has no errno, and this call does not set it.
        error => Err(io::Error::other(format!("kern_return_t {error}"))),
    }
}
