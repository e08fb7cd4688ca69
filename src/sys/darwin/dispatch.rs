//! Dispatch queues, on which macOS calls back (dispatch/queue.h of the macOS SDK).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

/// A serial dispatch queue.
pub(crate) struct Queue(*mut c_void);

impl Queue {
    pub(crate) fn new(label: &CStr) -> Self {
        // SAFETY: no attribute stands for a serial queue; a class of service and a priority
        // within it are numbers.
        let attribute = unsafe {
            dispatch_queue_attr_make_with_qos_class(ptr::null_mut(), USER_INTERACTIVE, 0)
        };
        // SAFETY: a C string, copied, and an attribute from above.
        Self(unsafe { dispatch_queue_create(label.as_ptr(), attribute) })
    }

    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: this is our reference, and the last use of it; what still has to run on the
        // queue keeps it.
        unsafe { dispatch_release(self.0) };
    }
}

/// QOS_CLASS_USER_INTERACTIVE of sys/qos.h.
const USER_INTERACTIVE: u32 = 0x21;

// In libSystem, which every program on macOS is linked with.
unsafe extern "C" {
    fn dispatch_queue_attr_make_with_qos_class(
        attribute: *mut c_void,
        class: u32,
        relative_priority: c_int,
    ) -> *mut c_void;
    fn dispatch_queue_create(label: *const c_char, attribute: *mut c_void) -> *mut c_void;
    fn dispatch_release(object: *mut c_void);
}
