//! vmnet: interfaces that follow a script, with the host's network on their other side.
//!
//! What a caller may not do is refused as vmnet refuses it, and noted for the test: more than
//! one vector, descriptors that were not reset, slots that are too short, calls after the
//! stop, two reads or two writes at once.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, c_void};
use std::mem;
use std::net::Ipv4Addr;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::block::Copied;
use crate::dispatch::Queue;
use crate::script::{Events, Script, Start, Stop};
use crate::xpc::{self, Owned, Value};
use crate::{Counter, outside};

pub(crate) static LIVE: Counter = Counter::new();

/// A `vmnet_return_t`.
pub type Status = u32;

pub(crate) const SUCCESS: Status = 1000;
pub(crate) const INVALID_ARGUMENT: Status = 1003;
pub(crate) const BUFFER_EXHAUSTED: Status = 1007;
pub(crate) const TOO_MANY_PACKETS: Status = 1008;
const NOT_AUTHORIZED: Status = 1010;

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

pub(crate) struct Interface {
    pub(crate) script: Script,
    pub(crate) state: Mutex<State>,
    pub(crate) written: Condvar,
    pub(crate) reading: AtomicBool,
    pub(crate) writing: AtomicBool,
}

#[derive(Default)]
pub(crate) struct State {
    started: bool,
    stopped: bool,
    description: (u64, bool),
    pub(crate) inbound: VecDeque<Vec<u8>>,
    pub(crate) outbound: VecDeque<Vec<u8>>,
    callback: Option<(Arc<Copied>, Queue)>,
    pub(crate) armed: bool,
    calls_back: u32,
    pub(crate) reads: u32,
    pub(crate) writes: u32,
    pub(crate) first_write: Option<Instant>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) rules_refused: u32,
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

    /// Waits until there is a frame that the VM sent.
    pub(crate) fn wait_for_a_frame(&self) {
        let state = self.0.lock();
        let written = &self.0.written;
        drop(written.wait_while(state, |state| state.outbound.is_empty()));
    }

    /// How long the server behind it takes to start, if it is not there all the time.
    pub(crate) fn server_starts_in(&self) -> Option<Duration> {
        self.0.script.server_starts_in
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
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
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

    pub(crate) fn misused(&self, how: &str) -> Status {
        self.lock().misuse.push(how.to_owned());
        INVALID_ARGUMENT
    }
}

// --- the interfaces that the program has, by what it takes for their addresses ---

static NUMBER: AtomicUsize = AtomicUsize::new(1);
/// Those that were stopped too, so that a late call is noticed.
static INTERFACES: LazyLock<Mutex<HashMap<usize, Arc<Interface>>>> = LazyLock::new(Mutex::default);

pub(crate) fn interface(raw: *mut c_void) -> Option<Arc<Interface>> {
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
    let start = match interface.script.start {
        Start::ForRoot if unsafe { libc::geteuid() } == 0 => Start::After(Duration::ZERO, SUCCESS),
        Start::ForRoot => Start::After(Duration::ZERO, NOT_AUTHORIZED),
        start => start,
    };
    match start {
        Start::Null => return ptr::null_mut(),
        // The handler stays with the queue of a service that died.
        Start::Never | Start::ForRoot => mem::forget(handler),
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
        outside::report_stop(&state.misuse);
        if interface.script.stop == Stop::Discarding {
            state.outbound.clear();
        }
        state.callback.take()
    };
    LIVE.add(-1);
    match interface.script.stop {
        Stop::Never => mem::forget(handler),
        Stop::After(time, status) => queue.run(move || {
            thread::sleep(time);
            handler.call_1(status);
        }),
        Stop::Discarding => queue.run(move || handler.call_1(SUCCESS)),
        Stop::WithACallback => queue.run(move || {
            if let Some((callback, _)) = late {
                callback.call_2(1, Owned::new([]).0);
            }
            handler.call_1(SUCCESS);
        }),
    }
    SUCCESS
}
