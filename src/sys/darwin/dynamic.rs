//! What the running macOS has: symbols that not every version exports, and its version.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

#[cfg(target_os = "macos")]
use libc::{dlsym, sysctlbyname};
#[cfg(not(target_os = "macos"))]
use vmnet_sim::{dlsym, sysctlbyname};

/// The address of `symbol`, if a library that is loaded exports it.
pub(crate) fn find(symbol: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: RTLD_DEFAULT looks in all that is loaded; a C string.
    NonNull::new(unsafe { dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) })
}

/// The version of macOS, its first two numbers. (0, 0) if it does not tell.
pub(crate) fn macos_version() -> (u32, u32) {
    // The name is there since macOS 10.13.4.
    let text = sysctl(c"kern.osproductversion").unwrap_or_default();
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A text of the kernel's, of up to 127 bytes.
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
