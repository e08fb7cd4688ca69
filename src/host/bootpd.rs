//! The lease time of bootpd, macOS' DHCP server.
//!
//! By default a lease lasts a day, and a subnet has 253 addresses: a host that starts VMs all
//! day would run out of them. The sharing service hands the number to bootpd when an interface
//! starts, so it is set before that. Other keys of the same dictionary stay as they are.

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use tracing::{info, warn};

use super::HostError;
use crate::sys::preferences::{BUSY, Locked, STALE};

/// Sets the lease time to `seconds`, or to ten minutes if nobody asked for another. Only root
/// can; without root, where vmnet needs none, the host's own setting stays. With `borrowed`
/// rights it has to be one that others can live with: it holds for every VM of the host.
///
/// # Errors
/// When the preferences stay locked by somebody else for two seconds, or cannot be written, and
/// when the time is out of bounds.
pub fn set_lease_time(seconds: Option<u32>, borrowed: bool) -> Result<(), HostError> {
    if let Some(seconds) = seconds.filter(|seconds| borrowed && !FOR_ANYBODY.contains(seconds)) {
        return Err(HostError::LeaseTime(seconds));
    }
    if !geteuid().is_root() {
        if seconds.is_some() {
            warn!("--bootpd-lease-time is left out: only root may set it");
        }
        return Ok(());
    }
    let seconds = seconds.unwrap_or(DEFAULT);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let result = Locked::open("softnet", FILE)
            .and_then(|mut preferences| preferences.set(DICTIONARY, LEASE_TIME, seconds.into()));
        match result {
            Ok(true) => info!("the lease time of macOS' DHCP server is {seconds} seconds now"),
            Ok(false) => (),
            Err(BUSY | STALE) if Instant::now() < deadline => {
                thread::sleep(STEP);
                continue;
            }
            Err(BUSY | STALE) => return Err(HostError::PreferencesLocked),
            Err(error) => return Err(HostError::Preferences(error)),
        }
        return Ok(());
    }
}

/// Long enough for a job of some minutes to keep its address without renewing.
const DEFAULT: u32 = 600;
/// What every user of a SUID program may set, in seconds. A shorter one would have all VMs ask
/// again and again, and a longer one would use up the addresses: macOS' own default is a day.
const FOR_ANYBODY: RangeInclusive<u32> = 60..=86_400;
/// In /Library/Preferences/SystemConfiguration.
const FILE: &str = "com.apple.InternetSharing.default.plist";
const DICTIONARY: &str = "bootpd";
const LEASE_TIME: &str = "DHCPLeaseTimeSecs";
const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(50);
