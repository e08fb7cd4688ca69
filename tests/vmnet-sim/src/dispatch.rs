//! Serial dispatch queues: a thread each, which ends when nobody has the queue any more and
//! its jobs are done.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::Counter;

pub(crate) static LIVE: Counter = Counter::new();

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A reference to a queue.
#[derive(Clone)]
pub(crate) struct Queue(Sender<Job>);

impl Queue {
    pub(crate) fn of(raw: *mut c_void) -> Self {
        unsafe { raw.cast::<Self>().as_ref() }
            .expect("a queue, not null")
            .clone()
    }

    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.0
            .send(Box::new(job))
            .expect("the thread lives as long as a sender");
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_queue_attr_make_with_qos_class(
    attribute: *mut c_void,
    class: u32,
    relative_priority: c_int,
) -> *mut c_void {
    assert!(attribute.is_null() && [0x21, 0x19, 0x15, 0x11, 0x09].contains(&class));
    assert!((-15..=0).contains(&relative_priority));
    // Any address that is not null.
    ptr::without_provenance_mut(usize::try_from(class).unwrap())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_queue_create(
    _label: *const c_char,
    _attribute: *mut c_void,
) -> *mut c_void {
    let (sender, jobs) = channel::<Job>();
    LIVE.add(1);
    thread::Builder::new()
        .name("sim queue".to_owned())
        .spawn(move || {
            for job in jobs {
                job();
            }
            LIVE.add(-1);
        })
        .unwrap();
    Box::into_raw(Box::new(Queue(sender))).cast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_release(queue: *mut c_void) {
    assert!(!queue.is_null());
    drop(unsafe { Box::from_raw(queue.cast::<Queue>()) });
}
