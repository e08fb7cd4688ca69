//! The testbed that a subject is measured on: its process, and the two sockets whose outer ends
//! the bench holds, the VM's with Tart's buffers and the host's with the same, or the host's
//! side of a TAP, or the host itself at vmnet.
//!
//! Nobody reads the other end while a subject works, so that the cores are its own. The
//! kernel notes when it received each frame there, and the bench reads that later. Where it does
//! not ([`timestamp::BY_KERNEL`]), the bench waits for frames that come one by one, and takes
//! the time itself.

mod host;
mod process;

#[cfg(tap)]
#[path = "testbed/tap.rs"]
mod interface;

#[cfg(vmnet)]
#[path = "testbed/vmnet.rs"]
mod interface;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::select::{FdSet, select};
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;

pub(in crate::bench) use self::host::Counted;
use self::host::HostEnd;
pub use self::interface::TapHost;
pub(super) use self::interface::check_vmnet;
use super::HostSide;
use super::network::{Conversation, LAB};
use super::subject::{Setup, Subject};
use super::traffic::{self, Traffic, stamped};
use crate::direction::Direction;
use crate::host::privileges::SavedPrivileges;
use crate::sys::{cores, timestamp};

/// A subject at work. Its process ends with this.
#[derive(Debug)]
pub(super) struct Testbed {
    vm: OwnedFd,
    host: Box<dyn HostEnd>,
    /// Whether it has to stop an interface of vmnet before it ends.
    ends_gently: bool,
    child: Child,
    /// What it has said so far.
    said: String,
    pub(super) pid: Pid,
    /// Whom its frames are between.
    between: Conversation,
    buffer: Vec<u8>,
}

/// A frame that came out of the subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// When the kernel put it into the receiver's queue, or the bench took it from there:
    /// time since 1970.
    pub(super) at: Duration,
    /// The number and time that it was stamped with, all bits of which are zero without.
    pub(super) stamp: (u32, u64),
}

impl Testbed {
    /// Starts `program` as the subject, waits until it forwards, and takes the VM through DHCP.
    /// With saved privileges the subject has them, too, until it has opened what needs them.
    pub(super) fn new(
        program: &Path,
        setup: &Setup<'_>,
        saved: Option<&SavedPrivileges>,
    ) -> io::Result<Self> {
        let (vm, vm_inner) = pair(setup.max_frame)?;
        timestamp::note(&vm)?;
        let (host, host_inner) = host::open(setup)?;
        let mut command = Command::new(program);
        command
            .args(setup.arguments())
            .env("SOFTNET_LOG", "info")
            .stdin(Stdio::from(OwnedFd::from(vm_inner)))
            .stdout(Stdio::from(host_inner))
            .stderr(Stdio::piped())
            // A group of its own, so that nobody stays who is held when the bench is killed:
            // a stopped process whose group that orphans is woken with SIGHUP (POSIX, _exit(),
            // "Consequences of Process Termination").
            .process_group(0);
        let mut start = || command.spawn();
        let child = match saved {
            Some(saved) => saved.with(start)?,
            None => start()?,
        };
        if let Some(stderr) = &child.stderr {
            fcntl(stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        // It has the ends that the subject got, whose absence tells that the subject has ended.
        drop(command);
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let mut testbed = Self {
            vm: vm.into(),
            host,
            ends_gently: matches!(setup.host, HostSide::Vmnet),
            child,
            said: String::new(),
            pid: Pid::from_raw(pid),
            between: Conversation::LAB,
            buffer: vec![0; setup.max_frame + 1],
        };
        testbed.await_start()?;
        if testbed.ends_gently {
            testbed.join_host()?;
            return Ok(testbed);
        }
        testbed.bind_lease()?;
        if setup.subject == Subject::Spread {
            cores::pin(testbed.pid, "reader", 0)?;
            cores::pin(testbed.pid, "writer", 1)?;
        }
        Ok(testbed)
    }

    /// The frames of a kind that this VM and its host send each other.
    pub(super) fn frames(&self, traffic: Traffic, direction: Direction) -> Vec<Vec<u8>> {
        traffic.frames(direction, &self.between)
    }

    /// One frame of so many bytes.
    pub(super) fn frame(&self, len: usize, direction: Direction) -> Vec<u8> {
        self.frames(Traffic::Flow(len), direction).remove(0)
    }

    /// See [`HostEnd::unwatch`].
    pub(super) fn unwatch(&mut self) -> io::Result<()> {
        self.host.unwatch()
    }

    /// See [`HostEnd::sent`].
    pub(super) fn sent_to_host(&self) -> io::Result<Option<Counted>> {
        self.host.sent()
    }

    /// See [`HostEnd::is_lossy`].
    pub(super) fn is_lossy(&self) -> bool {
        self.host.is_lossy()
    }

    fn bind_lease(&mut self) -> io::Result<()> {
        for (direction, message) in traffic::lease_exchange(&LAB) {
            self.send(direction, &message)?;
            let deadline = Instant::now() + PATIENCE;
            while !self.has_passed(direction, &message)? {
                if Instant::now() > deadline || self.child.try_wait()?.is_some() {
                    return Err(self.complaint("the DHCP exchange does not pass"));
                }
                thread::sleep(LOOK_EVERY);
            }
        }
        self.quiesce()?;
        // What else has come, for a host greets on a new interface.
        for direction in Direction::ALL {
            self.take_received(direction)?;
        }
        Ok(())
    }

    /// Whether a DHCP message has come out, among whatever else has. The filter may change
    /// its options, but not whom it is from.
    fn has_passed(&mut self, direction: Direction, message: &[u8]) -> io::Result<bool> {
        while self.next_received(direction)?.is_some() {
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
        match direction {
            Direction::Outbound => self.vm.send(frame),
            Direction::Inbound => self.host.send(frame),
        }
    }

    /// Sends a frame when there is room for it, and meanwhile takes what has come out, or a
    /// subject that waits for room there would never make any here.
    pub(super) fn send_patiently(
        &mut self,
        direction: Direction,
        frame: &[u8],
        received: &mut Vec<Received>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.send(direction, frame) {
                Err(error) if is_full(&error) => {}
                result => return result,
            }
            if Instant::now() > deadline {
                return Err(self.complaint("it takes no more frames"));
            }
            received.extend(self.take_received(direction)?);
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes a frame that has come out; `None` if there is none.
    pub(super) fn next_received(&mut self, direction: Direction) -> io::Result<Option<Received>> {
        let (len, at) = match self.receive(direction) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(self.complaint(&error.to_string())),
        };
        let stamp = stamped(&self.buffer[..len]).unwrap_or_default();
        Ok(Some(Received { at, stamp }))
    }

    /// Receives a frame that has come out; returns its length and when that was.
    fn receive(&mut self, direction: Direction) -> io::Result<(usize, Duration)> {
        if direction == Direction::Outbound {
            return self.host.recv(&mut self.buffer);
        }
        loop {
            let (len, at) = self.vm.recv(&mut self.buffer)?;
            let frame = &self.buffer[..len];
            if self.host.has_sent(frame) {
                return Ok((len, at));
            }
            if let Some(answer) = self.host.answer(frame) {
                // Who gets none asks again.
                let _ = self.vm.send(&answer);
            }
        }
    }

    /// Where frames come out; `None` if nobody looks.
    fn receiver(&self, direction: Direction) -> Option<BorrowedFd<'_>> {
        match direction {
            Direction::Outbound => self.host.receiver(),
            Direction::Inbound => self.vm.receiver(),
        }
    }

    /// Takes all frames that have come out.
    pub(super) fn take_received(&mut self, direction: Direction) -> io::Result<Vec<Received>> {
        let mut received = Vec::new();
        while let Some(frame) = self.next_received(direction)? {
            received.push(frame);
        }
        Ok(received)
    }

    /// Waits until `due`. Frames that come out meanwhile stay where they are, unless it takes
    /// the bench to tell when they came.
    pub(super) fn wait_until(
        &mut self,
        due: Instant,
        directions: &[Direction],
        received: &mut Vec<Received>,
    ) -> io::Result<()> {
        let left = || due.saturating_duration_since(Instant::now());
        if timestamp::BY_KERNEL {
            thread::sleep(left());
            return Ok(());
        }
        loop {
            for &direction in directions {
                received.extend(self.take_received(direction)?);
            }
            if left().is_zero() {
                return Ok(());
            }
            let ends = directions
                .iter()
                .filter_map(|&direction| self.receiver(direction));
            wait_for_any(ends, left())?;
        }
    }

    /// Waits until the subject sleeps, and takes the last frames that come out.
    pub(super) fn quiesce_and_take(
        &mut self,
        directions: &[Direction],
        received: &mut Vec<Received>,
    ) -> io::Result<()> {
        if !timestamp::BY_KERNEL {
            self.wait_until(Instant::now() + LAST_ONES, directions, received)?;
        }
        self.quiesce()?;
        for &direction in directions {
            received.extend(self.take_received(direction)?);
        }
        Ok(())
    }
}

/// Waits until there is something to receive at one of the sockets, for so long at most.
/// Not with poll(2), which counts in milliseconds.
fn wait_for_any<'fd>(
    sockets: impl Iterator<Item = BorrowedFd<'fd>>,
    time: Duration,
) -> io::Result<()> {
    let mut set = FdSet::new();
    sockets.for_each(|socket| set.insert(socket));
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let mut timeout = TimeVal::microseconds(micros);
    match select(None, &mut set, None, None, &mut timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether sending failed for want of room: Linux says EAGAIN, macOS ENOBUFS.
pub(super) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
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

/// The end of the UDP header's ports. From byte 26 on these are the IPv4 addresses and they.
const ADDRESSES_AND_PORTS: usize = 38;
const TART_SNDBUF: usize = 1 << 20;
const TART_RCVBUF: usize = 4 << 20;

/// Looking more often would take time from the subject on a machine of two cores. But where
/// the time that it takes is known from looking, that is what limits how well.
const LOOK_EVERY: Duration = Duration::from_micros(if timestamp::BY_KERNEL { 200 } else { 50 });
/// The last frames are out by then, as a rule.
const LAST_ONES: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);
