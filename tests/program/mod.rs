//! The program under test: started as users start it, watched from outside.
#![allow(dead_code)] // Each test takes what it needs.

pub(crate) mod guest;

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, panic};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{Pid, geteuid};

pub(crate) const SOFTNET: &str = env!("CARGO_BIN_EXE_softnet");
pub(crate) const MAC: &str = "52:54:00:12:34:56";

/// A command line that is complete where standard input is the VM's socket.
pub(crate) const ARGUMENTS: [&str; 6] = [
    "--vm-fd",
    "0",
    "--vm-mac-address",
    MAC,
    "--tap",
    "softnet-test0",
];

/// Runs `test` in a network namespace of its own, and with a `/run` of its own for the
/// registry, both of which go away with it; skips it loudly without root, which is a failure where `CI=true`.
pub(crate) fn as_root(test: impl FnOnce() + Send) {
    if !geteuid().is_root() {
        let thread = thread::current();
        skip(thread.name().unwrap_or("a test"), "root");
        return;
    }
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            // With what logind makes for users, too.
            sh(
                "mount --make-rprivate / && mount -t tmpfs -o mode=755 none /run \
                && install -d -o nobody -m 700 /run/user/65534",
            );
            test();
        });
        thread
            .join()
            .unwrap_or_else(|error| panic::resume_unwind(error));
    });
}

/// Says loudly that the test `name` is skipped since it needs `what`, which is a failure where
/// `CI=true`.
pub(crate) fn skip(name: &str, what: &str) {
    let ci = env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "{name} needs {what}, and a skip is a failure here");
    // Not by eprintln, which the test harness keeps to itself when a test passes.
    let line = format!("\n*** SKIPPED, since it needs {what}: {name} ***\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Runs a line of shell, which has to succeed.
pub(crate) fn sh(line: &str) {
    let status = Command::new("/bin/sh").args(["-c", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

/// Fills a pipe to the last byte.
pub(crate) fn fill(mut pipe: &io::PipeWriter) {
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    for size in [4096, 1] {
        while pipe.write(&vec![0; size]).is_ok() {}
    }
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
}

/// Configures the namespace with iproute2.
pub(crate) fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// A socketpair with the buffers that Tart gives both ends: softnet's, and the VM's.
pub(crate) fn socketpair() -> (UnixDatagram, UnixDatagram) {
    let (ours, vms) = UnixDatagram::pair().unwrap();
    for end in [&ours, &vms] {
        // Beyond the limits of other users if we are root, as macOS has it for everybody.
        setsockopt(end, sockopt::SndBufForce, &(1 << 20))
            .or_else(|_| setsockopt(end, sockopt::SndBuf, &(1 << 20)))
            .unwrap();
        setsockopt(end, sockopt::RcvBufForce, &(4 << 20))
            .or_else(|_| setsockopt(end, sockopt::RcvBuf, &(4 << 20)))
            .unwrap();
    }
    vms.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (ours, vms)
}

/// `softnet`, with an empty environment, and `stdin` as descriptor 0.
pub(crate) fn softnet(stdin: impl Into<OwnedFd>) -> Command {
    let mut command = Command::new(SOFTNET);
    clear_environment(&mut command).stdin(Stdio::from(stdin.into()));
    command
}

/// Leaves nothing of the environment but where a measurement of coverage keeps its counts.
fn clear_environment(command: &mut Command) -> &mut Command {
    let kept = env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE");
    command.env_clear().envs(kept)
}

/// What became of a program that ends by itself.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` to its end, which has to come within some seconds.
pub(crate) fn outcome(command: &mut Command) -> Outcome {
    let mut program = Program::start(command);
    let code = program.ends_within(Duration::from_secs(10)).code();
    let (stdout, stderr) = program.take_output();
    Outcome {
        code,
        stdout,
        stderr,
    }
}

/// Runs `command`, which has to fail with one line that has `reason` in it.
#[track_caller]
pub(crate) fn refused(command: &mut Command, reason: &str) {
    let Outcome {
        code,
        stdout,
        stderr,
    } = outcome(command);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains(reason), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// A running program; killed, if it still is one, when the test is over.
pub(crate) struct Program {
    child: Child,
    /// The other end of its standard output.
    pub(crate) control: UnixStream,
    stdout: Capture,
    stderr: Capture,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        // A socket, which `--control-fd 1` takes as well, as Tart has it.
        let (stdout, theirs) = UnixStream::pair().unwrap();
        command.stdout(OwnedFd::from(theirs)).stderr(Stdio::piped());
        let mut child = loop {
            match command.spawn() {
                // Another test's child, between its fork and its exec, still has open what
                // Copy wrote.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                    thread::sleep(Duration::from_millis(2));
                }
                child => break child.unwrap(),
            }
        };
        // What the command holds would keep the socket open when the program is gone.
        command.stdout(Stdio::null());
        let control = stdout.try_clone().unwrap();
        let stdout = Capture::start(stdout);
        let stderr = Capture::start(child.stderr.take().unwrap());
        Self {
            child,
            control,
            stdout,
            stderr,
        }
    }

    /// The same, and waits until it forwards.
    pub(crate) fn start_forwarding(command: &mut Command) -> Self {
        let mut program = Self::start(command);
        program.logs("forwarding for");
        program
    }

    /// Waits until it has logged `text`.
    pub(crate) fn logs(&mut self, text: &str) {
        self.wait_for(text, |program| program.stderr.so_far());
    }

    /// Waits until it has printed `text` on standard output.
    pub(crate) fn prints(&mut self, text: &str) {
        self.wait_for(text, |program| program.stdout.so_far());
    }

    fn wait_for(&mut self, text: &str, output: impl Fn(&Self) -> String) {
        let patience = Instant::now() + Duration::from_secs(10);
        while !output(self).contains(text) {
            let ended = self.child.try_wait().unwrap();
            let log = self.log();
            // What it said last may still be on its way.
            if ended.is_some() && !output(self).contains(text) {
                panic!("ended with {ended:?} and not with {text:?}: {log}");
            }
            assert!(Instant::now() < patience, "no {text:?} in: {log}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn ends_within(&mut self, limit: Duration) -> ExitStatus {
        let patience = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            let log = self.stderr.so_far();
            assert!(
                Instant::now() < patience,
                "still there after {limit:?}: {log}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Both of its outputs, to their ends; once it has ended.
    pub(crate) fn take_output(&mut self) -> (String, String) {
        (self.stdout.whole(), self.stderr.whole())
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        self.stdout.so_far()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.so_far()
    }

    /// A line of `/proc/PID/status`, without its name.
    pub(crate) fn status(&self, line: &str) -> String {
        status(self.pid(), line)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of `/proc/PID/status`, without its name, its words separated by single spaces.
pub(crate) fn status(pid: Pid, line: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut found = status
        .lines()
        .filter_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    found
        .next()
        .unwrap()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// One output of a program, read as it comes so that it never blocks.
struct Capture {
    text: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let thread = thread::spawn({
            let text = Arc::clone(&text);
            move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                    text.lock()
                        .unwrap()
                        .push_str(&String::from_utf8_lossy(&bytes[..count]));
                }
            }
        });
        Self {
            text,
            thread: Some(thread),
        }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn whole(&mut self) -> String {
        self.thread.take().unwrap().join().unwrap();
        self.so_far()
    }
}

/// A copy of the program where every user may execute it, with these permissions.
pub(crate) struct Copy(PathBuf);

impl Copy {
    pub(crate) fn new(mode: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("softnet-test-{}-{count}", std::process::id()));
        fs::copy(SOFTNET, &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// A command as by [`softnet`].
    pub(crate) fn command(&self, stdin: impl Into<OwnedFd>) -> Command {
        let mut command = Command::new(&self.0);
        clear_environment(&mut command).stdin(Stdio::from(stdin.into()));
        command
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
