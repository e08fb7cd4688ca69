//! recvmsg_x and sendmsg_x by the rules of xnu, over Linux' recv and send; dlsym, which finds
//! them; and sysctlbyname, which tells the version of macOS.
//!
//! Rules (xnu-11417, bsd/kern/uipc_syscalls.c, uipc_socket.c, uipc_usrreq.c): no datagrams or
//! more than 1024 is EINVAL, and so is any flag but MSG_DONTWAIT; a peer without room is
//! ENOBUFS; a call that moved some returns their number; a cut datagram does not say so.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io;
use std::ptr;
use std::sync::{LazyLock, Mutex};

/// Which call is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// recvmsg_x
    Recv,
    /// sendmsg_x
    Send,
}

/// Has the next `times` calls on the descriptor `fd` fail with `errno`.
pub fn fail_next(call: Call, fd: c_int, errno: c_int, times: u32) {
    FAILURES.lock().unwrap().insert((call, fd), (errno, times));
}

/// Has the next `times` calls of sendmsg_x on the descriptor `fd` with more than `reported` frames
/// run out of buffers while they copy the one after these: they report as many as sent, and send
/// none (xnu-11417.140.69, bsd/kern/uipc_syscalls.c, sendit_x and sendmsg_x).
pub fn lose_next(fd: c_int, reported: u32, times: u32) {
    LOSSES.lock().unwrap().insert(fd, (reported, times));
}

/// Sets which macOS this is: 26.0 until then, or `VMNET_SIM_MACOS` of the environment.
pub fn set_macos_version(version: &str) {
    version.clone_into(&mut VERSION.lock().unwrap());
}

static FAILURES: LazyLock<Mutex<HashMap<(Call, c_int), (c_int, u32)>>> =
    LazyLock::new(Mutex::default);
static LOSSES: LazyLock<Mutex<HashMap<c_int, (u32, u32)>>> = LazyLock::new(Mutex::default);
static VERSION: LazyLock<Mutex<String>> = LazyLock::new(|| {
    Mutex::new(std::env::var("VMNET_SIM_MACOS").unwrap_or_else(|_| "26.0".to_owned()))
});

#[repr(C)]
struct Message {
    name: *mut c_void,
    name_len: u32,
    vectors: *mut libc::iovec,
    vector_count: c_int,
    control: *mut c_void,
    control_len: u32,
    flags: c_int,
    data_len: usize,
}

unsafe extern "C" fn recvmsg_x(
    fd: c_int,
    messages: *mut Message,
    count: c_uint,
    flags: c_int,
) -> isize {
    if !(1..=1024).contains(&count) || flags & !libc::MSG_DONTWAIT != 0 {
        return fail(libc::EINVAL);
    }
    if let Some(errno) = injected(Call::Recv, fd) {
        return fail(errno);
    }
    for index in 0..count.min(256) {
        let message = unsafe { &mut *messages.add(index as usize) };
        let vector = unsafe { only_vector(message) };
        // Blocks for the first alone.
        let flags = if index == 0 {
            flags
        } else {
            libc::MSG_DONTWAIT
        };
        let len = unsafe { libc::recv(fd, vector.iov_base, vector.iov_len, flags) };
        if len < 0 {
            return if index > 0 { index as isize } else { -1 };
        }
        message.data_len = len.unsigned_abs();
        message.flags = 0;
    }
    count.min(256) as isize
}

unsafe extern "C" fn sendmsg_x(
    fd: c_int,
    messages: *const Message,
    count: c_uint,
    flags: c_int,
) -> isize {
    if !(1..=1024).contains(&count) || flags & !libc::MSG_DONTWAIT != 0 {
        return fail(libc::EINVAL);
    }
    if let Some(errno) = injected(Call::Send, fd) {
        return fail(errno);
    }
    if let Some(reported) = lost(fd, count) {
        return reported as isize;
    }
    for index in 0..count {
        let vector = unsafe { only_vector(&*messages.add(index as usize)) };
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let len = unsafe { libc::send(fd, vector.iov_base, vector.iov_len, flags) };
        if len < 0 {
            if index > 0 {
                return index as isize;
            }
            return match io::Error::last_os_error().raw_os_error() {
                Some(libc::EAGAIN) => fail(libc::ENOBUFS),
                Some(libc::ECONNREFUSED) => fail(libc::ECONNRESET),
                other => fail(other.unwrap_or(libc::EIO)),
            };
        }
    }
    count as isize
}

/// What softnet never uses must not be there.
unsafe fn only_vector(message: &Message) -> &libc::iovec {
    assert!(message.name.is_null() && message.name_len == 0);
    assert!(message.control.is_null() && message.control_len == 0);
    assert_eq!(message.vector_count, 1);
    unsafe { &*message.vectors }
}

fn injected(call: Call, fd: c_int) -> Option<c_int> {
    let mut failures = FAILURES.lock().unwrap();
    let (errno, times) = failures
        .get_mut(&(call, fd))
        .filter(|(_, times)| *times > 0)?;
    *times -= 1;
    Some(*errno)
}

fn lost(fd: c_int, count: c_uint) -> Option<u32> {
    let mut losses = LOSSES.lock().unwrap();
    let (reported, times) = losses
        .get_mut(&fd)
        .filter(|(reported, times)| *times > 0 && count > *reported)?;
    *times -= 1;
    Some(*reported)
}

fn fail(errno: c_int) -> isize {
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// Finds what macOS exports beyond what softnet links.
///
/// # Safety
/// `symbol` is a C string.
pub unsafe extern "C" fn dlsym(_handle: *mut c_void, symbol: *const c_char) -> *mut c_void {
    match unsafe { CStr::from_ptr(symbol) }.to_bytes() {
        b"recvmsg_x" => recvmsg_x as *mut c_void,
        b"sendmsg_x" => sendmsg_x as *mut c_void,
        name => crate::keys::late_key(name).map_or(ptr::null_mut(), |key| key.cast_mut().cast()),
    }
}

/// # Safety
/// As for the real one.
pub unsafe extern "C" fn sysctlbyname(
    name: *const c_char,
    value: *mut c_void,
    len: *mut usize,
    _new: *mut c_void,
    _new_len: usize,
) -> c_int {
    let text = match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"kern.osproductversion" => product_version(&VERSION.lock().unwrap()),
        b"kern.osrelease" => kernel_version(&VERSION.lock().unwrap()),
        b"machdep.cpu.brand_string" => "Apple nothing".to_owned(),
        _ => return -1,
    };
    assert!(text.len() < unsafe { *len });
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), value.cast(), text.len()) };
    unsafe { *value.cast::<u8>().add(text.len()) = 0 };
    unsafe { *len = text.len() + 1 };
    0
}

/// What a program is told that was linked against an SDK before 26.
fn product_version(version: &str) -> String {
    match version.split_once('.') {
        Some(("26", minor)) => format!("16.{minor}"),
        _ => version.to_owned(),
    }
}

/// The version of the kernel of a macOS.
fn kernel_version(version: &str) -> String {
    let (major, minor) = version.split_once('.').expect("two numbers");
    let kernel = match major.parse::<u32>().expect("a number") {
        major @ 26.. => major - 1,
        major => major + 9,
    };
    format!("{kernel}.{minor}.0")
}
