//! Drops privileges on Linux: ids for the whole process, capabilities for this thread, which must
//! therefore still be the only one.

use std::ffi::CStr;
use std::{fs, io};

use caps::CapSet;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{self, Gid, Uid};

/// Becomes `uid` and `gid`, without supplementary groups and capabilities, for good.
///
/// If the process is not root, only the capabilities are dropped: then the ids are already the
/// caller's.
pub(crate) fn give_up(uid: Uid, gid: Gid) -> io::Result<()> {
    if unistd::geteuid().is_root() {
        // What an execve(2) could give back, as long as there is the privilege to limit that
        // (CAP_SETPCAP). A root without it, as in some containers, cannot.
        if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)
            .map_err(io::Error::other)?
        {
            caps::clear(None, CapSet::Bounding).map_err(io::Error::other)?;
        }
        match unistd::setgroups(&[gid]) {
            // Root in some containers may not do this, and has no other groups anyway. Nor may root
            // in a user namespace, whose groups are those of the namespace's creator and cannot
            // change.
            Err(Errno::EPERM) if groups_are_fixed() || unistd::getgroups()? == [gid] => (),
            result => result?,
        }
        unistd::setresgid(gid, gid, gid)?;
        unistd::setresuid(uid, uid, uid)?;
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        match caps::clear(None, set) {
            // Kernels before 4.3 have no ambient capabilities to clear.
            Err(_) if matches!(set, CapSet::Ambient) => (),
            result => result.map_err(io::Error::other)?,
        }
    }
    prctl::set_no_new_privs()?;
    Ok(())
}

/// Lets root act as `uid` and `gid`, without supplementary groups, until it takes back the
/// effective user id of root, which its real id permits.
pub(crate) fn put_aside(uid: Uid, gid: Gid) -> io::Result<()> {
    unistd::setgroups(&[gid])?;
    unistd::setegid(gid)?;
    unistd::seteuid(uid)?;
    Ok(())
}

/// Whether this is a user namespace in which nobody may change groups, which holds for every
/// namespace created without privileges (user_namespaces(7)).
fn groups_are_fixed() -> bool {
    fs::read("/proc/self/setgroups").is_ok_and(|setting| setting.starts_with(b"deny"))
}

/// The groups of the user `name` with the primary group `gid`.
pub(crate) fn groups_of(name: &CStr, gid: Gid) -> io::Result<Vec<Gid>> {
    Ok(unistd::getgrouplist(name, gid)?)
}

/// Tries to regain privileges, and names the first way that worked.
pub(crate) fn regained(uid: Uid, gid: Gid) -> io::Result<Option<&'static str>> {
    let users = unistd::getresuid()?;
    let groups = unistd::getresgid()?;
    let root = Uid::from_raw(0);
    if [users.real, users.effective, users.saved] != [uid; 3] {
        return Ok(Some("a user id"));
    }
    if [groups.real, groups.effective, groups.saved] != [gid; 3] {
        return Ok(Some("a group id"));
    }
    if !uid.is_root() && unistd::setuid(root) != Err(Errno::EPERM) {
        return Ok(Some("the user id of root"));
    }
    if gid.as_raw() != 0 && unistd::setgid(Gid::from_raw(0)) != Err(Errno::EPERM) {
        return Ok(Some("the group id of root"));
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        if !caps::read(None, set).map_err(io::Error::other)?.is_empty() {
            return Ok(Some("capabilities"));
        }
    }
    Ok(None)
}
