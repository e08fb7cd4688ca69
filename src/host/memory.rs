//! Gives back memory once softnet has started: reading the command line, opening devices and
//! giving up rights are most of its code, and none of it is needed any more.

use tracing::debug;

use crate::sys::code;

/// Takes the program's code out of this process' memory, of which a fifth comes back as
/// frames flow. The rest stays in the system's cache of files, shared by all that run it, as
/// long as there is room: this is for who adds up what many forwarders have resident.
pub fn give_back_code() {
    if let Err(error) = code::let_go() {
        debug!("the code of the start stays in memory: {error}");
    }
}
