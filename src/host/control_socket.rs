//! The socket over which programs reach the softnet of one VM: where it is, and who may connect.
//!
//! ```text
//!   /run/softnet-control                         0711, root's
//!   /run/softnet-control/501                     0700, the user's that softnet runs as
//!   /run/softnet-control/501/02:00:00:00:00:02   0600, a socket that this user has bound
//! ```
//!
//! The directories are made while softnet may still do so, and the socket is bound afterwards, so
//! that no name in a user's directory is ever followed with root's rights. For a softnet without
//! root, `/run` is the user's own runtime directory. On macOS it is `/var/run`.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid};
use thiserror::Error;

use super::HostError;
use super::directory::{self, DirectoryError};
use super::privileges::{CallersRights, Identity};
use crate::sys::{identity, runtime};
use crate::wire::Mac;

/// A directory for sockets that exists.
#[derive(Debug)]
pub struct Place(PathBuf);

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

/// Why softnet cannot be reached.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No softnet that this user may reach serves the VM.
    #[error(
        "no softnet serves {mac} as user {user}: run this as the user that softnet runs as, or as \
         root"
    )]
    None {
        /// The VM.
        mac: Mac,
        /// Who asks.
        user: Uid,
    },
    /// There is a socket, but nobody answers it any more.
    #[error("the softnet of {0} has ended")]
    Ended(Mac),
    /// The system does not connect.
    #[error("cannot connect to {path}")]
    Failed {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The rights of another user cannot be taken.
    #[error(transparent)]
    Rights(#[from] HostError),
}

impl Place {
    /// Makes the directories for a softnet that will run as this user. Must be called before
    /// privileges are dropped.
    ///
    /// # Errors
    /// If there is no place for them, or if somebody else could change them.
    pub fn prepare(identity: &Identity) -> Result<Self, DirectoryError> {
        let (parent, _) = directory::runtime()?;
        let all = parent.public_child(NAME)?;
        let own = all.child_of(&identity.uid.to_string(), identity.uid)?;
        Ok(Self(own.path().to_owned()))
    }

    /// Listens for connections about the VM with this MAC, which the registry must have given to
    /// this process: then a socket of that name is what an earlier one has left.
    ///
    /// # Errors
    /// If the system refuses, also because the path is too long.
    pub fn listen(&self, vm: Mac) -> io::Result<Listener> {
        let path = self.0.join(vm.to_string());
        let _ = fs::remove_file(&path);
        let socket = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        Ok(Listener { socket, path })
    }
}

impl Listener {
    /// The next connection, if there is one.
    ///
    /// # Errors
    /// If the system refuses it, such as because this process has too many descriptors.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match self.socket.accept() {
            Ok((stream, _)) => Ok(Some(stream.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    /// Removes the socket, so that nobody finds one that no longer answers.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to the softnet that serves this VM as the calling user, or for root as any user. Root
/// first becomes that user, for good, so that a name in the user's directory leads no further than
/// the user may go.
///
/// # Errors
/// If there is none, or none that answers.
pub fn connect(vm: Mac, _: &CallersRights) -> Result<UnixStream, ConnectError> {
    let user = geteuid();
    let hosts = Path::new(runtime::OF_HOST).join(NAME);
    let own = runtime::of_user(user, !identity::is_set_id()).map(|path| path.join(NAME));
    let mut places: Vec<_> = [hosts.clone()]
        .into_iter()
        .chain(own)
        .map(|all| (user, all))
        .collect();
    if user.is_root() {
        places.extend(users_in(&hosts).map(|other| (other, hosts.clone())));
    }
    let sockets = places.iter().map(|(owner, all)| {
        let path = all.join(owner.to_string()).join(vm.to_string());
        (*owner, path)
    });
    let exists = |path: &Path| fs::symlink_metadata(path).is_ok();
    let Some((owner, path)) = sockets.into_iter().find(|(_, path)| exists(path)) else {
        return Err(ConnectError::None { mac: vm, user });
    };
    if owner != user {
        Identity::of(owner).drop_to()?;
    }
    UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Ended(vm),
        _ => ConnectError::Failed { path, source },
    })
}

/// The users who have a directory in this one.
fn users_in(directory: &Path) -> impl Iterator<Item = Uid> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.map(Uid::from_raw)
}

/// The name of the directory of all users' sockets, in that of the host or the user.
const NAME: &str = "softnet-control";
