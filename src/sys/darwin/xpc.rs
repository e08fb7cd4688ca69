//! XPC dictionaries, in which vmnet takes and returns its parameters (xpc/xpc.h of the macOS SDK).
//! Only what `sys::vmnet` needs.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

/// A dictionary that we created.
pub(crate) struct Dictionary(*mut c_void);

impl Dictionary {
    pub(crate) fn new() -> Self {
        // SAFETY: no keys, no values, and their number, 0, makes an empty dictionary; it
        // aborts rather than return null.
        Self(unsafe { xpc_dictionary_create(ptr::null(), ptr::null(), 0) })
    }

    pub(crate) fn set_u64(&mut self, key: &CStr, value: u64) {
        // SAFETY: the dictionary is ours and alive, the key a C string that is copied.
        unsafe { xpc_dictionary_set_uint64(self.0, key.as_ptr(), value) };
    }

    pub(crate) fn set_bool(&mut self, key: &CStr, value: bool) {
        // SAFETY: as in `set_u64`; bool is the bool of C.
        unsafe { xpc_dictionary_set_bool(self.0, key.as_ptr(), value) };
    }

    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}

impl Drop for Dictionary {
    fn drop(&mut self) {
        // SAFETY: this is our reference, and the last use of it.
        unsafe { xpc_release(self.0) };
    }
}

/// A dictionary that is lent to a callback until it returns.
pub(crate) struct Borrowed(*mut c_void);

impl Borrowed {
    /// # Safety
    /// `dictionary` is null or a dictionary that lives as long as the result.
    pub(crate) unsafe fn new(dictionary: *mut c_void) -> Option<Self> {
        (!dictionary.is_null()).then_some(Self(dictionary))
    }

    /// The number under `key`; None if there is none or it is 0, which XPC does not tell apart.
    pub(crate) fn get_u64(&self, key: &CStr) -> Option<u64> {
        // SAFETY: the dictionary is alive, the key a C string. 0 for anything else.
        let value = unsafe { xpc_dictionary_get_uint64(self.0, key.as_ptr()) };
        (value != 0).then_some(value)
    }

    /// A copy of the text under `key`.
    pub(crate) fn get_string(&self, key: &CStr) -> Option<CString> {
        // SAFETY: as in `get_u64`. Null for anything else.
        let value = unsafe { xpc_dictionary_get_string(self.0, key.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: a C string that lives as long as its dictionary; copied at once.
        Some(unsafe { CStr::from_ptr(value) }.to_owned())
    }

    /// A description of all that is in it, for people.
    pub(crate) fn describe(&self) -> String {
        // SAFETY: the dictionary is alive; what comes back is ours to free, and never null.
        let text = unsafe { xpc_copy_description(self.0) };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: a C string, copied at once.
        let words = unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned();
        // SAFETY: by xpc/xpc.h it was allocated for us by malloc(3); nobody uses it any more.
        unsafe { libc::free(text.cast()) };
        words
    }
}

unsafe extern "C" {
    fn xpc_dictionary_create(
        keys: *const *const c_char,
        values: *const *mut c_void,
        count: usize,
    ) -> *mut c_void;
    fn xpc_dictionary_set_uint64(dictionary: *mut c_void, key: *const c_char, value: u64);
    fn xpc_dictionary_set_bool(dictionary: *mut c_void, key: *const c_char, value: bool);
    fn xpc_dictionary_get_uint64(dictionary: *mut c_void, key: *const c_char) -> u64;
    fn xpc_dictionary_get_string(dictionary: *mut c_void, key: *const c_char) -> *const c_char;
    fn xpc_copy_description(object: *mut c_void) -> *mut c_char;
    fn xpc_release(object: *mut c_void);
}
