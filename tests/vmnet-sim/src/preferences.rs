//! SCPreferences, and as much of CoreFoundation as they need: strings, numbers, dictionaries.
//!
//! The file has one dictionary at first, with a key that is not softnet's. What is committed
//! can be asked for, and is written to the file `preferences` for a test outside.
//! `VMNET_SIM_PREFERENCES` in the environment may be `locked` or `denied`, `unapplied` for changes
//! that nobody takes over, or `empty` for a file without that dictionary.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::fs;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use crate::{Counter, outside};

pub(crate) static LIVE: Counter = Counter::new();

/// A dictionary by its keys.
pub type Numbers = BTreeMap<String, i64>;

/// An object. A pointer to one is an [`Arc`] made raw.
#[derive(Clone)]
enum Object {
    Text(String),
    Number(i64),
    Dictionary(Arc<Mutex<Numbers>>),
    Session(Arc<Session>),
}

struct Session {
    locked: AtomicBool,
    values: Mutex<BTreeMap<String, *const Object>>,
}

static COMMITTED: LazyLock<Mutex<BTreeMap<String, Numbers>>> = LazyLock::new(|| {
    if env::var("VMNET_SIM_PREFERENCES").is_ok_and(|mode| mode == "empty") {
        return Mutex::default();
    }
    let other = Numbers::from([("dhcp_ignore_client_identifier".to_owned(), 1)]);
    Mutex::new(BTreeMap::from([("bootpd".to_owned(), other)]))
});
static LENT: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static LOCKED: AtomicBool = AtomicBool::new(false);
static ERROR: AtomicI32 = AtomicI32::new(0);

/// What the file says under `key`.
#[must_use]
pub fn committed(key: &str) -> Option<Numbers> {
    COMMITTED.lock().unwrap().get(key).cloned()
}

/// Locks the file as another process would, or lets it go.
pub fn lock_elsewhere(locked: bool) {
    LOCKED.store(locked, Ordering::SeqCst);
}

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static kCFTypeDictionaryKeyCallBacks: u64 = 0;
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static kCFTypeDictionaryValueCallBacks: u64 = 0;

fn new(object: Object) -> *const c_void {
    LIVE.add(1);
    Box::into_raw(Box::new(object)).cast()
}

fn object<'a>(raw: *const c_void) -> &'a Object {
    unsafe { raw.cast::<Object>().as_ref() }.expect("an object, not null")
}

fn text(raw: *const c_void) -> String {
    let Object::Text(text) = object(raw) else {
        panic!("not a string")
    };
    text.clone()
}

fn session<'a>(raw: *const c_void) -> &'a Session {
    let Object::Session(session) = object(raw) else {
        panic!("not a session")
    };
    session
}

fn numbers<'a>(raw: *const c_void) -> &'a Mutex<Numbers> {
    let Object::Dictionary(numbers) = object(raw) else {
        panic!("not a dictionary")
    };
    numbers
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFRelease(raw: *const c_void) {
    assert!(!raw.is_null());
    if let Object::Session(session) = object(raw) {
        for value in session.values.lock().unwrap().values() {
            unsafe { CFRelease(value.cast()) };
        }
    }
    drop(unsafe { Box::from_raw(raw.cast::<Object>().cast_mut()) });
    LIVE.add(-1);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFGetTypeID(raw: *const c_void) -> usize {
    match object(raw) {
        Object::Text(_) => 1,
        Object::Number(_) => 2,
        Object::Dictionary(_) => 3,
        Object::Session(_) => 4,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFDictionaryGetTypeID() -> usize {
    3
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFEqual(one: *const c_void, other: *const c_void) -> u8 {
    // A value inside of a dictionary is lent as an address of its own; see below.
    let number = |raw: *const c_void| match object(raw) {
        Object::Number(number) => Some(*number),
        _ => None,
    };
    u8::from(number(one) == number(other))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFStringCreateWithBytes(
    _allocator: *const c_void,
    bytes: *const u8,
    len: isize,
    encoding: u32,
    _has_mark: u8,
) -> *const c_void {
    assert_eq!(encoding, 0x0800_0100);
    let bytes = unsafe { slice::from_raw_parts(bytes, usize::try_from(len).unwrap()) };
    new(Object::Text(String::from_utf8(bytes.to_vec()).unwrap()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFNumberCreate(
    _allocator: *const c_void,
    number_type: isize,
    value: *const c_void,
) -> *const c_void {
    assert_eq!(number_type, 4);
    new(Object::Number(unsafe { *value.cast::<i64>() }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFDictionaryCreateMutable(
    _allocator: *const c_void,
    _capacity: isize,
    _keys: *const c_void,
    _values: *const c_void,
) -> *const c_void {
    new(Object::Dictionary(Arc::default()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFDictionaryCreateMutableCopy(
    _allocator: *const c_void,
    _capacity: isize,
    original: *const c_void,
) -> *const c_void {
    let copy = numbers(original).lock().unwrap().clone();
    new(Object::Dictionary(Arc::new(Mutex::new(copy))))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFDictionaryGetValue(
    dictionary: *const c_void,
    key: *const c_void,
) -> *const c_void {
    match numbers(dictionary).lock().unwrap().get(&text(key)) {
        // Lent for as long as the process lives, which is a few bytes in a test.
        Some(number) => {
            let lent = Box::leak(Box::new(Object::Number(*number))) as *const Object;
            LENT.lock().unwrap().push(lent.addr());
            lent.cast()
        }
        None => std::ptr::null(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFDictionarySetValue(
    dictionary: *const c_void,
    key: *const c_void,
    value: *const c_void,
) {
    let Object::Number(number) = object(value) else {
        panic!("not a number")
    };
    numbers(dictionary)
        .lock()
        .unwrap()
        .insert(text(key), *number);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn SCError() -> c_int {
    ERROR.load(Ordering::SeqCst)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn SCPreferencesCreate(
    _allocator: *const c_void,
    _name: *const c_void,
    id: *const c_void,
) -> *const c_void {
    assert_eq!(text(id), "com.apple.InternetSharing.default.plist");
    let values = COMMITTED
        .lock()
        .unwrap()
        .clone()
        .into_iter()
        .map(|(key, numbers)| {
            let value = new(Object::Dictionary(Arc::new(Mutex::new(numbers))));
            (key, value.cast())
        });
    new(Object::Session(Arc::new(Session {
        locked: AtomicBool::new(false),
        values: Mutex::new(values.collect()),
    })))
}

fn fail(error: c_int) -> u8 {
    ERROR.store(error, Ordering::SeqCst);
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn SCPreferencesLock(raw: *const c_void, wait: u8) -> u8 {
    assert_eq!(wait, 0, "nobody waits for ever");
    let mode = env::var("VMNET_SIM_PREFERENCES").unwrap_or_default();
    if LOCKED.load(Ordering::SeqCst) || mode == "locked" {
        return fail(3002);
    }
    if mode == "denied" {
        return fail(1003);
    }
    session(raw).locked.store(true, Ordering::SeqCst);
    1
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn SCPreferencesUnlock(raw: *const c_void) -> u8 {
    u8::from(session(raw).locked.swap(false, Ordering::SeqCst))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn SCPreferencesGetValue(
    raw: *const c_void,
    key: *const c_void,
) -> *const c_void {
    session(raw)
        .values
        .lock()
        .unwrap()
        .get(&text(key))
        .map_or(std::ptr::null(), |value| value.cast())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn SCPreferencesSetValue(
    raw: *const c_void,
    key: *const c_void,
    value: *const c_void,
) -> u8 {
    if !session(raw).locked.load(Ordering::SeqCst) {
        return fail(1007);
    }
    let copy = unsafe { CFDictionaryCreateMutableCopy(std::ptr::null(), 0, value) };
    let before = session(raw)
        .values
        .lock()
        .unwrap()
        .insert(text(key), copy.cast());
    if let Some(before) = before {
        unsafe { CFRelease(before.cast()) };
    }
    1
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn SCPreferencesCommitChanges(raw: *const c_void) -> u8 {
    if !session(raw).locked.load(Ordering::SeqCst) {
        return fail(1007);
    }
    let values = session(raw).values.lock().unwrap();
    let values = values
        .iter()
        .map(|(key, value)| (key.clone(), numbers(value.cast()).lock().unwrap().clone()));
    *COMMITTED.lock().unwrap() = values.collect();
    1
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn SCPreferencesApplyChanges(_raw: *const c_void) -> u8 {
    if env::var("VMNET_SIM_PREFERENCES").is_ok_and(|mode| mode == "unapplied") {
        return fail(1001);
    }
    if let Some(directory) = env::var_os(outside::DIRECTORY) {
        let mut lines = String::new();
        for (key, numbers) in &*COMMITTED.lock().unwrap() {
            for (name, number) in numbers {
                writeln!(lines, "{key} {name} {number}").unwrap();
            }
        }
        let _ = fs::write(std::path::Path::new(&directory).join("preferences"), lines);
    }
    1
}
