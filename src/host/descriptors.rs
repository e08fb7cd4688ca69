//! The descriptors that softnet inherits: the VM's socket, which it takes, and whatever else
//! its caller left open, which it closes.
//!
//! Both come first of all, before the process opens anything itself.

use std::os::fd::{OwnedFd, RawFd};

use super::HostError;
use crate::sys::descriptor;

/// Takes the VM's socket, if there is one to inherit, and closes every other descriptor
/// besides the standard streams.
///
/// # Errors
/// [`HostError::NotOpen`] for a number without a descriptor.
pub fn inherit(vm: Option<RawFd>) -> Result<Option<OwnedFd>, HostError> {
    let vm = vm
        .map(|fd| descriptor::claim(fd).map_err(|_| HostError::NotOpen(fd)))
        .transpose()?;
    descriptor::close_others(vm.as_ref()).map_err(HostError::system(
        "close what other descriptors were left open",
    ))?;
    Ok(vm)
}
