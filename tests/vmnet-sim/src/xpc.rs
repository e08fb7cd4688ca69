//! XPC dictionaries with counted references, of numbers, booleans and texts.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Counter;

pub(crate) static LIVE: Counter = Counter::new();

pub(crate) struct Object {
    references: AtomicUsize,
    values: Mutex<HashMap<CString, Value>>,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Number(u64),
    Bool(bool),
    Text(CString),
}

/// A dictionary of the simulation's own, released when it is dropped.
pub(crate) struct Owned(pub(crate) *mut c_void);

impl Owned {
    pub(crate) fn new(values: impl IntoIterator<Item = (&'static CStr, Value)>) -> Self {
        let object = unsafe { xpc_dictionary_create(ptr::null(), ptr::null(), 0) };
        for (key, value) in values {
            object_at(object)
                .values
                .lock()
                .unwrap()
                .insert(key.to_owned(), value);
        }
        Self(object)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        unsafe { xpc_release(self.0) };
    }
}

/// The value under `key` in a dictionary that the program made.
pub(crate) fn value(object: *mut c_void, key: &CStr) -> Option<Value> {
    object_at(object).values.lock().unwrap().get(key).cloned()
}

fn object_at<'a>(object: *mut c_void) -> &'a Object {
    let object = unsafe { object.cast::<Object>().as_ref() }.expect("an object, not null");
    assert!(
        object.references.load(Ordering::SeqCst) > 0,
        "used after its release"
    );
    object
}

fn set(object: *mut c_void, key: *const c_char, value: Value) {
    let key = unsafe { CStr::from_ptr(key) }.to_owned();
    object_at(object).values.lock().unwrap().insert(key, value);
}

fn get(object: *mut c_void, key: *const c_char) -> Option<Value> {
    value(object, unsafe { CStr::from_ptr(key) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_create(
    _keys: *const *const c_char,
    _values: *const *mut c_void,
    count: usize,
) -> *mut c_void {
    assert_eq!(count, 0);
    LIVE.add(1);
    let object = Object {
        references: AtomicUsize::new(1),
        values: Mutex::default(),
    };
    Box::into_raw(Box::new(object)).cast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_set_uint64(
    object: *mut c_void,
    key: *const c_char,
    value: u64,
) {
    set(object, key, Value::Number(value));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_set_bool(
    object: *mut c_void,
    key: *const c_char,
    value: bool,
) {
    set(object, key, Value::Bool(value));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_get_uint64(object: *mut c_void, key: *const c_char) -> u64 {
    match get(object, key) {
        Some(Value::Number(value)) => value,
        _ => 0,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_get_string(
    object: *mut c_void,
    key: *const c_char,
) -> *const c_char {
    // The text stays where it is as long as nobody sets the key again.
    let key = unsafe { CStr::from_ptr(key) };
    match object_at(object).values.lock().unwrap().get(key) {
        Some(Value::Text(text)) => text.as_ptr(),
        _ => ptr::null(),
    }
}

/// In lines, in memory of malloc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_copy_description(object: *mut c_void) -> *mut c_char {
    let mut lines = String::from("<dictionary> {\n");
    for (key, value) in &*object_at(object).values.lock().unwrap() {
        lines += &format!("\t{key:?} => {value:?}\n");
    }
    let lines = CString::new(lines + "}").unwrap();
    unsafe { libc::strdup(lines.as_ptr()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_release(object: *mut c_void) {
    if object_at(object).references.fetch_sub(1, Ordering::SeqCst) == 1 {
        drop(unsafe { Box::from_raw(object.cast::<Object>()) });
        LIVE.add(-1);
    }
}
