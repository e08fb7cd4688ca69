//! The system log: syslog(3), which on macOS since 10.12 writes to the unified log
//! (`log show --predicate 'process == "softnet"'`).

use std::ffi::CString;

/// Writes one line. The system adds the program's name and the time.
pub(crate) fn write(line: &[u8]) {
    let Ok(line) = CString::new(line.trim_ascii_end()) else {
        return;
    };
    let priority = libc::LOG_DAEMON | libc::LOG_NOTICE;
    // SAFETY: by syslog(3), a priority, and a format that takes one C string.
    unsafe { libc::syslog(priority, c"%s".as_ptr(), line.as_ptr()) };
}
