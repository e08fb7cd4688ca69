//! Who softnet is once it has opened what it needs: the calling user, for good.
//!
//! The program may be SUID root on many machines, so the caller's word counts only as far as
//! the caller could go without softnet.

use std::env;
use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgid, getuid};

use super::HostError;
use crate::sys::{identity, privileges};

/// The user and the group to drop to, and to run a command as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// The groups besides that a command gets; None leaves it those that we have.
    pub(super) groups: Option<Vec<Gid>>,
    unnamed_root: bool,
    borrowed: bool,
}

impl Identity {
    /// Finds out whom to drop to: `user` and `group` by name, and without a name the caller,
    /// who behind sudo is the one that sudo names.
    ///
    /// # Errors
    /// For a name that nobody has, and for one that only root may give. A caller that came
    /// through SUID is not root.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Self, HostError> {
        let unknown_user = |name: &str| HostError::UnknownUser(name.to_owned());
        let unknown_group = |name: &str| HostError::UnknownGroup(name.to_owned());
        let user = user
            .map(|name| {
                let found = User::from_name(name).map_err(HostError::system("look up a user"))?;
                found.ok_or_else(|| unknown_user(name))
            })
            .transpose()?;
        let group = group
            .map(|name| {
                let found = Group::from_name(name).map_err(HostError::system("look up a group"))?;
                found.ok_or_else(|| unknown_group(name))
            })
            .transpose()?;
        let caller = Caller::of_this_process();
        let (uid, gid) = caller.choose(user.as_ref(), group.as_ref())?;
        let groups = caller.is_root() && (uid, gid) != (caller.uid, caller.gid);
        Ok(Self {
            uid,
            gid,
            groups: groups.then(|| groups_of(uid, gid)),
            unnamed_root: uid.is_root() && user.is_none(),
            borrowed: identity::is_set_id(),
        })
    }

    /// Gives up all rights that the user does not have, and makes sure of it. To be called
    /// before any other thread starts.
    ///
    /// # Errors
    /// When the system refuses, and when a right that was given up can be had again. The
    /// process must not go on then.
    pub fn drop_to(&self) -> Result<(), HostError> {
        privileges::give_up(self.uid, self.gid).map_err(HostError::system("drop privileges"))?;
        let regained = privileges::regained(self.uid, self.gid)
            .map_err(HostError::system("check that privileges are gone"))?;
        regained.map_or(Ok(()), |right| Err(HostError::StillPrivileged(right)))
    }

    /// Whether the rights are not the caller's own, as the program is set-id: whatever the
    /// caller may choose has to be opened without them.
    #[must_use]
    pub const fn are_borrowed(&self) -> bool {
        self.borrowed
    }

    /// Whether softnet stays user 0, though without capabilities, because a caller that is
    /// root named nobody else.
    #[must_use]
    pub const fn is_unnamed_root(&self) -> bool {
        self.unnamed_root
    }
}

/// Who started the process.
struct Caller {
    uid: Uid,
    gid: Gid,
    /// The user and the group that called sudo.
    sudo: Option<(Uid, Gid)>,
}

impl Caller {
    fn of_this_process() -> Self {
        // The real ids, which SUID leaves as they were.
        let (uid, gid) = (getuid(), getgid());
        let id = |name| {
            env::var(name)
                .ok()?
                .parse()
                .ok()
                .filter(|id| *id != u32::MAX)
        };
        // Root may set these as it likes: it may become anybody anyway. From others they
        // count for nothing.
        let sudo = || {
            Some((
                Uid::from_raw(id("SUDO_UID")?),
                Gid::from_raw(id("SUDO_GID")?),
            ))
        };
        Self {
            uid,
            gid,
            sudo: uid.is_root().then(sudo).flatten(),
        }
    }

    fn choose(&self, user: Option<&User>, group: Option<&Group>) -> Result<(Uid, Gid), HostError> {
        if !self.is_root() {
            if let Some(user) = user.filter(|user| user.uid != self.uid) {
                return Err(HostError::NotYours {
                    flag: "--user",
                    name: user.name.clone(),
                });
            }
            if let Some(group) = group.filter(|group| group.gid != self.gid) {
                return Err(HostError::NotYours {
                    flag: "--group",
                    name: group.name.clone(),
                });
            }
            return Ok((self.uid, self.gid));
        }
        let (uid, gid) = self.sudo.unwrap_or((self.uid, self.gid));
        let (uid, gid) = user.map_or((uid, gid), |user| (user.uid, user.gid));
        Ok((uid, group.map_or(gid, |group| group.gid)))
    }

    const fn is_root(&self) -> bool {
        self.uid.is_root()
    }
}

/// The groups that `uid` would have after a login.
fn groups_of(uid: Uid, gid: Gid) -> Vec<Gid> {
    let user = User::from_uid(uid).ok().flatten();
    let name = user.and_then(|user| CString::new(user.name).ok());
    let groups = name.and_then(|name| privileges::groups_of(&name, gid).ok());
    groups.unwrap_or_else(|| vec![gid])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (u32, u32) = (0, 0);
    const ANNA: (u32, u32) = (1000, 1000);

    fn caller(ids: (u32, u32), sudo: Option<(u32, u32)>) -> Caller {
        let (uid, gid) = raw(ids);
        Caller {
            uid,
            gid,
            sudo: sudo.map(raw),
        }
    }

    fn raw((uid, gid): (u32, u32)) -> (Uid, Gid) {
        (Uid::from_raw(uid), Gid::from_raw(gid))
    }

    fn user(name: &str, ids: (u32, u32)) -> User {
        let (uid, gid) = raw(ids);
        let root = User::from_uid(Uid::from_raw(0)).unwrap().unwrap();
        User {
            name: name.to_owned(),
            uid,
            gid,
            ..root
        }
    }

    fn group(name: &str, gid: u32) -> Group {
        let root = Group::from_gid(Gid::from_raw(0)).unwrap().unwrap();
        Group {
            name: name.to_owned(),
            gid: Gid::from_raw(gid),
            ..root
        }
    }

    #[test]
    fn without_names_it_is_the_caller() {
        assert_eq!(caller(ANNA, None).choose(None, None).unwrap(), raw(ANNA));
        assert_eq!(caller(ROOT, None).choose(None, None).unwrap(), raw(ROOT));
    }

    #[test]
    fn behind_sudo_the_caller_is_whoever_called_sudo() {
        assert_eq!(
            caller(ROOT, Some(ANNA)).choose(None, None).unwrap(),
            raw(ANNA)
        );
    }

    #[test]
    fn root_may_name_anybody() {
        let (nobody, kvm) = (user("nobody", (65534, 65533)), group("kvm", 103));
        for sudo in [None, Some(ANNA)] {
            let root = caller(ROOT, sudo);
            assert_eq!(
                root.choose(Some(&nobody), None).unwrap(),
                raw((65534, 65533))
            );
            assert_eq!(
                root.choose(Some(&nobody), Some(&kvm)).unwrap(),
                raw((65534, 103))
            );
        }
        let anna_in_kvm = caller(ROOT, Some(ANNA)).choose(None, Some(&kvm)).unwrap();
        assert_eq!(anna_in_kvm, raw((1000, 103)));
    }

    #[test]
    fn others_may_name_only_themselves() {
        let anna = caller(ANNA, None);
        let (herself, her_group) = (user("anna", (1000, 7)), group("anna", 1000));
        assert_eq!(
            anna.choose(Some(&herself), Some(&her_group)).unwrap(),
            raw(ANNA)
        );
        assert_eq!(anna.choose(Some(&herself), None).unwrap(), raw(ANNA));
        let refused = anna.choose(Some(&user("root", ROOT)), None).unwrap_err();
        assert!(matches!(
            refused,
            HostError::NotYours { flag: "--user", .. }
        ));
        let refused = anna.choose(None, Some(&group("root", 0))).unwrap_err();
        assert!(matches!(
            refused,
            HostError::NotYours {
                flag: "--group",
                ..
            }
        ));
    }
}
