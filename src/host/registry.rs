//! One identity per VM: no two VMs of a host may have the same MAC or the same address.
//!
//! There are three files, in a directory that only root can change. Nothing is ever written to
//! them. An identity is one byte of a file, at the offset that is its number: a MAC has 48 bits, an
//! address 32, and for a name a hash of 63 bits is used. Whoever holds the lock on that byte has
//! the identity.
//!
//! ```text
//!   /run/softnet/macs        ....................X...............X.....   one lock per VM
//!   /run/softnet/addresses   ......X..............X....................   one per lease
//!   /run/softnet/names       ...X....................................X.   one per VM that has a name
//! ```
//!
//! The locks are POSIX record locks, fcntl(2), for three reasons:
//!
//! 1. The kernel says which process holds one (`F_GETLK`). Its process id cannot be stale or
//!    forged, unlike one that is written to a file. Locks of an open file description, and those
//!    of flock(2), belong to no process.
//! 2. An address is learned after privileges have been dropped. Locking a byte of an open file
//!    needs none, but a file for each address would have to be created by a process that may no
//!    longer write to the directory.
//! 3. They end with the process, however it ends, and both Linux and macOS have them.
//!
//! A lock also ends when its process closes any descriptor of the file. So each file is opened only
//! once, here, and kept open. The command of `softnet run` does not inherit it, and could not end
//! its parent's locks (fork(2)).

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::unistd::Pid;
use thiserror::Error;

use crate::filter::Claims;
use crate::sys::lock::{self, Locked};
use crate::wire::Mac;

pub use super::directory::Scope;

use super::directory::{self, DirectoryError};

/// The registry, in which one VM has been entered.
#[derive(Debug)]
pub struct Registry {
    scope: Scope,
    path: PathBuf,
    /// Kept for its lock.
    _macs: OwnedFd,
    addresses: OwnedFd,
    names: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    claimed: Option<Ipv4Addr>,
    /// The offset of the name.
    name: Option<i64>,
    refusal: Option<Refusal>,
    told: Option<Refusal>,
}

/// An address that was granted to the VM, but that it cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The address.
    pub address: Ipv4Addr,
    /// The reason.
    pub conflict: Conflict,
}

/// Why an identity is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The process with this number has it.
    Process(Pid),
    /// It belongs to a process that cannot be seen from this process' namespace.
    Hidden,
    /// The system refused the lock for another reason, with this errno.
    Refused(Errno),
}

/// Why the VM cannot be entered in a registry. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// Another VM has its MAC.
    #[error("the MAC {mac} is another VM's, {conflict}: give every VM a MAC of its own")]
    MacTaken {
        /// The MAC.
        mac: Mac,
        /// The process that has it.
        conflict: Conflict,
    },
    /// There is no place for it.
    #[error("no registry of VMs (--no-registry turns it off)")]
    Directory(#[from] DirectoryError),
}

/// The open registry, without our VM.
#[derive(Debug)]
pub struct Opened {
    scope: Scope,
    path: PathBuf,
    macs: OwnedFd,
    addresses: OwnedFd,
    names: OwnedFd,
}

impl Opened {
    /// Enters the VM with this MAC. This needs no privileges, and keeps every other softnet from
    /// serving a VM with that MAC. So it must wait until the VM's interface is open, which shows
    /// that the caller has a VM: a caller who is refused an interface, or waits for one that never
    /// comes, must not block a MAC.
    ///
    /// # Errors
    /// If another VM has the MAC.
    pub fn claim_mac(self, mac: Mac) -> Result<Registry, RegistryError> {
        let number = mac.to_u64().cast_signed();
        lock(&self.macs, number).map_err(|conflict| RegistryError::MacTaken { mac, conflict })?;
        Ok(Registry {
            scope: self.scope,
            path: self.path,
            _macs: self.macs,
            addresses: self.addresses,
            names: self.names,
            state: Mutex::default(),
        })
    }
}

impl Registry {
    /// Opens the registry. Must be called before privileges are dropped, and only once per process.
    ///
    /// # Errors
    /// If there is no place for it, or if somebody other than its owner could change it.
    pub fn open() -> Result<Opened, RegistryError> {
        let (parent, scope) = directory::runtime()?;
        let directory = parent.private_child(NAME)?;
        Ok(Opened {
            scope,
            path: directory.path().to_owned(),
            macs: directory.file("macs")?,
            addresses: directory.file("addresses")?,
            names: directory.file("names")?,
        })
    }

    /// Which VMs it knows.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was refused since the last call, unless it is the same as then.
    #[must_use]
    pub fn new_refusal(&self) -> Option<Refusal> {
        let mut state = self.state();
        let refusal = state.refusal.take()?;
        (state.told.replace(refusal) != Some(refusal)).then_some(refusal)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, address: Ipv4Addr) {
        // This fails only if the kernel has no memory. Then the lock ends with the process.
        let _ = lock::unlock(&self.addresses, offset(address));
    }
}

impl Claims for Registry {
    fn claim(&self, address: Ipv4Addr, bind: &mut dyn FnMut()) -> bool {
        // Locked until the lease is bound, so that `release_stale` sees both or neither.
        let mut state = self.state();
        let is_new = state.claimed != Some(address);
        if is_new && let Err(conflict) = lock(&self.addresses, offset(address)) {
            state.refusal = Some(Refusal { address, conflict });
            return false;
        }
        bind();
        if let Some(old) = state.claimed.replace(address).filter(|old| *old != address) {
            self.give_up(old);
        }
        true
    }

    fn release_stale(&self, leased: &dyn Fn() -> Option<Ipv4Addr>) {
        let mut state = self.state();
        let leased = leased();
        if let Some(ended) = state.claimed.take_if(|claimed| Some(*claimed) != leased) {
            self.give_up(ended);
        }
    }

    fn claim_name(&self, name: &str) -> bool {
        let mut state = self.state();
        let wanted = offset_of_name(name);
        if state.name == Some(wanted) {
            return true;
        }
        let is_free = lock(&self.names, wanted).is_ok();
        if is_free && let Some(old) = state.name.replace(wanted) {
            // As with addresses, this fails only if the kernel has no memory.
            let _ = lock::unlock(&self.names, old);
        }
        is_free
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, conflict } = self;
        write!(
            f,
            "no lease for this VM: the DHCP server grants it {address}, the address of another \
             VM, {conflict}"
        )
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "which the softnet with process id {pid} serves"),
            Self::Hidden => f.write_str("which a softnet in another container serves"),
            Self::Refused(error) => write!(f, "or might be, as the system says: {error}"),
        }
    }
}

/// Locks one byte, without waiting for it.
fn lock(file: &OwnedFd, offset: i64) -> Result<(), Conflict> {
    for _ in 0..ATTEMPTS_MAX {
        match lock::lock(file, offset) {
            Ok(Locked::Ours) => return Ok(()),
            Ok(Locked::By(pid)) if pid.as_raw() > 0 => return Err(Conflict::Process(pid)),
            Ok(Locked::By(_)) => return Err(Conflict::Hidden),
            Ok(Locked::Free) => (),
            Err(error) => return Err(Conflict::Refused(error)),
        }
    }
    Err(Conflict::Hidden)
}

fn offset(address: Ipv4Addr) -> i64 {
    u32::from(address).into()
}

/// A hash that is the same in every softnet (64-bit FNV-1a); those of std may change with its
/// version. A second name with the same hash blocks others no more than that name itself does.
fn offset_of_name(name: &str) -> i64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash >> 1).cast_signed()
}

/// The name of its directory, in that of the host or the user.
const NAME: &str = "softnet";

/// How often to retry a lock that was free again by the time its holder was looked up.
const ATTEMPTS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Softnets of different builds must agree.
    #[test]
    fn a_name_has_the_same_offset_everywhere() {
        assert_eq!(offset_of_name(""), 0x65f9_4e72_4211_1192);
        assert_eq!(offset_of_name("a"), 0x57b1_ee26_4300_f646);
    }
}
