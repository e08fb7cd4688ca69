//! The user as which softnet runs once it has opened what it needs: the calling user, for good.
//!
//! The program is SUID root on many machines, and on others sudo starts it without a password. So
//! softnet must not do for the caller what the caller could not do without it: only root may name
//! another user, and [`NamedFile`](super::files::NamedFile) cannot be opened without
//! [`CallersRights`].

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;

use nix::unistd::{Gid, Group, Uid, User, geteuid, getgid, getuid, seteuid};

use super::HostError;
use crate::sys::{aside, identity, privileges};

/// The user and group to drop to, and to run a command as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Whether this is not the caller, so that the supplementary groups change too.
    changes: bool,
    unnamed_root: bool,
    borrowed: bool,
}

impl Identity {
    /// Finds the user to drop to: `user` and `group` by name, and by default the caller; behind
    /// sudo, pkexec and doas that is the user whom they name.
    ///
    /// # Errors
    /// If a name does not exist, or only root may use it. A caller that came through SUID, sudo,
    /// pkexec or doas is not root. If the environment does not tell who that caller is, the process
    /// must not go on.
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
        let (uid, gid) = Caller::of_this_process()?.choose(user.as_ref(), group.as_ref())?;
        Ok(Self {
            uid,
            gid,
            changes: getuid().is_root() && (uid, gid) != (getuid(), getgid()),
            unnamed_root: uid.is_root() && user.is_none(),
            borrowed: identity::is_set_id(),
        })
    }

    /// Another user, with the user's group, for root to become.
    pub(super) fn of(user: Uid) -> Self {
        let known = User::from_uid(user).ok().flatten();
        Self {
            uid: user,
            gid: known.map_or(Gid::from_raw(NOGROUP), |user| user.gid),
            changes: true,
            unnamed_root: false,
            borrowed: false,
        }
    }

    /// The supplementary groups of a command; None if it keeps those of this process. Looked up
    /// only for a command, because on macOS the lookup asks the directory service, which may use
    /// the network.
    pub(super) fn groups(&self) -> Option<Vec<Gid>> {
        self.changes.then(|| groups_of(self.uid, self.gid))
    }

    /// Drops all privileges that the user does not have, and verifies that. Must be called before
    /// any other thread starts.
    ///
    /// # Errors
    /// If the system refuses, or if a dropped privilege could be regained. The process must not go
    /// on then.
    pub fn drop_to(&self) -> Result<CallersRights, HostError> {
        privileges::give_up(self.uid, self.gid).map_err(HostError::system("drop privileges"))?;
        let regained = privileges::regained(self.uid, self.gid)
            .map_err(HostError::system("check that privileges are gone"))?;
        regained.map_or(Ok(CallersRights(())), |right| {
            Err(HostError::StillPrivileged(right))
        })
    }

    /// Drops all privileges that are not the caller's own, for good: those of a set-id program, of
    /// file capabilities, and those from sudo. Root and an ordinary user keep theirs.
    ///
    /// # Errors
    /// The same as for [`drop_to`](Self::drop_to).
    pub fn become_caller(&self) -> Result<CallersRights, HostError> {
        if self.borrowed || self.uid != geteuid() {
            return self.drop_to();
        }
        Ok(CallersRights(()))
    }

    /// Like [`become_caller`](Self::become_caller), but privileges that came from sudo are put
    /// aside for later use.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn put_rights_aside(&self) -> Result<(CallersRights, Option<SavedPrivileges>), HostError> {
        if self.borrowed || self.uid == geteuid() {
            return Ok((self.become_caller()?, None));
        }
        privileges::put_aside(self.uid, self.gid)
            .map_err(HostError::system("put privileges aside"))?;
        let saved = SavedPrivileges { caller: self.uid };
        Ok((CallersRights(()), Some(saved)))
    }

    /// Whether the privileges are not the caller's own, because the program is set-id. Then
    /// whatever the caller may choose must be opened without them.
    #[must_use]
    pub const fn are_borrowed(&self) -> bool {
        self.borrowed
    }

    /// Whether softnet stays user 0, though without capabilities, because a caller that is root
    /// named no other user.
    #[must_use]
    pub const fn is_unnamed_root(&self) -> bool {
        self.unnamed_root
    }
}

/// What `act` returns in a child process that has become the caller for good; at most `limit` bytes
/// of it. This process keeps its privileges. Must be called before any other thread starts.
///
/// The caller may send signals to the child, and make it say anything. So what it says counts as
/// much as the command line, which is the caller's too.
///
/// # Errors
/// If the caller cannot be told, or the child does not get to the end.
pub fn in_callers_child(
    act: impl FnOnce(&CallersRights) -> Vec<u8>,
    limit: u64,
) -> Result<Vec<u8>, HostError> {
    let caller = Identity::find(None, None)?;
    let act = || caller.become_caller().map(|rights| act(&rights));
    // Without the rights to go, nothing is done; nothing at all is what tells that.
    aside::in_child(|| act().unwrap_or_default(), limit)
        .map_err(HostError::system("act as the caller in a child process"))
}

/// Proof that the process has no more privileges than its caller, or has put the others into a
/// [`SavedPrivileges`]. Only [`Identity`] creates one.
#[derive(Debug)]
pub struct CallersRights(());

/// Root's privileges, put aside.
#[derive(Debug)]
pub struct SavedPrivileges {
    caller: Uid,
}

impl SavedPrivileges {
    /// Calls `act` with these privileges. Must be called while the process has a single thread.
    ///
    /// # Errors
    /// The error of `act`. If the system does not take the privileges back, the process must not go
    /// on.
    pub fn with<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        seteuid(Uid::from_raw(ROOT))?;
        let result = act();
        seteuid(self.caller)?;
        result
    }
}

/// The user who started the process, and for whom it acts.
struct Caller {
    uid: Uid,
    gid: Gid,
}

impl Caller {
    fn of_this_process() -> Result<Self, HostError> {
        // The real ids, which SUID does not change.
        let (uid, gid) = (getuid(), getgid());
        if uid.is_root()
            && let Some(caller) = Self::behind_root(&|name| env::var_os(name))?
        {
            return Ok(caller);
        }
        Ok(Self { uid, gid })
    }

    /// The user on whose behalf root started us, according to the environment; None if that was
    /// root itself.
    ///
    /// sudo, pkexec and doas each set their variable regardless of the caller's environment
    /// (sudo(8), pkexec(1), doas(1)). So nobody who may start only softnet through one of them can
    /// pose as root. The variables of the other two may come from the caller, if doas passes them
    /// on with `keepenv`. So they may remove privileges, but not grant any.
    fn behind_root(
        variable: &impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Option<Self>, HostError> {
        let id = |name| {
            let value = variable(name).map(|text| number(&text).ok_or(HostError::NoCaller(name)));
            value.transpose()
        };
        let sudo = id("SUDO_UID")?;
        let pkexec = id("PKEXEC_UID")?;
        let doas = variable("DOAS_USER").map(|name| {
            let user = name.to_str().map(User::from_name);
            let user = user.and_then(Result::ok).flatten();
            user.map(|user| user.uid.as_raw())
                .ok_or(HostError::NoCaller("DOAS_USER"))
        });
        let others = [pkexec, doas.transpose()?];
        let mut callers = [sudo].into_iter().chain(others).flatten();
        let Some(uid) = callers.by_ref().find(|uid| *uid != ROOT) else {
            return Ok(None);
        };
        if callers.any(|other| other != ROOT && other != uid) {
            return Err(HostError::TwoCallers);
        }
        let uid = Uid::from_raw(uid);
        // If there is also another variable, this one may come from the caller.
        let named = if others == [None; 2] {
            id("SUDO_GID")?.map(Gid::from_raw)
        } else {
            None
        };
        let primary = || {
            let user = User::from_uid(uid).ok().flatten();
            user.map(|user| user.gid)
                .ok_or(HostError::NoCaller("SUDO_UID, PKEXEC_UID or DOAS_USER"))
        };
        let gid = named.map_or_else(primary, Ok)?;
        Ok(Some(Self { uid, gid }))
    }

    fn choose(&self, user: Option<&User>, group: Option<&Group>) -> Result<(Uid, Gid), HostError> {
        if !self.uid.is_root() {
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
        let (uid, gid) = user.map_or((self.uid, self.gid), |user| (user.uid, user.gid));
        Ok((uid, group.map_or(gid, |group| group.gid)))
    }
}

/// The group of users whom the system does not know, in which nobody is: 65534 fits all systems.
const NOGROUP: u32 = 65_534;

/// Parses the number of a user or group, which consists of digits only.
fn number(text: &OsStr) -> Option<u32> {
    let text = text.to_str()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    // The largest number is not an id, but means none (setresuid(2)).
    let id = text.parse().ok().filter(|id| *id != u32::MAX);
    id.filter(|_| digits)
}

/// The groups that `uid` has after a login.
fn groups_of(uid: Uid, gid: Gid) -> Vec<Gid> {
    let user = User::from_uid(uid).ok().flatten();
    let name = user.and_then(|user| CString::new(user.name).ok());
    let groups = name.and_then(|name| privileges::groups_of(&name, gid).ok());
    groups.unwrap_or_else(|| vec![gid])
}

/// The user id of root.
const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (u32, u32) = (0, 0);
    const ANNA: (u32, u32) = (1000, 1000);

    fn caller(ids: (u32, u32)) -> Caller {
        let (uid, gid) = raw(ids);
        Caller { uid, gid }
    }

    /// The user in an environment; None stands for root itself.
    fn behind_root(environment: &[(&str, &str)]) -> Result<Option<(u32, u32)>, HostError> {
        let value = |wanted| {
            let found = environment.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| OsString::from(value))
        };
        let caller = Caller::behind_root(&value)?;
        Ok(caller.map(|caller| (caller.uid.as_raw(), caller.gid.as_raw())))
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
        for ids in [ANNA, ROOT] {
            assert_eq!(caller(ids).choose(None, None).unwrap(), raw(ids));
        }
    }

    #[test]
    fn the_caller_is_whom_sudo_pkexec_or_doas_name() {
        for (environment, expected) in [
            (&[][..], None),
            (&[("SUDO_UID", "1000"), ("SUDO_GID", "7")], Some((1000, 7))),
            // If root calls sudo, the caller is root, whatever its group.
            (&[("SUDO_UID", "0"), ("SUDO_GID", "7")], None),
            // Without a group it is the user's own, so nobody else can choose it.
            (&[("SUDO_UID", "1")], Some((1, 1))),
            (&[("PKEXEC_UID", "1")], Some((1, 1))),
            (&[("DOAS_USER", "daemon")], Some((1, 1))),
            (&[("DOAS_USER", "root")], None),
            (&[("SUDO_GID", "7")], None),
        ] {
            let found = behind_root(environment).unwrap();
            assert_eq!(found, expected, "{environment:?}");
        }
    }

    #[test]
    fn what_doas_lets_through_of_its_callers_environment_gives_no_rights() {
        let doas = ("DOAS_USER", "daemon");
        for forged in [
            &[("SUDO_UID", "0"), ("SUDO_GID", "0")][..],
            &[("SUDO_UID", "1"), ("SUDO_GID", "0")],
            &[("PKEXEC_UID", "0")],
        ] {
            let environment = [&[doas], forged].concat();
            let found = behind_root(&environment).unwrap();
            assert_eq!(found, Some((1, 1)), "{environment:?}");
        }
        let two = behind_root(&[doas, ("SUDO_UID", "1000")]).unwrap_err();
        assert!(matches!(two, HostError::TwoCallers), "{two}");
    }

    #[test]
    fn an_environment_that_does_not_tell_the_caller_is_refused() {
        let no_numbers = [
            "",
            " ",
            "anna",
            "+0",
            "-1",
            "0x0",
            " 0",
            "0 ",
            "00x",
            "1000\n",
            "4294967295",
            "4294967296",
            "\u{660}",
        ];
        for text in no_numbers {
            for (name, environment) in [
                ("SUDO_UID", vec![("SUDO_UID", text), ("SUDO_GID", "7")]),
                ("PKEXEC_UID", vec![("PKEXEC_UID", text)]),
                ("SUDO_GID", vec![("SUDO_UID", "1000"), ("SUDO_GID", text)]),
                ("DOAS_USER", vec![("DOAS_USER", "no-such-user")]),
            ] {
                let error = behind_root(&environment).unwrap_err();
                assert!(
                    matches!(error, HostError::NoCaller(found) if found == name),
                    "{environment:?}: {error}"
                );
            }
        }
        // No user has this number, so its group is unknown.
        behind_root(&[("SUDO_UID", "4294967294")]).unwrap_err();
    }

    #[test]
    fn root_may_name_anybody() {
        let (nobody, kvm) = (user("nobody", (65534, 65533)), group("kvm", 103));
        let root = caller(ROOT);
        assert_eq!(
            root.choose(Some(&nobody), None).unwrap(),
            raw((65534, 65533))
        );
        assert_eq!(
            root.choose(Some(&nobody), Some(&kvm)).unwrap(),
            raw((65534, 103))
        );
    }

    #[test]
    fn others_may_name_only_themselves() {
        let anna = caller(ANNA);
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
