//! Opens the registry's directory, and checks that nobody else can change it.
//!
//! Every name is looked up only once, below a directory that is already open and has been checked,
//! so nothing can be exchanged between a check and its use.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{Uid, geteuid};

use super::RegistryError;
use crate::sys::{identity, runtime};

/// A directory that only its owner can change.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    owner: Uid,
}

/// Which VMs a registry knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All VMs served by root's softnets, which includes SUID and sudo.
    Host,
    /// Those of one user.
    User,
}

impl Directory {
    /// Opens the registry's directory, and creates it if it does not exist: the host's for root,
    /// the user's own for all others.
    pub(super) fn open() -> Result<(Self, Scope), RegistryError> {
        let user = geteuid();
        let root = Uid::from_raw(0);
        if user.is_root() {
            let parent = Self::parent(Path::new(runtime::OF_HOST))?;
            // In another user's user namespace the host's root is not 0 but an unknown user.
            let found = stat(&parent.fd, &parent.path)?;
            if found.st_uid == root.as_raw() {
                // If the sticky bit is set, others cannot touch what root has created.
                let is_sticky = Mode::from_bits_truncate(found.st_mode).contains(Mode::S_ISVTX);
                let refused = if is_sticky {
                    Mode::empty()
                } else {
                    Mode::S_IWOTH
                };
                check(&parent.path, &found, root, refused)?;
                return Ok((parent.child(root)?, Scope::Host));
            }
        }
        let path = runtime::of_user(user, !identity::is_set_id())
            .ok_or(RegistryError::NoRuntimeDirectory)?;
        let parent = match Self::parent(&path) {
            Err(RegistryError::Unusable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return Err(RegistryError::NoRuntimeDirectory);
            }
            parent => parent?,
        };
        parent.check(user)?;
        Ok((parent.child(user)?, Scope::User))
    }

    /// Its path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens one of its files, which only the owner may read and write, and creates it if it does
    /// not exist.
    pub(super) fn file(&self, name: &str) -> Result<OwnedFd, RegistryError> {
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

    /// Opens the existing directory in which the registry is to be.
    fn parent(path: &Path) -> Result<Self, RegistryError> {
        // There may be symbolic links on the way, as /var is on macOS: root created them.
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self {
            fd: open(path, flags, Mode::empty()).map_err(unusable(path))?,
            path: path.to_owned(),
            owner: geteuid(),
        })
    }

    /// Opens the registry's own directory in this one, and creates it if it does not exist.
    fn child(&self, owner: Uid) -> Result<Self, RegistryError> {
        let path = self.path.join(NAME);
        match mkdirat(&self.fd, NAME, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => (),
            Err(error) => return Err(unusable(&path)(error)),
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, NAME, flags, Mode::empty());
        let fd = fd.map_err(|error| match error {
            // Linux and macOS differ on a link where a directory is required.
            Errno::ENOTDIR | Errno::ELOOP => unsound(&path, "not a directory"),
            error => unusable(&path)(error),
        })?;
        let child = Self { fd, path, owner };
        child.check(owner)?;
        Ok(child)
    }

    /// Checks that it belongs to `owner`, and that nobody else may change what is in it.
    fn check(&self, owner: Uid) -> Result<(), RegistryError> {
        let found = stat(&self.fd, &self.path)?;
        check(&self.path, &found, owner, Mode::S_IWGRP | Mode::S_IWOTH)
    }
}

/// Checks that something belongs to `owner`, and has none of the permissions in `refused`.
fn check(path: &Path, found: &FileStat, owner: Uid, refused: Mode) -> Result<(), RegistryError> {
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

fn stat(fd: &OwnedFd, path: &Path) -> Result<FileStat, RegistryError> {
    fstat(fd).map_err(unusable(path))
}

fn unusable(path: &Path) -> impl FnOnce(Errno) -> RegistryError {
    let path = path.to_owned();
    move |error| RegistryError::Unusable {
        path,
        source: error.into(),
    }
}

fn unsound(path: &Path, what: impl fmt::Display) -> RegistryError {
    RegistryError::Unsound {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

/// The name of the registry's directory, in that of the host or the user.
const NAME: &str = "softnet";

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

        fn registry(&self) -> Result<Directory, RegistryError> {
            Directory::parent(&self.0)?.child(geteuid())
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
        let refused = Directory::parent(&run.0).unwrap().child(other).unwrap_err();
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
