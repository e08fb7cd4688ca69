//! The directories for what lasts as long as processes do, such as locks, and the list of macOS'
//! DHCP server.

use std::path::PathBuf;

use nix::unistd::Uid;

/// The host's directory for that. Only root may write to it, except for group `daemon` on macOS.
#[cfg(target_os = "linux")]
pub(crate) const OF_HOST: &str = "/run";
/// The host's directory for that. Only root may write to it, except for group `daemon` on macOS.
#[cfg(target_os = "macos")]
pub(crate) const OF_HOST: &str = "/var/run";

/// One user's directory for that, which may not exist; None if the system names none.
///
/// The environment is used only if it may be trusted (`trust_environment`).
#[cfg(target_os = "linux")]
pub(crate) fn of_user(user: Uid, trust_environment: bool) -> Option<PathBuf> {
    // XDG Base Directory Specification 0.8: it must be absolute.
    let named = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| trust_environment);
    let named = named.map(PathBuf::from).filter(|path| path.is_absolute());
    // Where systemd-logind and elogind create it, whatever the environment says.
    named.or_else(|| Some(PathBuf::from(format!("/run/user/{user}"))))
}

/// One user's directory for that, which may not exist; None if the system names none.
///
/// macOS has no runtime directory. The one for caches is the closest: it is created with mode 0700,
/// and files in it are not removed while the system is running, unlike in the one for temporary
/// files (confstr(3), `_CS_DARWIN_USER_CACHE_DIR` and `_CS_DARWIN_USER_TEMP_DIR`).
#[cfg(target_os = "macos")]
pub(crate) fn of_user(_user: Uid, _trust_environment: bool) -> Option<PathBuf> {
    use std::ffi::{CStr, OsStr};
    use std::os::unix::ffi::OsStrExt;

    let mut path = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: confstr(3) writes at most as many bytes as it is told to, a final zero included,
    // and the buffer has them.
    let len = unsafe {
        libc::confstr(
            libc::_CS_DARWIN_USER_CACHE_DIR,
            path.as_mut_ptr().cast(),
            path.len(),
        )
    };
    let path = CStr::from_bytes_until_nul(path.get(..len)?).ok()?;
    (!path.is_empty()).then(|| OsStr::from_bytes(path.to_bytes()).into())
}

/// The list in which bootpd records who has leased which address. Everybody may read it.
#[cfg(target_os = "macos")]
pub(crate) fn dhcp_leases() -> PathBuf {
    PathBuf::from("/var/db/dhcpd_leases")
}

#[cfg(all(not(target_os = "macos"), feature = "vmnet-sim"))]
pub(crate) use vmnet_sim::outside::dhcp_leases;
