//! vmnet: interfaces that follow a script, with the host's network on their other side.
//!
//! What a caller may not do is refused as vmnet refuses it, and noted for the test: more than
//! one vector, descriptors that were not reset, slots that are too short, calls after the
//! stop, two reads or two writes at once.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::net::Ipv4Addr;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::block::Copied;
use crate::dispatch::Queue;
use crate::script::{Events, Read, Rules, Script, Start, Stop, Write};
use crate::xpc::{self, Owned, Value};
use crate::{Counter, outside};

pub(crate) static LIVE: Counter = Counter::new();

/// A `vmnet_return_t`.
pub type Status = u32;

const SUCCESS: Status = 1000;
const INVALID_ARGUMENT: Status = 1003;
const BUFFER_EXHAUSTED: Status = 1007;
const TOO_MANY_PACKETS: Status = 1008;

/// A TCP port of the host that leads to the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The host's port.
    pub external: u16,
    /// The VM's address.
    pub to: Ipv4Addr,
    /// The VM's port.
    pub internal: u16,
}

/// The host's network behind one interface, as a test sees it.
#[derive(Clone)]
pub struct Host(Arc<Interface>);

struct Interface {
    script: Script,
    state: Mutex<State>,
    written: Condvar,
    reading: AtomicBool,
    writing: AtomicBool,
}

#[derive(Default)]
struct State {
    started: bool,
    stopped: bool,
    description: (u64, bool),
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
    callback: Option<(Arc<Copied>, Queue)>,
    armed: bool,
    calls_back: u32,
    reads: u32,
    writes: u32,
    first_write: Option<Instant>,
    rules: Vec<Rule>,
    rules_refused: u32,
    misuse: Vec<String>,
}

impl Script {
    /// Has the next interface that this thread starts behave so, and gives what is behind it.
    #[must_use]
    pub fn install(self) -> Host {
        let host = Host::new(self);
        NEXT.set(Some(host.clone()));
        host
    }
}

thread_local! {
    static NEXT: std::cell::Cell<Option<Host>> = const { std::cell::Cell::new(None) };
}

impl Host {
    pub(crate) fn new(script: Script) -> Self {
        Self(Arc::new(Interface {
            script,
            state: Mutex::default(),
            written: Condvar::new(),
            reading: AtomicBool::new(false),
            writing: AtomicBool::new(false),
        }))
    }

    /// Sends a frame to the VM.
    pub fn send(&self, frame: &[u8]) {
        let mut state = self.0.lock();
        state.inbound.push_back(frame.to_vec());
        self.0.frames_came(&mut state);
    }

    /// Takes the next frame that the VM sent, waiting for it.
    #[must_use]
    pub fn recv(&self, patience: Duration) -> Option<Vec<u8>> {
        let mut state = self.0.lock();
        let deadline = Instant::now() + patience;
        loop {
            if let Some(frame) = state.outbound.pop_front() {
                return Some(frame);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.0.written.wait_timeout(state, left).unwrap().0;
        }
    }

    /// How many frames wait to be read by the program.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.0.lock().inbound.len()
    }

    /// The rules that are in force.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        self.0.lock().rules.clone()
    }

    /// The mode that was asked for, and whether isolation was.
    #[must_use]
    pub fn description(&self) -> (u64, bool) {
        self.0.lock().description
    }

    /// Whether the program has stopped the interface.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.0.lock().stopped
    }

    /// What the program did that it must not do.
    #[must_use]
    pub fn misuse(&self) -> Vec<String> {
        self.0.lock().misuse.clone()
    }
}

impl Interface {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn frames_came(self: &Arc<Self>, state: &mut State) {
        let due = match self.script.events {
            Events::Edge | Events::Level | Events::Spurious => state.armed,
            Events::Once => state.calls_back == 0,
        };
        if due {
            state.armed = false;
            self.call_back(
                state,
                if self.script.events == Events::Spurious {
                    2
                } else {
                    1
                },
            );
        }
    }

    fn call_back(self: &Arc<Self>, state: &mut State, times: u32) {
        let Some((callback, queue)) = state.callback.clone() else {
            return;
        };
        state.calls_back += times;
        let this = Arc::clone(self);
        queue.clone().run(move || {
            for _ in 0..times {
                let packets = this.lock().inbound.len() as u64;
                let event =
                    Owned::new([(c"vmnet_estimated_packets_available", Value::Number(packets))]);
                callback.call_2(1, event.0);
            }
            if this.script.events == Events::Level {
                thread::sleep(Duration::from_millis(1));
                let mut state = this.lock();
                if state.inbound.is_empty() {
                    state.armed = true;
                } else {
                    this.call_back(&mut state, 1);
                }
            }
        });
    }

    fn misused(&self, how: &str) -> Status {
        self.lock().misuse.push(how.to_owned());
        INVALID_ARGUMENT
    }
}

// --- the interfaces that the program has, by what it takes for their addresses ---

static NUMBER: AtomicUsize = AtomicUsize::new(1);
/// Those that were stopped too, so that a late call is noticed.
static INTERFACES: LazyLock<Mutex<HashMap<usize, Arc<Interface>>>> = LazyLock::new(Mutex::default);

fn interface(raw: *mut c_void) -> Option<Arc<Interface>> {
    let found = INTERFACES.lock().unwrap().get(&raw.addr()).cloned()?;
    if found.lock().stopped || !found.lock().started {
        found.misused("a call for an interface that is not started, or stopped");
        return None;
    }
    Some(found)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_start_interface(
    description: *mut c_void,
    queue: *mut c_void,
    handler: *const c_void,
) -> *mut c_void {
    let Host(interface) = NEXT.take().unwrap_or_else(outside::host);
    let Some(Value::Number(mode @ (1000 | 1001))) =
        xpc::value(description, c"vmnet_operation_mode")
    else {
        return ptr::null_mut();
    };
    let Some(Value::Bool(isolated)) = xpc::value(description, c"vmnet_enable_isolation") else {
        return ptr::null_mut();
    };
    interface.lock().description = (mode, isolated);
    let raw = 16 * NUMBER.fetch_add(1, Ordering::Relaxed);
    INTERFACES
        .lock()
        .unwrap()
        .insert(raw, Arc::clone(&interface));
    let handler = Copied::of(handler);
    match interface.script.start {
        Start::Null => return ptr::null_mut(),
        // The handler stays with the queue of a service that died.
        Start::Never => mem::forget(handler),
        Start::After(time, status) => Queue::of(queue).run(move || {
            thread::sleep(time);
            if status != SUCCESS {
                return handler.call_2(status, ptr::null_mut());
            }
            interface.lock().started = true;
            LIVE.add(1);
            let parameters = Owned::new(parameters(&interface.script));
            handler.call_2(status, parameters.0);
        }),
    }
    ptr::without_provenance_mut(raw)
}

fn parameters(script: &Script) -> Vec<(&'static CStr, Value)> {
    let text = |text: &CStr| Value::Text(text.to_owned());
    let size = script.max_packet_size as u64;
    let mut values = vec![
        (c"vmnet_start_address", text(c"192.168.64.1")),
        (c"vmnet_end_address", text(c"192.168.64.254")),
        (c"vmnet_subnet_mask", text(c"255.255.255.0")),
        (c"vmnet_mtu", Value::Number(size - 14)),
        (c"vmnet_max_packet_size", Value::Number(size)),
    ];
    if let Some((read, write)) = script.limits {
        values.push((c"vmnet_read_max_packets", Value::Number(read)));
        values.push((c"vmnet_write_max_packets", Value::Number(write)));
    }
    values
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_set_event_callback(
    raw: *mut c_void,
    mask: u32,
    queue: *mut c_void,
    callback: *const c_void,
) -> Status {
    let Some(interface) = interface(raw) else {
        return INVALID_ARGUMENT;
    };
    if mask != 1 || callback.is_null() != queue.is_null() {
        return interface.misused("a callback without its queue, or for no event");
    }
    let mut state = interface.lock();
    if callback.is_null() {
        state.callback = None;
        return SUCCESS;
    }
    state.callback = Some((Arc::new(Copied::of(callback)), Queue::of(queue)));
    state.armed = true;
    if interface.script.events == Events::Spurious || !state.inbound.is_empty() {
        interface.call_back(&mut state, 1);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_stop_interface(
    raw: *mut c_void,
    queue: *mut c_void,
    handler: *const c_void,
) -> Status {
    let Some(interface) = interface(raw) else {
        return INVALID_ARGUMENT;
    };
    let handler = Copied::of(handler);
    let queue = Queue::of(queue);
    let late = {
        let mut state = interface.lock();
        state.stopped = true;
        state.callback.take()
    };
    LIVE.add(-1);
    match interface.script.stop {
        Stop::Never => mem::forget(handler),
        Stop::After(time, status) => queue.run(move || {
            thread::sleep(time);
            handler.call_1(status);
        }),
        Stop::WithACallback => queue.run(move || {
            if let Some((callback, _)) = late {
                callback.call_2(1, Owned::new([]).0);
            }
            handler.call_1(SUCCESS);
        }),
    }
    SUCCESS
}

// --- frames ---

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

// --- port forwarding ---

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_add_ip_port_forwarding_rule(
    raw: *mut c_void,
    protocol: u8,
    external: u16,
    family: u8,
    address: *const c_void,
    internal: u16,
    handler: *const c_void,
) -> Status {
    let Some(interface) = interface(raw) else {
        return INVALID_ARGUMENT;
    };
    if (protocol, family) != (6, 2) {
        return interface.misused("a rule for neither TCP nor IPv4");
    }
    let to = Ipv4Addr::from(unsafe { ptr::read_unaligned(address.cast::<[u8; 4]>()) });
    answer(&interface, handler, move |rules| {
        if rules.iter().any(|rule| rule.external == external) {
            return INVALID_ARGUMENT;
        }
        rules.push(Rule {
            external,
            to,
            internal,
        });
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_remove_ip_port_forwarding_rule(
    raw: *mut c_void,
    protocol: u8,
    external: u16,
    family: u8,
    handler: *const c_void,
) -> Status {
    let Some(interface) = interface(raw) else {
        return INVALID_ARGUMENT;
    };
    if (protocol, family) != (6, 2) {
        return interface.misused("a rule for neither TCP nor IPv4");
    }
    answer(&interface, handler, move |rules| {
        let before = rules.len();
        rules.retain(|rule| rule.external != external);
        if rules.len() < before {
            SUCCESS
        } else {
            INVALID_ARGUMENT
        }
    })
}

/// Answers from a thread of nobody's, as vmnet does where it takes no queue.
fn answer(
    interface: &Arc<Interface>,
    handler: *const c_void,
    change: impl FnOnce(&mut Vec<Rule>) -> Status + Send + 'static,
) -> Status {
    let handler = Copied::of(handler);
    let interface = Arc::clone(interface);
    thread::spawn(move || {
        let status = {
            let mut state = interface.lock();
            match interface.script.rules {
                Rules::Never => return mem::forget(handler),
                Rules::Refused(status, times) if state.rules_refused < times => {
                    state.rules_refused += 1;
                    status
                }
                _ => change(&mut state.rules),
            }
        };
        handler.call_1(status);
    });
    SUCCESS
}

// --- keys ---

#[repr(transparent)]
pub struct Key(*const c_char);

unsafe impl Sync for Key {}

macro_rules! keys {
    ($($name:ident = $text:literal),* $(,)?) => {
        $(#[unsafe(no_mangle)] #[allow(non_upper_case_globals)] pub static $name: Key = Key($text.as_ptr());)*
    };
}
keys! {
    vmnet_operation_mode_key = c"vmnet_operation_mode",
    vmnet_enable_isolation_key = c"vmnet_enable_isolation",
    vmnet_start_address_key = c"vmnet_start_address",
    vmnet_subnet_mask_key = c"vmnet_subnet_mask",
    vmnet_mtu_key = c"vmnet_mtu",
    vmnet_max_packet_size_key = c"vmnet_max_packet_size",
}

static READ_MAX: Key = Key(c"vmnet_read_max_packets".as_ptr());
static WRITE_MAX: Key = Key(c"vmnet_write_max_packets".as_ptr());

/// What macOS 15 added, by the names of the variables.
pub(crate) fn late_key(symbol: &[u8]) -> Option<*const Key> {
    match symbol {
        b"vmnet_read_max_packets_key" => Some(&raw const READ_MAX),
        b"vmnet_write_max_packets_key" => Some(&raw const WRITE_MAX),
        _ => None,
    }
}
