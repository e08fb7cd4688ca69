//! The bed that a subject is measured on: its process, and the two sockets whose outer ends
//! the bench holds, the VM's with Tart's buffers and the host's with the same, or the host's
//! side of a TAP.
//!
//! Nobody reads the other end while a subject works, so that the cores are its own. The
//! kernel notes when each frame arrived there, and the bench reads that later.

use std::fs;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, send, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::network::LAB;
use super::subject::{Report, Setup, Subject};
use super::traffic::{self, stamped};
use super::usage;
use crate::forward::Direction;
use crate::sys::packet;

/// A subject at work. Its process ends with this.
#[derive(Debug)]
pub(super) struct Bed {
    vm: OwnedFd,
    host: Host,
    child: Child,
    pub(super) pid: Pid,
    buffer: Vec<u8>,
}

/// The host's end.
#[derive(Debug)]
enum Host {
    Socket(OwnedFd),
    Tap {
        name: String,
        sender: OwnedFd,
        /// Sees what the subject sends, which makes each frame dearer for the subject.
        watcher: Option<OwnedFd>,
    },
}

/// A frame that came out of the subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// When the kernel put it into the receiver's queue: time since 1970.
    pub(super) at: Duration,
    /// The number and time that it was stamped with, all bits of which are zero without.
    pub(super) stamp: (u32, u64),
}

impl Bed {
    /// Starts `program` as the subject, and takes the VM through DHCP.
    pub(super) fn new(program: &Path, setup: &Setup) -> io::Result<Self> {
        let (vm, vm_inner) = pair(setup.max_frame)?;
        let (host, host_inner) = pair(setup.max_frame)?;
        for end in [&vm, &host] {
            setsockopt(end, sockopt::ReceiveTimestampns, &true)?;
        }
        let child = Command::new(program)
            .arg(SUBCOMMAND)
            .args(setup.arguments())
            .stdin(Stdio::from(OwnedFd::from(vm_inner)))
            .stdout(Stdio::from(OwnedFd::from(host_inner)))
            .stderr(Stdio::piped())
            .spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let mut bed = Self {
            vm: vm.into(),
            host: Host::Socket(host.into()),
            child,
            pid: Pid::from_raw(pid),
            buffer: vec![0; setup.max_frame + 1],
        };
        if let Some(name) = &setup.tap {
            bed.host = bed.host_at_tap(name)?;
        }
        bed.bind_lease()?;
        if setup.subject == Subject::Spread {
            usage::pin(bed.pid, "reader", 0)?;
            usage::pin(bed.pid, "writer", 1)?;
        }
        Ok(bed)
    }

    /// Takes the host's side of the TAP, as soon as the subject has made it and set it up.
    fn host_at_tap(&mut self, name: &str) -> io::Result<Host> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = packet::open(name, false) {
            if Instant::now() > deadline || usage::is_asleep(self.pid).is_err() {
                let words = format!("cannot play the host at the TAP {name}: {error}");
                return Err(self.complaint(&words));
            }
            thread::sleep(LOOK_EVERY);
        }
        self.settle()?;
        Host::of_tap(name)
    }

    /// Looks no longer at what comes out at a TAP, so that it costs no more than it does.
    pub(super) fn unwatch(&mut self) {
        if let Host::Tap { watcher, .. } = &mut self.host {
            *watcher = None;
        }
    }

    /// How many frames the subject has sent to its TAP; `None` without one.
    pub(super) fn sent_to_tap(&self) -> io::Result<Option<usize>> {
        let Host::Tap { name, .. } = &self.host else {
            return Ok(None);
        };
        let table = fs::read_to_string("/proc/self/net/dev")?;
        let row = table.lines().find_map(|line| {
            let (interface, counters) = line.split_once(':')?;
            (interface.trim() == name).then_some(counters)
        });
        // What was written to a TAP is what its interface has received: the second column.
        let count = row.and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok());
        count
            .map(Some)
            .ok_or_else(|| io::Error::other(format!("the TAP {name} is gone")))
    }

    fn bind_lease(&mut self) -> io::Result<()> {
        for (direction, message) in traffic::lease_exchange(&LAB) {
            self.send(direction, &message)?;
            let deadline = Instant::now() + PATIENCE;
            while !self.has_passed(direction, &message)? {
                if Instant::now() > deadline {
                    return Err(self.complaint("the DHCP exchange does not pass"));
                }
                thread::sleep(LOOK_EVERY);
            }
        }
        self.settle()?;
        // What else has come, for a host greets on a new interface.
        for direction in Direction::ALL {
            self.arrivals(direction)?;
        }
        Ok(())
    }

    /// Whether a DHCP message has come out, among whatever else has. The filter may change
    /// its options, but not whom it is from.
    fn has_passed(&mut self, direction: Direction, message: &[u8]) -> io::Result<bool> {
        while self.next_arrival(direction)?.is_some() {
            if self.buffer[..ADDRESSES_AND_PORTS]
                .iter()
                .zip(message)
                .skip(26)
                .all(|(a, b)| a == b)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends a frame into the subject, in at the one side to come out at the other.
    pub(super) fn send(&self, direction: Direction, frame: &[u8]) -> io::Result<()> {
        let end = match (direction, &self.host) {
            (Direction::Outbound, _) => &self.vm,
            (_, Host::Socket(socket) | Host::Tap { sender: socket, .. }) => socket,
        };
        send(end.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// Sends a frame when there is room for it, and meanwhile takes what has come out, or a
    /// subject that waits for room there would never make any here.
    pub(super) fn send_patiently(
        &mut self,
        direction: Direction,
        frame: &[u8],
        arrivals: &mut Vec<Arrival>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.send(direction, frame) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if Instant::now() > deadline {
                return Err(self.complaint("it takes no more frames"));
            }
            arrivals.extend(self.arrivals(direction)?);
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes a frame that has come out; `None` if there is none.
    pub(super) fn next_arrival(&mut self, direction: Direction) -> io::Result<Option<Arrival>> {
        let end = match (direction, &self.host) {
            (Direction::Inbound, _) => &self.vm,
            (_, Host::Socket(socket)) => socket,
            (
                _,
                Host::Tap {
                    watcher: Some(watcher),
                    ..
                },
            ) => watcher,
            (_, Host::Tap { watcher: None, .. }) => return Ok(None),
        };
        let mut control = cmsg_space!(TimeSpec);
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let message = match recvmsg::<SockaddrStorage>(
            end.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let len = message.bytes;
        let at = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(time.into()),
            _ => None,
        });
        let at = at.ok_or_else(|| io::Error::other("the kernel does not stamp datagrams"))?;
        let stamp = stamped(&self.buffer[..len]).unwrap_or_default();
        Ok(Some(Arrival { at, stamp }))
    }

    /// Takes all frames that have come out.
    pub(super) fn arrivals(&mut self, direction: Direction) -> io::Result<Vec<Arrival>> {
        let mut arrivals = Vec::new();
        while let Some(arrival) = self.next_arrival(direction)? {
            arrivals.push(arrival);
        }
        Ok(arrivals)
    }

    /// Stops all threads of the subject. They have stopped when this returns.
    pub(super) fn hold(&mut self) -> io::Result<()> {
        kill(self.pid, Signal::SIGSTOP)?;
        match waitpid(self.pid, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(()),
            _ => Err(self.complaint("it ended")),
        }
    }

    /// Lets a subject that is held go on, waits until it has nothing to do any more, and
    /// returns the CPU time that this took it. To look takes time from a subject that uses all
    /// cores, so nobody does in the first `busy`.
    pub(super) fn release(&mut self, busy: Duration) -> io::Result<Duration> {
        let before = usage::cpu(self.pid)?;
        kill(self.pid, Signal::SIGCONT)?;
        thread::sleep(busy);
        self.settle()?;
        Ok(usage::cpu(self.pid)? - before)
    }

    /// Waits until the subject sleeps.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // Once is not enough: a thread sleeps for a moment when it waits for a page or a lock.
        let mut asleep = 0;
        while asleep < 2 {
            thread::sleep(LOOK_EVERY);
            match usage::is_asleep(self.pid) {
                Ok(true) => asleep += 1,
                Ok(false) => asleep = 0,
                Err(_) => return Err(self.complaint("it ended")),
            }
            if Instant::now() > deadline {
                return Err(self.complaint("it does not come to rest"));
            }
        }
        Ok(())
    }

    /// Ends the subject and returns what it says of itself.
    pub(super) fn finish(mut self) -> io::Result<Report> {
        kill(self.pid, Signal::SIGTERM)?;
        let words = self.last_words();
        let line = words.lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|_| self.complaint(&format!("it said: {words}")))
    }

    fn last_words(&mut self) -> String {
        let mut words = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut words);
        }
        words
    }

    fn complaint(&mut self, what: &str) -> io::Error {
        let _ = self.child.kill();
        let words = self.last_words();
        io::Error::other(format!(
            "the forwarder under measurement failed: {what}\n{words}"
        ))
    }
}

impl Host {
    fn of_tap(name: &str) -> io::Result<Self> {
        // Or the kernel's own solicitations would come as frames for the VM. Where that cannot
        // be switched off, they are dropped, and cost a little.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let sender = packet::open(name, false)?;
        let watcher = packet::open(name, true)?;
        setsockopt(&watcher, sockopt::RcvBuf, &TART_RCVBUF)?;
        setsockopt(&watcher, sockopt::ReceiveTimestampns, &true)?;
        Ok(Self::Tap {
            name: name.to_owned(),
            sender,
            watcher: Some(watcher),
        })
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many frames of `len` bytes fit into the queue of a socket, so that their sender does
/// not have to wait.
pub(super) fn capacity(len: usize, max_frame: usize) -> io::Result<usize> {
    let (near, _far) = pair(max_frame)?;
    let frame = vec![0; len];
    let mut count = 0;
    while send(near.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT).is_ok() {
        count += 1;
    }
    Ok(count)
}

/// A socketpair with the buffers that Tart gives its own, or four times as much where frames
/// are so long that a few dozen would fill them. The kernel may cut that (net.core.wmem_max).
fn pair(max_frame: usize) -> io::Result<(UnixDatagram, UnixDatagram)> {
    let factor = if max_frame > 4096 { 4 } else { 1 };
    let (near, far) = UnixDatagram::pair()?;
    for end in [&near, &far] {
        setsockopt(end, sockopt::SndBuf, &(factor * TART_SNDBUF))?;
        setsockopt(end, sockopt::RcvBuf, &TART_RCVBUF)?;
    }
    Ok((near, far))
}

/// The hidden subcommand of the program that runs a subject.
pub const SUBCOMMAND: &str = "bench-subject";

/// The end of the UDP header's ports. From byte 26 on these are the IPv4 addresses and they.
const ADDRESSES_AND_PORTS: usize = 38;
const TART_SNDBUF: usize = 1 << 20;
const TART_RCVBUF: usize = 4 << 20;

/// Looking more often would take time from the subject on a machine of two cores.
const LOOK_EVERY: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(10);
