//! Drops privileges on macOS: the process's real, effective and saved ids.

use std::ffi::CStr;
use std::io;

use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid};

use super::cvt;

/// Becomes `uid` and `gid`, without supplementary groups, for good. If the process is not root,
/// there is nothing to drop.
pub(crate) fn give_up(uid: Uid, gid: Gid) -> io::Result<()> {
    if unistd::geteuid().is_root() {
        // Not initgroups(3), after which the kernel may ask the directory service for more groups
        // later (xnu, bsd/kern/kern_prot.c); setgroups(2) stops that.
        let groups = [gid.as_raw()];
        // SAFETY: by setgroups(2), a number of groups and as many of them.
        cvt(unsafe { libc::setgroups(1, groups.as_ptr()) })?;
        // For root both set all three ids (kern_prot.c, setuid and setgid).
        unistd::setgid(gid)?;
        unistd::setuid(uid)?;
    }
    Ok(())
}

/// Lets root act as `uid` and `gid`, without supplementary groups, until it takes back the
/// effective user id of root, which its real id permits.
pub(crate) fn put_aside(uid: Uid, gid: Gid) -> io::Result<()> {
    let groups = [gid.as_raw()];
    // SAFETY: by setgroups(2), a number of groups and as many of them.
    cvt(unsafe { libc::setgroups(1, groups.as_ptr()) })?;
    unistd::setegid(gid)?;
    unistd::seteuid(uid)?;
    Ok(())
}

/// The groups of the user `name` with the primary group `gid`: the first 16, the most that
/// setgroups(2) takes (NGROUPS_MAX).
pub(crate) fn groups_of(name: &CStr, gid: Gid) -> io::Result<Vec<Gid>> {
    let mut groups = [0; 16];
    let mut count = 16;
    let base = gid.as_raw().cast_signed();
    // SAFETY: by getgrouplist(3), a C string, a group, room for `count` groups, and where to
    // say how many were written.
    unsafe { libc::getgrouplist(name.as_ptr(), base, groups.as_mut_ptr(), &raw mut count) };
    // It fails if there are more, after writing those for which there was room.
    let count = usize::try_from(count).map_err(io::Error::other)?;
    let groups = groups.iter().take(count);
    Ok(groups
        .map(|group: &i32| Gid::from_raw(group.cast_unsigned()))
        .collect())
}

/// Tries to regain privileges, and names the first way that worked.
pub(crate) fn regained(uid: Uid, gid: Gid) -> io::Result<Option<&'static str>> {
    let root = Uid::from_raw(0);
    if [unistd::getuid(), unistd::geteuid()] != [uid; 2] {
        return Ok(Some("a user id"));
    }
    if [unistd::getgid(), unistd::getegid()] != [gid; 2] {
        return Ok(Some("a group id"));
    }
    if !uid.is_root() {
        // The saved ids cannot be read, but these calls would bring them back.
        if unistd::seteuid(root) != Err(Errno::EPERM) || unistd::setuid(root) != Err(Errno::EPERM) {
            return Ok(Some("the user id of root"));
        }
        if gid.as_raw() != 0 && unistd::setegid(Gid::from_raw(0)) != Err(Errno::EPERM) {
            return Ok(Some("the group id of root"));
        }
    }
    Ok(None)
}
