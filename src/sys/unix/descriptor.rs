//! Descriptors as bare numbers, which come from the command line and from the process that started
//! softnet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Takes over the inherited descriptor `number`. Child processes do not inherit it.
///
/// Must be called only once for a number, and before anything else in the process opens files.
pub(crate) fn claim(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is not -1, and the borrow lasts for one call that fails if nothing
    // is open under that number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: fcntl just found it open, and nobody else owns it: the process has opened
    // nothing yet, and the standard streams of std neither close nor replace theirs.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets the descriptor `number` survive an execve(2), even if it was [claimed](claim).
#[cfg(vmnet)]
pub(crate) fn hand_on(number: RawFd) -> io::Result<()> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: as in `claim`.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Closes every descriptor above the standard streams except those in `kept`.
///
/// Must be called before the process opens anything, because the owner of a closed descriptor would
/// continue to use its number.
pub(crate) fn close_others<'a>(kept: impl Iterator<Item = &'a OwnedFd>) -> io::Result<()> {
    let mut kept: Vec<_> = kept
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .collect();
    kept.sort_unstable();
    let mut first = FIRST;
    for number in kept.into_iter().filter(|number| *number >= FIRST) {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)
}

/// Takes over every descriptor above the standard streams, unchanged: child processes inherit it
/// too, unless it was marked otherwise.
///
/// Must be called before the process opens anything, because it would take that from its owner.
pub(crate) fn claim_others() -> io::Result<Vec<OwnedFd>> {
    let numbers = listed(FIRST, u32::MAX)?.into_iter();
    // The list's own descriptor is closed by now.
    let open = numbers.filter(|number| {
        // SAFETY: the number is not -1, and the borrow lasts for one call that fails if nothing
        // is open under that number.
        let borrowed = unsafe { BorrowedFd::borrow_raw(*number) };
        fcntl(borrowed, FcntlArg::F_GETFD).is_ok()
    });
    // SAFETY: fcntl just found each open, and nobody else owns it: the process has opened
    // nothing yet.
    Ok(open
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
        .collect())
}

/// Closes the descriptors `first..=last`.
#[cfg(target_os = "macos")]
fn close_range(first: u32, last: u32) -> io::Result<()> {
    close_listed(first, last)
}

/// Closes the descriptors `first..=last`.
#[cfg(target_os = "linux")]
fn close_range(first: u32, last: u32) -> io::Result<()> {
    // By number, because glibc has the function only since 2.34.
    // SAFETY: the call takes numbers only; that nobody owns them is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match super::cvt(result) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => close_listed(first, last),
        result => result.map(drop),
    }
}

/// The same by means of the kernel's list, on macOS and on Linux before 5.9.
fn close_listed(first: u32, last: u32) -> io::Result<()> {
    for number in listed(first, last)? {
        // SAFETY: the call takes a number only, which nobody owns, as above. A number that is
        // closed already, such as that of the list, is an error without a consequence.
        unsafe { libc::close(number) };
    }
    Ok(())
}

/// The open descriptors among `first..=last`. They may include that of the kernel's list, which is
/// closed again.
fn listed(first: u32, last: u32) -> io::Result<Vec<RawFd>> {
    let names: Vec<_> = std::fs::read_dir(LIST)?.collect::<io::Result<_>>()?;
    let numbers = names
        .iter()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers
        .filter(|number| (first..=last).contains(number))
        .filter_map(|number| RawFd::try_from(number).ok())
        .collect())
}

/// The first descriptor above the standard streams.
const FIRST: u32 = 3;

#[cfg(target_os = "linux")]
const LIST: &str = "/proc/self/fd";
#[cfg(target_os = "macos")]
const LIST: &str = "/dev/fd";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_descriptor_cannot_be_claimed() {
        for number in [-1, 1_000_000, RawFd::MAX] {
            assert_eq!(
                claim(number).unwrap_err().raw_os_error(),
                Some(libc::EBADF),
                "{number}"
            );
        }
    }
}
