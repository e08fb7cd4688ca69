//! For a program that a test starts as another process: what it finds in the environment
//! instead of a script, and how the test and it talk.
//!
//! `VMNET_SIM` is the name of a behaviour, and `VMNET_SIM_HOST` a directory in which the test
//! has bound the datagram socket `host`. The frames that the program sends to the host come
//! there; what the test sends to the socket `vmnet` in the same directory goes to the VM. The
//! files `rules` and `stopped` tell what the host's side knows.

use std::env;
use std::fmt::Write;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::{Host, Script};

/// The behaviour.
pub const SCRIPT: &str = "VMNET_SIM";
/// The directory.
pub const DIRECTORY: &str = "VMNET_SIM_HOST";

/// An interface by the environment, with threads that carry its frames.
pub(crate) fn host() -> Host {
    let script = env::var(SCRIPT).unwrap_or_else(|_| "well".to_owned());
    let host = Host::new(Script::named(&script).expect("a behaviour that exists"));
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else {
        return host;
    };
    let socket = UnixDatagram::bind(directory.join("vmnet")).expect("a directory of the test's");
    let outward = socket.try_clone().unwrap();
    let other = directory.join("host");
    let sender = host.clone();
    thread::spawn(move || {
        let mut reported = (Vec::new(), false);
        loop {
            if let Some(frame) = sender.recv(Duration::from_millis(5)) {
                let _ = outward.send_to(&frame, &other);
            }
            let now = (sender.rules(), sender.stopped());
            if now != reported {
                let mut rules = String::new();
                for rule in &now.0 {
                    writeln!(rules, "{} {}:{}", rule.external, rule.to, rule.internal).unwrap();
                }
                let _ = fs::write(directory.join("rules"), rules);
                if now.1 {
                    let _ = fs::write(directory.join("stopped"), sender.misuse().join("\n"));
                }
                reported = now;
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
