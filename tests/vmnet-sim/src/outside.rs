//! For a program that a test starts as another process: what it finds in the environment
//! instead of a script, and how the test and it talk.
//!
//! `VMNET_SIM` is the name of a behaviour, and `VMNET_SIM_HOST` a directory in which the test
//! has bound the datagram socket `host`. The frames that the program sends to the host come
//! there; what the test sends to the socket `vmnet` in the same directory goes to the VM. The
//! files `rules` and `stopped` tell what the host's side knows, and `dhcpd_leases` is the test's,
//! which is the DHCP server.

use std::env;
use std::fmt::Write;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::{Host, Rule, Script};

/// The behaviour.
pub const SCRIPT: &str = "VMNET_SIM";
/// The directory.
pub const DIRECTORY: &str = "VMNET_SIM_HOST";

/// After this a server ends that is started by frames.
const SERVER_IDLE: Duration = Duration::from_millis(200);

/// The list of leases.
#[must_use]
pub fn dhcp_leases() -> PathBuf {
    let directory = env::var_os(DIRECTORY).map_or_else(env::temp_dir, PathBuf::from);
    directory.join("dhcpd_leases")
}

/// An interface by the environment, with threads that carry its frames.
pub(crate) fn host() -> Host {
    let script = env::var(SCRIPT).unwrap_or_else(|_| "well".to_owned());
    let host = Host::new(Script::named(&script).expect("a behaviour that exists"));
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else {
        return host;
    };
    // A program before this one may have left its own.
    let _ = fs::remove_file(directory.join("vmnet"));
    let socket = UnixDatagram::bind(directory.join("vmnet")).expect("a directory of the test's");
    let outward = socket.try_clone().unwrap();
    let other = directory.join("host");
    let sender = host.clone();
    let asleep = host.server_starts_in();
    thread::spawn(move || {
        loop {
            if let Some(time) = asleep {
                sender.wait_for_a_frame();
                thread::sleep(time);
            }
            while let Some(frame) = sender.recv(SERVER_IDLE) {
                let _ = outward.send_to(&frame, &other);
            }
        }
    });
    let receiver = host.clone();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok(len) = socket.recv(&mut buffer) {
            receiver.send(&buffer[..len]);
        }
    });
    host
}

/// Writes down the rules that are in force.
pub(crate) fn report_rules(rules: &[Rule]) {
    let mut rules = rules.to_vec();
    // Answers come in any order.
    rules.sort_by_key(|rule| rule.external);
    let mut text = String::new();
    for rule in rules {
        writeln!(text, "{} {}:{}", rule.external, rule.to, rule.internal).unwrap();
    }
    report("rules", &text);
}

/// Writes down that the interface was stopped, and what the program did wrong until then.
pub(crate) fn report_stop(misuse: &[String]) {
    report("stopped", &misuse.join("\n"));
}

fn report(file: &str, text: &str) {
    if let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) {
        // Whole or not at all, for who reads meanwhile.
        let new = directory.join(format!("{file}.new"));
        let _ = fs::write(&new, text).and_then(|()| fs::rename(&new, directory.join(file)));
    }
}
