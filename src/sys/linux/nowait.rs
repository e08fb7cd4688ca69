//! Writes without waiting to a descriptor that other processes share, so that its flags must not be
//! changed.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Writes without waiting for room, if the kernel supports that: for sockets, and since Linux 6.5
/// for pipes. Otherwise it may wait.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // An offset of -1 means the file's own offset (pwritev2(2)).
    // SAFETY: the descriptor is open, and the one buffer is readable for as long as it says.
    let result =
        unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const piece, 1, -1, libc::RWF_NOWAIT) };
    match Errno::result(result) {
        // Not supported for terminals, for pipes of older kernels, or at all before Linux 4.14. A
        // file may first need room on its disk, but that wait is short.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => nix::unistd::write(fd, bytes),
        Err(Errno::EAGAIN) if is_file(fd) => nix::unistd::write(fd, bytes),
        result => result.map(isize::cast_unsigned),
    }
}

fn is_file(fd: BorrowedFd<'_>) -> bool {
    nix::sys::stat::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    #[test]
    fn a_socket_that_is_full_takes_no_more_and_holds_nobody_up() {
        let (here, _there) = UnixStream::pair().unwrap();
        while write(here.as_fd(), &[0; 4096]).is_ok() {}
        assert_eq!(write(here.as_fd(), &[0]), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_file_takes_it_where_the_last_write_ended() {
        let mut file = File::from(memfd_create(c"text", MFdFlags::empty()).unwrap());
        for word in [b"one", b"two"] {
            assert_eq!(write(file.as_fd(), word), Ok(3));
        }
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "onetwo");
    }
}
