//! Apple's blocks, the closures of C, built by hand: `sys::vmnet` passes its callbacks in this
//! form.
//!
//! The layout is that of the Clang documentation, "Block Implementation Specification": a literal
//! that starts with five fixed fields, and a descriptor that says what to do when the literal is
//! copied and when a copy is freed. Ours contains a reference-counted pointer to a Rust closure, so
//! a copy that a framework has made stays valid. A framework that keeps a block copies it; the
//! literal here lives until the call returns.

use std::ffi::{c_int, c_ulong, c_void};
use std::mem::{offset_of, size_of};
use std::sync::Arc;

/// A closure that can be the body of a block, with the types of its arguments.
pub(crate) trait Callback<Arguments>: Send + Sync + 'static {
    /// The C function that is called when the block is called.
    const INVOKE: *const c_void;
}

/// A block: the literal to which C code gets a pointer, in the memory of its creator.
#[repr(C)]
pub(crate) struct Block<F> {
    isa: *const c_void,
    flags: c_int,
    reserved: c_int,
    invoke: *const c_void,
    descriptor: *const Descriptor,
    /// From [`Arc::into_raw`]; the block owns one count.
    closure: *const F,
}

#[repr(C)]
struct Descriptor {
    reserved: c_ulong,
    size: c_ulong,
    copy: unsafe extern "C" fn(*mut c_void, *const c_void),
    dispose: unsafe extern "C" fn(*const c_void),
}

impl<F> Block<F> {
    /// Creates a block from `closure`.
    pub(crate) fn new<Arguments>(closure: F) -> Self
    where
        F: Callback<Arguments>,
    {
        Self {
            // Only the address of the class is used.
            isa: &raw const _NSConcreteStackBlock,
            flags: HAS_COPY_DISPOSE,
            reserved: 0,
            invoke: F::INVOKE,
            descriptor: Self::DESCRIPTOR,
            closure: Arc::into_raw(Arc::new(closure)),
        }
    }

    /// A pointer to the block for C. Valid as long as `self` is borrowed.
    pub(crate) fn as_ptr(&self) -> *const c_void {
        (&raw const *self).cast()
    }

    const DESCRIPTOR: &'static Descriptor = &Descriptor {
        reserved: 0,
        size: size_of::<Self>() as c_ulong,
        copy: Self::copy,
        dispose: Self::dispose,
    };

    /// Called by the runtime after it has copied the literal's bytes.
    unsafe extern "C" fn copy(_copy: *mut c_void, original: *const c_void) {
        // SAFETY: the runtime passes a block made by `new`, or a copy of one, since only
        // these have our descriptor.
        let closure = unsafe { (*original.cast::<Self>()).closure };
        // SAFETY: it came from Arc::into_raw, and the original owns a count.
        unsafe { Arc::increment_strong_count(closure) };
    }

    /// Called by the runtime before it frees a copy.
    unsafe extern "C" fn dispose(block: *const c_void) {
        // SAFETY: as in `copy`.
        let closure = unsafe { (*block.cast::<Self>()).closure };
        // SAFETY: it came from Arc::into_raw, and the block, which goes away, owns a count.
        unsafe { Arc::decrement_strong_count(closure) };
    }

    /// # Safety
    /// `block` is one made by [`new`](Self::new), or a copy, and alive.
    unsafe fn closure<'block>(block: *const c_void) -> &'block F {
        // SAFETY: the caller's promise.
        let closure = unsafe { (*block.cast::<Self>()).closure };
        // SAFETY: it came from Arc::into_raw, and lives as long as the block does.
        unsafe { &*closure }
    }
}

impl<F> Drop for Block<F> {
    fn drop(&mut self) {
        // SAFETY: it came from Arc::into_raw, and this block owns a count.
        unsafe { Arc::decrement_strong_count(self.closure) };
    }
}

/// `void (^)(uint32_t)`
impl<F: Fn(u32) + Send + Sync + 'static> Callback<(u32,)> for F {
    const INVOKE: *const c_void = invoke_1::<F> as *const c_void;
}

/// `void (^)(uint32_t, xpc_object_t)`
impl<F: Fn(u32, *mut c_void) + Send + Sync + 'static> Callback<(u32, *mut c_void)> for F {
    const INVOKE: *const c_void = invoke_2::<F> as *const c_void;
}

unsafe extern "C" fn invoke_1<F: Fn(u32)>(block: *const c_void, first: u32) {
    // SAFETY: only blocks of this type have this function, and the caller holds the block.
    let closure = unsafe { Block::<F>::closure(block) };
    closure(first);
}

unsafe extern "C" fn invoke_2<F: Fn(u32, *mut c_void)>(
    block: *const c_void,
    first: u32,
    second: *mut c_void,
) {
    // SAFETY: only blocks of this type have this function, and the caller holds the block.
    let closure = unsafe { Block::<F>::closure(block) };
    closure(first, second);
}

/// BLOCK_HAS_COPY_DISPOSE of Block_private.h.
const HAS_COPY_DISPOSE: c_int = 1 << 25;

// struct Block_literal_1 of the specification, on systems with pointers of 8 bytes.
const _: () = {
    assert!(size_of::<Block<()>>() == 40);
    assert!(offset_of!(Block<()>, flags) == 8);
    assert!(offset_of!(Block<()>, invoke) == 16);
    assert!(offset_of!(Block<()>, descriptor) == 24);
    assert!(size_of::<Descriptor>() == 32);
    assert!(offset_of!(Descriptor, size) == 8);
    assert!(offset_of!(Descriptor, copy) == 16);
    assert!(offset_of!(Descriptor, dispose) == 24);
};

unsafe extern "C" {
    static _NSConcreteStackBlock: c_void;
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    unsafe extern "C" {
        fn _Block_copy(block: *const c_void) -> *const c_void;
        fn _Block_release(block: *const c_void);
    }

    #[test]
    fn a_copy_outlives_its_original_and_frees_the_closure_in_the_end() {
        let sum = Arc::new(AtomicU32::new(0));
        let inside = Arc::clone(&sum);
        let block = Block::new(move |value: u32| {
            inside.fetch_add(value, Ordering::Relaxed);
        });
        // SAFETY: the block takes a number, so this is its function's type.
        let invoke: unsafe extern "C" fn(*const c_void, u32) =
            unsafe { mem::transmute(block.invoke) };
        // SAFETY: a block, alive.
        let copy = unsafe { _Block_copy(block.as_ptr()) };
        drop(block);
        assert_eq!(Arc::strong_count(&sum), 2);
        // SAFETY: the copy is alive.
        unsafe { invoke(copy, 7) };
        assert_eq!(sum.load(Ordering::Relaxed), 7);
        // SAFETY: the copy is alive, and not used after this.
        unsafe { _Block_release(copy) };
        assert_eq!(Arc::strong_count(&sum), 1);
    }
}
