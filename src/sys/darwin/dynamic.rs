//! What the running macOS has: symbols that not every version exports, and its version number.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

#[cfg(target_os = "macos")]
use libc::{dlsym, sysctlbyname};
#[cfg(not(target_os = "macos"))]
use vmnet_sim::{dlsym, sysctlbyname};

/// The address of `symbol`, if a loaded library exports it.
pub(crate) fn find(symbol: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: RTLD_DEFAULT looks in all that is loaded; a C string.
    NonNull::new(unsafe { dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) })
}

/// The first two numbers of the version of macOS; (0, 0) if it is unknown.
///
/// It is derived from the kernel's version, because `kern.osproductversion` depends on the caller:
/// a program that was linked against an SDK before 26 gets 16 on macOS 26 (xnu,
/// bsd/kern/kern_sysctl.c, `PROC_SDK` and the compatibility version).
pub(crate) fn macos_version() -> (u32, u32) {
    sysctl(c"kern.osrelease").map_or((0, 0), |release| version_of(&release))
}

/// The version of macOS whose kernel has the version `release`: 22.6.0 is 13.6, 24.6.0 is 15.6 and
/// 25.1.0 is 26.1. The second numbers agree since macOS 14, except for the last updates of a system
/// (15.7), whose kernel does not change.
fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let (kernel, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let major = match kernel {
        // macOS 16 to 25 do not exist.
        25.. => kernel.saturating_add(1),
        _ => kernel.saturating_sub(9),
    };
    if major == 0 { (0, 0) } else { (major, minor) }
}

/// A text from the kernel, of up to 127 bytes.
pub(crate) fn sysctl(name: &CStr) -> Option<String> {
    let mut text = [0_u8; 128];
    let mut len = text.len();
    // SAFETY: a C string, room for `len` bytes and where to say how many were written, and
    // nothing to be set.
    let result = unsafe {
        sysctlbyname(
            name.as_ptr(),
            text.as_mut_ptr().cast(),
            &raw mut len,
            ptr::null_mut(),
            0,
        )
    };
    let text = CStr::from_bytes_until_nul(&text).ok()?;
    (result == 0).then(|| text.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_follows_the_kernels() {
        for (release, version) in [
            ("22.6.0", (13, 6)),
            ("23.0.0", (14, 0)),
            ("24.5.0", (15, 5)),
            ("24.6.0", (15, 6)),
            ("25.0.0", (26, 0)),
            ("26.2.1", (27, 2)),
            ("", (0, 0)),
            ("none", (0, 0)),
            ("4294967295", (u32::MAX, 0)),
        ] {
            assert_eq!(version_of(release), version, "{release:?}");
        }
    }

    /// The simulation is 26.0 unless a test says otherwise.
    #[cfg(not(target_os = "macos"))]
    #[test]
    fn a_system_that_calls_itself_16_is_26() {
        assert_eq!(sysctl(c"kern.osproductversion").as_deref(), Some("16.0"));
        assert_eq!(macos_version(), (26, 0));
    }
}
