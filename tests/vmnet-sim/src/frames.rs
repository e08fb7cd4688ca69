//! vmnet_read and vmnet_write, by the rules and against them.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::script::{Read, Write};
use crate::vmnet::{
    BUFFER_EXHAUSTED, INVALID_ARGUMENT, SUCCESS, Status, TOO_MANY_PACKETS, interface,
};

/// `struct vmpktdesc`
#[repr(C)]
pub struct Packet {
    size: usize,
    vectors: *mut libc::iovec,
    vector_count: u32,
    flags: u32,
}

/// Notes a second call while one is under way.
struct Alone<'flag>(&'flag AtomicBool);

impl<'flag> Alone<'flag> {
    fn try_new(flag: &'flag AtomicBool) -> Option<Self> {
        (!flag.swap(true, Ordering::SeqCst)).then_some(Self(flag))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_read(
    raw: *mut c_void,
    packets: *mut Packet,
    count: *mut c_int,
) -> Status {
    let Some(interface) = interface(raw) else {
        return INVALID_ARGUMENT;
    };
    let Some(_alone) = Alone::try_new(&interface.reading) else {
        return interface.misused("two reads at once");
    };
    let asked = usize::try_from(unsafe { *count }).unwrap_or(0);
    if asked == 0 || asked as u64 > interface.script.limits.map_or(200, |limits| limits.0) {
        interface.misused("a read of too few or too many packets");
        return TOO_MANY_PACKETS;
    }
    let packets = unsafe { std::slice::from_raw_parts_mut(packets, asked) };
    for packet in &*packets {
        let fits = packet.vector_count == 1
            && packet.flags == 0
            && unsafe { (*packet.vectors).iov_len } == packet.size
            && packet.size >= interface.script.max_packet_size;
        if !fits {
            return interface.misused("a descriptor for a read that was not reset, or too short");
        }
    }
    let mut state = interface.lock();
    state.reads += 1;
    match interface.script.read {
        Read::Failing(status) if state.reads.is_multiple_of(3) => return status,
        Read::Broken(status) if state.reads > 2 => return status,
        _ => (),
    }
    let room = if interface.script.read == Read::Short {
        1
    } else {
        asked
    };
    let mut received = 0;
    while received < room
        && let Some(frame) = state.inbound.pop_front()
    {
        let packet = &mut packets[received];
        let len = frame.len().min(packet.size);
        let start = unsafe { (*packet.vectors).iov_base }.cast();
        unsafe { ptr::copy_nonoverlapping(frame.as_ptr(), start, len) };
        packet.size = len;
        packet.flags = 0xdead;
        received += 1;
    }
    if received == 0 {
        state.armed = true;
    }
    unsafe { *count = c_int::try_from(received).unwrap() };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_write(
    raw: *mut c_void,
    packets: *mut Packet,
    count: *mut c_int,
) -> Status {
    let Some(interface) = interface(raw) else {
        return INVALID_ARGUMENT;
    };
    let Some(_alone) = Alone::try_new(&interface.writing) else {
        return interface.misused("two writes at once");
    };
    let asked = usize::try_from(unsafe { *count }).unwrap_or(0);
    if asked == 0 || asked as u64 > interface.script.limits.map_or(200, |limits| limits.1) {
        interface.misused("a write of too few or too many packets");
        return TOO_MANY_PACKETS;
    }
    let mut frames = Vec::new();
    for packet in unsafe { std::slice::from_raw_parts(packets, asked) } {
        let vector = unsafe { &*packet.vectors };
        if packet.vector_count != 1 || vector.iov_len != packet.size || packet.flags != 0 {
            return interface.misused("a descriptor for a write that was not reset");
        }
        frames.push(unsafe {
            std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len)
        });
    }
    let mut state = interface.lock();
    state.writes += 1;
    let legal = |frame: &&[u8]| {
        (14..=interface.script.max_packet_size).contains(&frame.len()) && !frame.ends_with(REFUSED)
    };
    if !frames.iter().all(legal) {
        return INVALID_ARGUMENT;
    }
    let odd = !state.writes.is_multiple_of(2);
    let since = state.first_write.get_or_insert_with(Instant::now).elapsed();
    let (taken, status) = match interface.script.write {
        Write::Half => (asked.div_ceil(2), SUCCESS),
        Write::HalfAndError(status) if odd && asked > 1 => (asked / 2, status),
        Write::NoneAndSuccess if odd => (0, SUCCESS),
        Write::Exhausted(time) if since < time => (0, BUFFER_EXHAUSTED),
        Write::Broken(status) => (asked, status),
        _ => (asked, SUCCESS),
    };
    if !matches!(interface.script.write, Write::Broken(_)) {
        state
            .outbound
            .extend(frames[..taken].iter().map(|frame| frame.to_vec()));
    }
    interface.written.notify_all();
    unsafe { *count = c_int::try_from(taken).unwrap() };
    status
}

/// A frame that ends like this is refused, with the batch that it is in.
pub const REFUSED: &[u8] = b"vmnet refuses this";
