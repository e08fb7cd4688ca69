//! The blocks runtime: copies of block literals on the heap, with their helpers called.

use std::ffi::{c_int, c_ulong, c_void};
use std::slice;

use crate::Counter;

pub(crate) static LIVE: Counter = Counter::new();

#[unsafe(no_mangle)]
pub static _NSConcreteStackBlock: u64 = 0;

#[repr(C)]
struct Literal {
    isa: *const c_void,
    flags: c_int,
    reserved: c_int,
    invoke: *const c_void,
    descriptor: *const Descriptor,
}

#[repr(C)]
struct Descriptor {
    reserved: c_ulong,
    size: c_ulong,
    copy: unsafe extern "C" fn(*mut c_void, *const c_void),
    dispose: unsafe extern "C" fn(*const c_void),
}

const HAS_COPY_DISPOSE: c_int = 1 << 25;

/// # Safety
/// `block` is a block literal with copy and dispose helpers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Block_copy(block: *const c_void) -> *const c_void {
    let literal = unsafe { &*block.cast::<Literal>() };
    assert!(std::ptr::eq(
        literal.isa,
        (&raw const _NSConcreteStackBlock).cast()
    ));
    assert_eq!(literal.flags, HAS_COPY_DISPOSE);
    let descriptor = unsafe { &*literal.descriptor };
    let size = descriptor.size as usize;
    assert!(size.is_multiple_of(8) && size >= size_of::<Literal>());
    let words = unsafe { slice::from_raw_parts(block.cast::<u64>(), size / 8) };
    let copy = Box::into_raw(words.to_vec().into_boxed_slice()).cast::<c_void>();
    unsafe { (descriptor.copy)(copy, block) };
    LIVE.add(1);
    copy
}

/// # Safety
/// `block` came from [`_Block_copy`] and is not used after this.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Block_release(block: *const c_void) {
    let descriptor = unsafe { &*(*block.cast::<Literal>()).descriptor };
    unsafe { (descriptor.dispose)(block) };
    let words = std::ptr::slice_from_raw_parts_mut(
        block.cast::<u64>().cast_mut(),
        descriptor.size as usize / 8,
    );
    drop(unsafe { Box::from_raw(words) });
    LIVE.add(-1);
}

/// A copy that a framework keeps, until it drops it.
pub(crate) struct Copied(*const c_void);

unsafe impl Send for Copied {}
unsafe impl Sync for Copied {}

impl Copied {
    pub(crate) fn of(block: *const c_void) -> Self {
        assert!(!block.is_null());
        Self(unsafe { _Block_copy(block) })
    }

    fn function(&self) -> *const c_void {
        unsafe { (*self.0.cast::<Literal>()).invoke }
    }

    pub(crate) fn call_1(&self, first: u32) {
        let invoke: unsafe extern "C" fn(*const c_void, u32) =
            unsafe { std::mem::transmute(self.function()) };
        unsafe { invoke(self.0, first) };
    }

    pub(crate) fn call_2(&self, first: u32, second: *mut c_void) {
        let invoke: unsafe extern "C" fn(*const c_void, u32, *mut c_void) =
            unsafe { std::mem::transmute(self.function()) };
        unsafe { invoke(self.0, first, second) };
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        unsafe { _Block_release(self.0) };
    }
}
