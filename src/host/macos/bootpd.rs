//! bootpd, macOS' DHCP server: sets how long its leases last, and checks whether it knows that one
//! has ended.
//!
//! By default a lease lasts a day, and a subnet has 253 addresses: a host that starts VMs all day
//! would run out of them. The sharing service passes the lease time to bootpd when an interface
//! starts, so it is set before that. Other keys of the same dictionary are left unchanged.
//!
//! bootpd exits after five idle minutes, and the next packet starts it again (bootp-494.60.3,
//! bootpd.c, `MAXIDLE`). When the last interface stops, its bridge goes away, and with it every
//! packet that has not been read. So after sending bootpd a release, softnet must wait until it has
//! been read.

use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{debug, info, warn};

use crate::host::HostError;
use crate::sys::preferences::{BUSY, Locked, STALE};
use crate::sys::runtime;

/// Checks whether the caller may set this lease time: with `borrowed` privileges it must be one
/// that other VMs can live with, because it holds for every VM of the host.
///
/// # Errors
/// If it is out of bounds.
pub fn check_lease_time(seconds: Option<u32>, borrowed: bool) -> Result<(), HostError> {
    match seconds {
        Some(seconds) if borrowed && !FOR_ANYBODY.contains(&seconds) => {
            Err(HostError::LeaseTime(seconds))
        }
        _ => Ok(()),
    }
}

/// Sets the lease time to `seconds`, ten minutes by default. Only root can do that. A VM is better
/// off with a long lease than without softnet, so every failure is only a warning. Waits at most
/// half a second for others that hold the preferences.
pub fn set_lease_time(seconds: Option<u32>) {
    let seconds = seconds.unwrap_or(DEFAULT);
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        let result = Locked::open("softnet", FILE)
            .and_then(|mut preferences| preferences.set(DICTIONARY, LEASE_TIME, seconds.into()));
        match result {
            Ok(true) => info!("set the lease time of macOS' DHCP server to {seconds} seconds"),
            Ok(false) => (),
            Err(BUSY | STALE) if Instant::now() < deadline => {
                thread::sleep(STEP);
                continue;
            }
            Err(error) => break error,
        }
        return;
    };
    let why = match error {
        BUSY | STALE => "another process holds the sharing preferences".to_owned(),
        error => format!("SystemConfiguration says {error}"),
    };
    warn!(
        "cannot set the lease time of macOS' DHCP server to {seconds} seconds: {why}; leases may \
         last a day, and a host that starts many VMs may run out of addresses"
    );
}

/// Waits until bootpd has ended the lease of `address`, for at most 0.7 seconds, and calls
/// `meanwhile` every 10 milliseconds. If bootpd has no such lease, there is no wait.
pub fn await_release(address: Ipv4Addr, mut meanwhile: impl FnMut()) {
    let start = Instant::now();
    while is_lent(address) {
        if start.elapsed() >= RELEASE_PATIENCE {
            info!("macOS' DHCP server has not taken {address} back in {RELEASE_PATIENCE:?}");
            return;
        }
        meanwhile();
        thread::sleep(LOOK_EVERY);
    }
    let time = start.elapsed();
    debug!("macOS' DHCP server has no lease of {address} after {time:?}");
}

/// Whether bootpd's list has an unexpired lease of `address`; also true if the list cannot be read.
fn is_lent(address: Ipv4Addr) -> bool {
    let mut list = Vec::new();
    let read = File::open(runtime::dhcp_leases())
        .and_then(|file| file.take(LIST_LEN_MAX).read_to_end(&mut list));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    match read {
        Ok(_) => lease_ends(&String::from_utf8_lossy(&list), address)
            .is_some_and(|end| now.is_ok_and(|now| end > now.as_secs())),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// When the lease of `address` ends according to bootpd's list, in seconds since 1970. With each
/// change the list is rewritten and replaces the old one; the entry that changed last comes first
/// (bootp-494.60.3, NICache.c).
fn lease_ends(list: &str, address: Ipv4Addr) -> Option<u64> {
    list.split('}').find_map(|entry| {
        let value = |name: &str| {
            let mut lines = entry.lines();
            lines.find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let is_its = value("ip_address")?.parse() == Ok(address);
        let end = u64::from_str_radix(value("lease")?.strip_prefix("0x")?, 16);
        end.ok().filter(|_| is_its)
    })
}

/// Long enough for a job of a few minutes to keep its address without renewing.
const DEFAULT: u32 = 600;
/// The range that every user of a SUID program may set, in seconds. With a shorter time all VMs
/// would renew again and again, and a longer one would use up the addresses: macOS' own default is
/// a day.
const FOR_ANYBODY: RangeInclusive<u32> = 60..=86_400;
/// In /Library/Preferences/SystemConfiguration.
const FILE: &str = "com.apple.InternetSharing.default.plist";
const DICTIONARY: &str = "bootpd";
const LEASE_TIME: &str = "DHCPLeaseTimeSecs";
/// Meanwhile the VM waits for its network.
const PATIENCE: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(50);
/// This leaves the rest of a second for the rest of the stop.
const RELEASE_PATIENCE: Duration = Duration::from_millis(700);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// An entry has about 150 bytes, and a subnet 253 addresses.
const LIST_LEN_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_found_by_its_address() {
        let list = "{\n\tname=mac\n\tip_address=192.168.64.20\n\thw_address=1,52:54:0:12:34:56\n\
            \tidentifier=1,52:54:0:12:34:56\n\tlease=0x65a1b2c3\n}\n\
            {\n\tip_address=192.168.64.2\n\thw_address=ff,f1:f5:dd:7f\n\tlease=0x65a1b2c4\n}\n";
        let ends = |text, address: [u8; 4]| lease_ends(text, address.into());
        assert_eq!(ends(list, [192, 168, 64, 20]), Some(0x65a1_b2c3));
        assert_eq!(ends(list, [192, 168, 64, 2]), Some(0x65a1_b2c4));
        assert_eq!(ends(list, [192, 168, 64, 3]), None);
        for text in [
            "",
            "{",
            "}}{}",
            "{\n\tip_address=192.168.64.2\n}",
            "{\n\tip_address=192.168.64.2\n\tlease=600\n}",
            "{\n\tip_address=192.168.64.2\n\tlease=0xffffffffffffffffff\n}",
        ] {
            assert_eq!(ends(text, [192, 168, 64, 2]), None, "{text}");
        }
    }
}
