//! Whether the process has more privileges than its caller.

/// Whether the program file gave the process more privileges than its caller has (SUID, SGID, or
/// file capabilities), so that the environment is not to be trusted.
#[cfg(target_os = "linux")]
pub(crate) fn is_set_id() -> bool {
    // SAFETY: getauxval(3) reads a table that the kernel handed over at start; no arguments
    // but a number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether the program file gave the process more privileges than its caller has (SUID or SGID), so
/// that the environment is not to be trusted.
#[cfg(target_os = "macos")]
pub(crate) fn is_set_id() -> bool {
    // SAFETY: issetugid(2) takes nothing and cannot fail.
    unsafe { libc::issetugid() != 0 }
}
