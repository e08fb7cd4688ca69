//! Giving up rights on Linux: ids for the whole process, capabilities for this thread, which
//! must therefore be the only one yet.

use std::ffi::CStr;
use std::{fs, io};

use caps::CapSet;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{self, Gid, Uid};

/// Becomes `uid` and `gid`, in no other group, without capabilities, for good.
///
/// As anybody but root only the capabilities go: the ids are then those of the caller already.
pub(crate) fn give_up(uid: Uid, gid: Gid) -> io::Result<()> {
    if unistd::geteuid().is_root() {
        // What an execve(2) could ever give back, while there is still the right to limit it
        // (CAP_SETPCAP). A root without that right, as in some containers, has not got it.
        if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)
            .map_err(io::Error::other)?
        {
            caps::clear(None, CapSet::Bounding).map_err(io::Error::other)?;
        }
        match unistd::setgroups(&[gid]) {
            // Some containers' root may not, and has no others anyway. Nor may the root of a
            // user namespace, whose groups are those of whoever made it, and stay so.
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

/// Has root act as `uid` and `gid`, in no other group, until it takes the effective user id of
/// root again, which the real one lets it do.
pub(crate) fn put_aside(uid: Uid, gid: Gid) -> io::Result<()> {
    unistd::setgroups(&[gid])?;
    unistd::setegid(gid)?;
    unistd::seteuid(uid)?;
    Ok(())
}

/// Whether this is a user namespace in which nobody may change groups, as is every one that
/// was made without privileges (user_namespaces(7)).
fn groups_are_fixed() -> bool {
    fs::read("/proc/self/setgroups").is_ok_and(|setting| setting.starts_with(b"deny"))
}

/// The groups that the user `name` with the primary group `gid` is in.
pub(crate) fn groups_of(name: &CStr, gid: Gid) -> io::Result<Vec<Gid>> {
    Ok(unistd::getgrouplist(name, gid)?)
}

/// Tries to get rights back, and names what worked.
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
