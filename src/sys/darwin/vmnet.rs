//! Apple's vmnet framework: an interface on the host's bridge, for whose other end this process
//! reads and writes the frames. `endpoint::vmnet` opens it and `host::macos::port_forward` adds rules to
//! it through this file.
//!
//! The functions and structures are those of vmnet.h in the macOS 11 to 14 SDKs. Newer keys are
//! looked up at run time, because a program that links them does not start on macOS 13.
//!
//! vmnet gives asynchronous answers as callbacks, on a queue. Here an answer comes out of a
//! channel, so that the caller decides how long to wait. Every callback has a queue of its own:
//! behind a slow callback on the same queue, another would wait forever.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem::{offset_of, size_of};
use std::net::Ipv4Addr;
use std::ptr::{self, NonNull};

use crossbeam_channel::{Receiver, bounded};
use nix::errno::Errno;

use super::block::Block;
use super::dispatch::Queue;
use super::dynamic;
use super::xpc::{Borrowed, Dictionary};
use crate::batch::FRAMES_MAX;

/// An interface. One thread may read while another writes. vmnet-helper, HyperKit and socket_vmnet
/// do so too, although Apple does not promise that it works.
pub(crate) struct Interface {
    raw: NonNull<c_void>,
    events: Queue,
    control: Queue,
}

// SAFETY: the handle is no more than a name for what the framework keeps, and its functions
// are called from any thread by every user of it. Two calls of `read` at once, or of `write`,
// are what nobody tried: each has its own thread in the forwarder.
unsafe impl Send for Interface {}
// SAFETY: as above.
unsafe impl Sync for Interface {}

/// How the interface is connected to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// To other VMs and the host, but not beyond.
    Host = 1000,
    /// Also through the host, with its address, to wherever the host can go.
    Shared = 1001,
}

/// The properties of an interface once it exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// The host's own address on the bridge: the gateway.
    pub(crate) start_address: Option<CString>,
    pub(crate) subnet_mask: Option<CString>,
    /// Without the Ethernet header.
    pub(crate) mtu: Option<u64>,
    /// With the Ethernet header.
    pub(crate) max_packet_size: Option<u64>,
    /// The most packets that one call of `read` takes; since macOS 15.
    pub(crate) read_max_packets: Option<u64>,
    /// The most packets that one call of `write` takes; since macOS 15.
    pub(crate) write_max_packets: Option<u64>,
    /// Everything that vmnet reported, these and others, for people.
    pub(crate) description: String,
}

impl Interface {
    /// Requests an interface. The answer comes through the channel. Until it has come and is a
    /// success, nothing else may be called.
    pub(crate) fn start(
        mode: Mode,
        isolated: bool,
    ) -> Result<(Self, Receiver<Result<Parameters, Status>>), Status> {
        let mut description = Dictionary::new();
        description.set_u64(key(&raw const vmnet_operation_mode_key), mode as u64);
        description.set_bool(key(&raw const vmnet_enable_isolation_key), isolated);
        let (answer, answered) = bounded(1);
        let handler = Block::new(move |status: u32, parameters: *mut c_void| {
            // SAFETY: vmnet lends the handler a dictionary, or null if it failed.
            let parameters = unsafe { Borrowed::new(parameters) };
            // Nobody may be waiting any more.
            let _ = answer.try_send(Status(status).ok().map(|()| Parameters::of(parameters)));
        });
        let control = Queue::new(c"softnet.vmnet.control");
        // SAFETY: by vmnet.h, a dictionary, a queue, and a block that takes a status and a
        // dictionary; vmnet copies the block and keeps what it needs of the others.
        let raw = unsafe {
            vmnet_start_interface(description.as_ptr(), control.as_ptr(), handler.as_ptr())
        };
        let interface = Self {
            raw: NonNull::new(raw).ok_or(Status::FAILURE)?,
            events: Queue::new(c"softnet.vmnet.events"),
            control,
        };
        Ok((interface, answered))
    }

    /// Has `callback` called when frames have come. It runs on another thread, may be called
    /// without a cause, and may be late.
    pub(crate) fn on_frames(
        &self,
        callback: impl Fn() + Send + Sync + 'static,
    ) -> Result<(), Status> {
        let block = Block::new(move |_events: u32, _event: *mut c_void| callback());
        // SAFETY: by vmnet.h, a started interface, a mask, a queue, and a block that takes a
        // mask and a dictionary. vmnet copies the block.
        Status(unsafe {
            vmnet_interface_set_event_callback(
                self.raw.as_ptr(),
                PACKETS_AVAILABLE,
                self.events.as_ptr(),
                block.as_ptr(),
            )
        })
        .ok()
    }

    /// Stops the calls of [`on_frames`](Self::on_frames). One may still be running.
    pub(crate) fn on_frames_nothing(&self) -> Result<(), Status> {
        // SAFETY: by vmnet.h, a started interface, a mask, and neither queue nor block.
        Status(unsafe {
            vmnet_interface_set_event_callback(
                self.raw.as_ptr(),
                PACKETS_AVAILABLE,
                ptr::null_mut(),
                ptr::null(),
            )
        })
        .ok()
    }

    /// Receives up to one frame per slot without waiting, and stores their lengths. 0 means that
    /// there are no more; fewer frames than slots does not.
    pub(crate) fn read<'slot>(
        &self,
        packets: &mut Packets,
        slots: impl Iterator<Item = &'slot mut [u8]>,
        lens: &mut [u32],
    ) -> Result<usize, Status> {
        let asked = packets.point_at(slots.map(|slot| (slot.as_mut_ptr(), slot.len())));
        let mut count = asked;
        // SAFETY: by vmnet.h, a started interface, and `count` descriptors, each with one
        // vector over a slot that stays borrowed until after the call.
        let status = unsafe {
            vmnet_read(
                self.raw.as_ptr(),
                packets.descriptors.as_mut_ptr(),
                &raw mut count,
            )
        };
        Status(status).ok()?;
        let received = usize::try_from(count.clamp(0, asked)).unwrap_or(0);
        for (len, descriptor) in lens.iter_mut().zip(&packets.descriptors[..received]) {
            *len = u32::try_from(descriptor.size).unwrap_or(u32::MAX);
        }
        Ok(received)
    }

    /// Sends frames in order without waiting. Returns how many were accepted, and the error that
    /// stopped it.
    pub(crate) fn write<'frame>(
        &self,
        packets: &mut Packets,
        frames: impl Iterator<Item = &'frame [u8]>,
    ) -> (usize, Result<(), Status>) {
        let asked = packets.point_at(frames.map(|frame| (frame.as_ptr().cast_mut(), frame.len())));
        let mut count = asked;
        // SAFETY: as in `read`; the framework only reads from the frames, so that they came
        // as shared slices does no harm.
        let status = unsafe {
            vmnet_write(
                self.raw.as_ptr(),
                packets.descriptors.as_mut_ptr(),
                &raw mut count,
            )
        };
        let result = Status(status).ok();
        // If there is an error, a count that was not changed means nothing.
        let taken = if result.is_err() && count >= asked {
            0
        } else {
            count.clamp(0, asked)
        };
        (usize::try_from(taken).unwrap_or(0), result)
    }

    /// Forwards TCP connections to `external` on the host's own addresses to the VM.
    pub(crate) fn add_rule(&self, external: u16, to: Ipv4Addr, internal: u16) -> Answer {
        // The bytes of an in_addr: network order.
        let address = to.octets();
        self.ask(|raw, handler| {
            // SAFETY: by vmnet.h, a started interface, ports in the host's order, an in_addr
            // that is read during the call, and a block that takes a status.
            unsafe {
                vmnet_interface_add_ip_port_forwarding_rule(
                    raw,
                    PROTOCOL_TCP,
                    external,
                    FAMILY_INET,
                    address.as_ptr().cast(),
                    internal,
                    handler,
                )
            }
        })
    }

    /// Removes the rule for `external`.
    pub(crate) fn remove_rule(&self, external: u16) -> Answer {
        self.ask(|raw, handler| {
            // SAFETY: as in `add_rule`.
            unsafe {
                vmnet_interface_remove_ip_port_forwarding_rule(
                    raw,
                    PROTOCOL_TCP,
                    external,
                    FAMILY_INET,
                    handler,
                )
            }
        })
    }

    /// Stops the interface. After this the caller must not use it any more.
    pub(crate) fn stop(&self) -> Answer {
        self.ask(|raw, handler| {
            // SAFETY: by vmnet.h, a started interface, a queue, and a block that takes a
            // status.
            unsafe { vmnet_stop_interface(raw, self.control.as_ptr(), handler) }
        })
    }

    /// Makes a call that answers with one status: at once if it refuses, and otherwise later
    /// through a block.
    fn ask(&self, call: impl FnOnce(*mut c_void, *const c_void) -> u32) -> Answer {
        let (answer, answered) = bounded(1);
        let handler = Block::new(move |status: u32| {
            let _ = answer.try_send(Status(status).ok());
        });
        Status(call(self.raw.as_ptr(), handler.as_ptr())).ok()?;
        Ok(answered)
    }
}

/// The result of a request: refused at once, or answered through the channel.
pub(crate) type Answer = Result<Receiver<Result<(), Status>>, Status>;

impl Parameters {
    fn of(dictionary: Option<Borrowed>) -> Self {
        let Some(dictionary) = dictionary else {
            return Self::default();
        };
        let late = |symbol: &CStr| dictionary.get_u64(late_key(symbol)?);
        Self {
            start_address: dictionary.get_string(key(&raw const vmnet_start_address_key)),
            subnet_mask: dictionary.get_string(key(&raw const vmnet_subnet_mask_key)),
            mtu: dictionary.get_u64(key(&raw const vmnet_mtu_key)),
            max_packet_size: dictionary.get_u64(key(&raw const vmnet_max_packet_size_key)),
            read_max_packets: late(c"vmnet_read_max_packets_key"),
            write_max_packets: late(c"vmnet_write_max_packets_key"),
            description: dictionary.describe(),
        }
    }
}

/// The descriptors of one call, for one thread.
pub(crate) struct Packets {
    descriptors: Box<[Descriptor; FRAMES_MAX]>,
    vectors: Box<[libc::iovec; FRAMES_MAX]>,
}

// SAFETY: the raw pointers inside are written right before each call, from slices that are
// borrowed for that call, and are not read at any other time.
unsafe impl Send for Packets {}

impl Packets {
    pub(crate) fn new() -> Self {
        let vector = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        let descriptor = Descriptor {
            size: 0,
            vectors: ptr::null_mut(),
            vector_count: 1,
            flags: 0,
        };
        Self {
            descriptors: Box::new([descriptor; FRAMES_MAX]),
            vectors: Box::new([vector; FRAMES_MAX]),
        }
    }

    /// Points one descriptor after another at one buffer each, and returns how many. All fields are
    /// set again, because vmnet writes to them. More than one vector per packet is an invalid
    /// argument (QEMU, net/vmnet-common.m).
    fn point_at(&mut self, buffers: impl Iterator<Item = (*mut u8, usize)>) -> c_int {
        let mut count = 0;
        let descriptors = self.descriptors.iter_mut().zip(self.vectors.iter_mut());
        for ((descriptor, vector), (start, len)) in descriptors.zip(buffers) {
            *vector = libc::iovec {
                iov_base: start.cast(),
                iov_len: len,
            };
            *descriptor = Descriptor {
                size: len,
                vectors: vector,
                vector_count: 1,
                flags: 0,
            };
            count += 1;
        }
        count
    }
}

/// `struct vmpktdesc`
#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    size: usize,
    vectors: *mut libc::iovec,
    vector_count: u32,
    flags: u32,
}

// vmnet.h, macOS 11.3 SDK: size_t, struct iovec *, uint32_t, uint32_t.
const _: () = {
    assert!(size_of::<Descriptor>() == 24);
    assert!(offset_of!(Descriptor, size) == 0);
    assert!(offset_of!(Descriptor, vectors) == 8);
    assert!(offset_of!(Descriptor, vector_count) == 16);
    assert!(offset_of!(Descriptor, flags) == 20);
    // sys/_types/_iovec_t.h: void *, size_t.
    assert!(size_of::<libc::iovec>() == 16);
    assert!(offset_of!(libc::iovec, iov_len) == 8);
};

/// A `vmnet_return_t` other than success. It is a number, because newer systems have new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(u32);

impl Status {
    pub(crate) const FAILURE: Self = Self(1001);
    pub(crate) const BUFFER_EXHAUSTED: Self = Self(1007);
    pub(crate) const SHARING_SERVICE_BUSY: Self = Self(1009);
    pub(crate) const NOT_AUTHORIZED: Self = Self(1010);

    const fn ok(self) -> Result<(), Self> {
        match self.0 {
            1000 => Ok(()),
            _ => Err(self),
        }
    }

    pub(crate) const fn number(self) -> u32 {
        self.0
    }

    /// The nearest `errno`, for counters that only store these.
    const fn errno(self) -> Errno {
        match self.0 {
            1002 => Errno::ENOMEM,
            1003 => Errno::EINVAL,
            1004 => Errno::ENXIO,
            1005 => Errno::EACCES,
            1006 => Errno::EMSGSIZE,
            1007 => Errno::ENOBUFS,
            1008 => Errno::E2BIG,
            1009 => Errno::EBUSY,
            1010 => Errno::EPERM,
            _ => Errno::EIO,
        }
    }
}

impl From<Status> for io::Error {
    fn from(status: Status) -> Self {
        status.errno().into()
    }
}

/// The text of a key: the framework exports variables that point to it.
fn key(variable: *const *const c_char) -> &'static CStr {
    // SAFETY: it is one of the variables below, which the framework set before we started.
    let text = unsafe { *variable };
    // SAFETY: a constant C string in the framework.
    unsafe { CStr::from_ptr(text) }
}

/// The same for a key that this version of macOS may not have.
fn late_key(symbol: &CStr) -> Option<&'static CStr> {
    dynamic::find(symbol).map(|variable| key(variable.as_ptr().cast_const().cast()))
}

const PACKETS_AVAILABLE: u32 = 1;
/// IPPROTO_TCP.
const PROTOCOL_TCP: u8 = 6;
/// AF_INET.
const FAMILY_INET: u8 = 2;

#[cfg_attr(target_os = "macos", link(name = "vmnet", kind = "framework"))]
unsafe extern "C" {
    static vmnet_operation_mode_key: *const c_char;
    static vmnet_enable_isolation_key: *const c_char;
    static vmnet_start_address_key: *const c_char;
    static vmnet_subnet_mask_key: *const c_char;
    static vmnet_mtu_key: *const c_char;
    static vmnet_max_packet_size_key: *const c_char;

    fn vmnet_start_interface(
        description: *mut c_void,
        queue: *mut c_void,
        handler: *const c_void,
    ) -> *mut c_void;
    fn vmnet_stop_interface(
        interface: *mut c_void,
        queue: *mut c_void,
        handler: *const c_void,
    ) -> u32;
    fn vmnet_interface_set_event_callback(
        interface: *mut c_void,
        mask: u32,
        queue: *mut c_void,
        callback: *const c_void,
    ) -> u32;
    fn vmnet_read(interface: *mut c_void, packets: *mut Descriptor, count: *mut c_int) -> u32;
    fn vmnet_write(interface: *mut c_void, packets: *mut Descriptor, count: *mut c_int) -> u32;
    fn vmnet_interface_add_ip_port_forwarding_rule(
        interface: *mut c_void,
        protocol: u8,
        external_port: u16,
        address_family: u8,
        internal_address: *const c_void,
        internal_port: u16,
        handler: *const c_void,
    ) -> u32;
    fn vmnet_interface_remove_ip_port_forwarding_rule(
        interface: *mut c_void,
        protocol: u8,
        external_port: u16,
        address_family: u8,
        handler: *const c_void,
    ) -> u32;
}
