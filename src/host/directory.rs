//! The directories for what softnets share or can be reached by while they run, which nobody else
//! can change.
//!
//! Every name is looked up only once, below a directory that is already open and has been checked,
//! so nothing can be exchanged between a check and its use.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{Uid, fchown, geteuid};
use thiserror::Error;

use crate::sys::{identity, runtime};

/// Why there is no such directory. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// Others could change it.
    #[error("{path} is {what}: remove it while no softnet runs")]
    Unsound {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The system refuses to create or open it.
    #[error("cannot use {path}")]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The user has no runtime directory.
    #[error("no runtime directory: set XDG_RUNTIME_DIR to a directory of your own")]
    None,
}

/// A directory that only its owner can change.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    owner: Uid,
}

/// Whose softnets share a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of root's, which includes those by SUID and sudo.
    Host,
    /// Those of one user.
    User,
}

/// Opens the existing directory for what lasts as long as processes do: the host's for root, the
/// user's own for all others.
pub(super) fn runtime() -> Result<(Directory, Scope), DirectoryError> {
    let user = geteuid();
    let root = Uid::from_raw(0);
    if user.is_root() {
        let host = Directory::existing(Path::new(runtime::OF_HOST))?;
        // In another user's user namespace the host's root is not 0 but an unknown user.
        let found = stat(&host.fd, &host.path)?;
        if found.st_uid == root.as_raw() {
            // If the sticky bit is set, others cannot touch what root has created.
            let is_sticky = Mode::from_bits_truncate(found.st_mode).contains(Mode::S_ISVTX);
            let refused = if is_sticky {
                Mode::empty()
            } else {
                Mode::S_IWOTH
            };
            check(&host.path, &found, root, refused)?;
            return Ok((host, Scope::Host));
        }
    }
    let path = runtime::of_user(user, !identity::is_set_id()).ok_or(DirectoryError::None)?;
    let users = match Directory::existing(&path) {
        Err(DirectoryError::Unusable { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            return Err(DirectoryError::None);
        }
        users => users?,
    };
    users.check(user)?;
    Ok((users, Scope::User))
}

impl Directory {
    /// Its path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens one of its files, which only the owner may read and write, and creates it if it does
    /// not exist.
    pub(super) fn file(&self, name: &str) -> Result<OwnedFd, DirectoryError> {
        let path = self.path.join(name);
        // Nonblocking, in case somebody has left a pipe there.
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NONBLOCK;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let fd = fd.map_err(|error| match error {
            Errno::ELOOP => unsound(&path, "a symbolic link"),
            error => unusable(&path)(error),
        })?;
        let found = stat(&fd, &path)?;
        if kind(&found) != SFlag::S_IFREG {
            return Err(unsound(&path, "not a regular file"));
        }
        // Whoever can read the file can lock it, at least so that others' locks are refused
        // (fcntl(2)).
        check(&path, &found, self.owner, Mode::S_IRWXG | Mode::S_IRWXO)?;
        Ok(fd)
    }

    fn existing(path: &Path) -> Result<Self, DirectoryError> {
        // There may be symbolic links on the way, as /var is on macOS: root created them.
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self {
            fd: open(path, flags, Mode::empty()).map_err(unusable(path))?,
            path: path.to_owned(),
            owner: geteuid(),
        })
    }

    /// Opens a directory in this one, and creates it if it does not exist. It belongs to the same
    /// user, who alone may enter it.
    pub(super) fn private_child(&self, name: &str) -> Result<Self, DirectoryError> {
        let child = self.child(name, Mode::S_IRWXU)?;
        child.check(self.owner)?;
        Ok(child)
    }

    /// The same, but others may pass through it.
    pub(super) fn public_child(&self, name: &str) -> Result<Self, DirectoryError> {
        let mode = Mode::S_IRWXU | Mode::S_IXGRP | Mode::S_IXOTH;
        let child = self.child(name, mode)?;
        child.check(self.owner)?;
        // Whatever the umask was.
        fchmod(&child.fd, mode).map_err(unusable(&child.path))?;
        Ok(child)
    }

    /// Like [`private_child`](Self::private_child), but it belongs to `owner`. Only root can create
    /// one for somebody else.
    pub(super) fn child_of(&self, name: &str, owner: Uid) -> Result<Self, DirectoryError> {
        let mut child = self.child(name, Mode::S_IRWXU)?;
        let found = stat(&child.fd, &child.path)?;
        if found.st_uid == self.owner.as_raw() && owner != self.owner {
            // Nobody but root has created it, here or in another softnet just now.
            fchown(&child.fd, Some(owner), None).map_err(unusable(&child.path))?;
        }
        child.owner = owner;
        child.check(owner)?;
        Ok(child)
    }

    fn child(&self, name: &str, mode: Mode) -> Result<Self, DirectoryError> {
        let path = self.path.join(name);
        match mkdirat(&self.fd, name, mode) {
            Ok(()) | Err(Errno::EEXIST) => (),
            Err(error) => return Err(unusable(&path)(error)),
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty());
        let fd = fd.map_err(|error| match error {
            // Linux and macOS differ on a link where a directory is required.
            Errno::ENOTDIR | Errno::ELOOP => unsound(&path, "not a directory"),
            error => unusable(&path)(error),
        })?;
        let owner = self.owner;
        Ok(Self { fd, path, owner })
    }

    /// Checks that it belongs to `owner`, and that nobody else may change what is in it.
    fn check(&self, owner: Uid) -> Result<(), DirectoryError> {
        let found = stat(&self.fd, &self.path)?;
        check(&self.path, &found, owner, Mode::S_IWGRP | Mode::S_IWOTH)
    }
}

/// Checks that something belongs to `owner`, and has none of the permissions in `refused`.
fn check(path: &Path, found: &FileStat, owner: Uid, refused: Mode) -> Result<(), DirectoryError> {
    if found.st_uid != owner.as_raw() {
        let what = format!("owned by user {} and not by {owner}", found.st_uid);
        return Err(unsound(path, what));
    }
    let mode = Mode::from_bits_truncate(found.st_mode);
    if mode.intersects(refused) {
        let what = format!("open to others (mode {:03o})", mode.bits() & 0o777);
        return Err(unsound(path, what));
    }
    Ok(())
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}

fn stat(fd: &OwnedFd, path: &Path) -> Result<FileStat, DirectoryError> {
    fstat(fd).map_err(unusable(path))
}

fn unusable(path: &Path) -> impl FnOnce(Errno) -> DirectoryError {
    let path = path.to_owned();
    move |error| DirectoryError::Unusable {
        path,
        source: error.into(),
    }
}

fn unsound(path: &Path, what: impl fmt::Display) -> DirectoryError {
    DirectoryError::Unsound {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    /// A directory like `/run` that is removed after the test.
    struct Run(PathBuf);

    impl Run {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("softnet-{}-{test}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn directory(&self) -> Directory {
            Directory::existing(&self.0).unwrap()
        }

        fn registry(&self) -> Result<Directory, DirectoryError> {
            self.directory().private_child("softnet")
        }

        #[track_caller]
        fn refused(&self, what: &str) {
            let file = self.registry().and_then(|registry| registry.file("macs"));
            let said = file.unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
    }

    impl Drop for Run {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_missing_is_made_for_the_owner_alone_and_found_again() {
        let run = Run::new("made");
        for _ in 0..2 {
            run.registry().unwrap().file("macs").unwrap();
        }
        let mode = |path: &str| fs::metadata(run.0.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("softnet"), mode("softnet/macs")), (0o700, 0o600));
    }

    #[test]
    fn others_pass_through_a_public_directory_whatever_the_umask_is() {
        let run = Run::new("public");
        let public = run.directory().public_child("control").unwrap();
        let user = geteuid();
        let own = public.child_of("1", user).unwrap();
        let bits = |directory: &Directory| fstat(&directory.fd).unwrap().st_mode & 0o7777;
        assert_eq!((bits(&public), bits(&own)), (0o711, 0o700));
        mode(&run.0.join("control"), 0o700);
        let public = run.directory().public_child("control").unwrap();
        assert_eq!(bits(&public), 0o711);
        mode(&run.0.join("control/1"), 0o770);
        let refused = public.child_of("1", user).unwrap_err().to_string();
        assert!(refused.contains("open to others"), "{refused}");
        if user.is_root() {
            let other = Uid::from_raw(12_345);
            for _ in 0..2 {
                let given = public.child_of("2", other).unwrap();
                assert_eq!(fstat(&given.fd).unwrap().st_uid, 12_345);
            }
            let refused = public.child_of("2", user).unwrap_err().to_string();
            assert!(refused.contains("owned by user 12345"), "{refused}");
        }
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_not_followed() {
        let run = Run::new("link");
        fs::create_dir(run.0.join("elsewhere")).unwrap();
        symlink(run.0.join("elsewhere"), run.0.join("softnet")).unwrap();
        run.refused("not a directory");
        assert_eq!(fs::read_dir(run.0.join("elsewhere")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_refused() {
        let run = Run::new("file");
        fs::write(run.0.join("softnet"), "").unwrap();
        run.refused("not a directory");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let run = Run::new("open");
        run.registry().unwrap();
        for bits in [0o770, 0o720, 0o707, 0o702, 0o1777] {
            mode(&run.0.join("softnet"), bits);
            run.refused("open to others");
        }
        mode(&run.0.join("softnet"), 0o755);
        run.registry().unwrap().file("macs").unwrap();
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let run = Run::new("owner");
        let other = Uid::from_raw(geteuid().as_raw() + 1);
        let parent = Directory {
            owner: other,
            ..run.directory()
        };
        let refused = parent.private_child("softnet").unwrap_err();
        assert!(refused.to_string().contains("owned by user"), "{refused}");
    }

    #[test]
    fn a_lock_file_that_is_a_link_a_pipe_or_open_to_others_is_refused() {
        let run = Run::new("lock");
        run.registry().unwrap();
        let path = run.0.join("softnet/macs");
        let target = run.0.join("target");
        symlink(&target, &path).unwrap();
        run.refused("a symbolic link");
        assert!(!target.exists());

        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        run.refused("not a regular file");

        fs::remove_file(&path).unwrap();
        run.registry().unwrap().file("macs").unwrap();
        for bits in [0o640, 0o604, 0o620, 0o601] {
            mode(&path, bits);
            run.refused("open to others");
        }
    }
}
