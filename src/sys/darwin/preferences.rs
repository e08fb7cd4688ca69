//! The system's preferences on macOS (SCPreferences.h, with CoreFoundation for the values).
//!
//! A preference here is a dictionary of numbers and other values under a key. `host::macos::bootpd`
//! changes one number in it and keeps the rest.

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

/// A CoreFoundation object that must be released.
struct Owned(NonNull<c_void>);

impl Owned {
    /// Takes the result of a function with Create or Copy in its name, which may be null.
    fn new(object: *const c_void) -> Result<Self, i32> {
        NonNull::new(object.cast_mut())
            .map(Self)
            .ok_or_else(last_error)
    }

    fn text(text: &str) -> Result<Self, i32> {
        let len = isize::try_from(text.len()).unwrap_or(0);
        // SAFETY: by CFString.h, as many bytes as said, in this encoding, and no mark before.
        Self::new(unsafe { CFStringCreateWithBytes(ptr::null(), text.as_ptr(), len, UTF_8, 0) })
    }

    fn number(number: i64) -> Result<Self, i32> {
        // SAFETY: by CFNumber.h, a type and a value of that type.
        Self::new(unsafe { CFNumberCreate(ptr::null(), SINT_64, (&raw const number).cast()) })
    }

    fn as_ptr(&self) -> *const c_void {
        self.0.as_ptr()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: our reference, and the last use of it.
        unsafe { CFRelease(self.as_ptr()) };
    }
}

/// One file of preferences, locked: nobody else can change it as long as this exists.
pub(crate) struct Locked {
    session: Owned,
}

/// Somebody else holds the lock (a code of SCError).
pub(crate) const BUSY: i32 = 3002;
/// The file has changed since it was opened.
pub(crate) const STALE: i32 = 3005;

impl Locked {
    /// Opens and locks the `file`, without waiting for another holder: then the error is [`BUSY`].
    pub(crate) fn open(program: &str, file: &str) -> Result<Self, i32> {
        let (program, file) = (Owned::text(program)?, Owned::text(file)?);
        // SAFETY: by SCPreferences.h, two strings.
        let session = unsafe { SCPreferencesCreate(ptr::null(), program.as_ptr(), file.as_ptr()) };
        let session = Owned::new(session)?;
        // SAFETY: a session, and that the call shall not wait.
        done(unsafe { SCPreferencesLock(session.as_ptr(), 0) })?;
        Ok(Self { session })
    }

    /// Sets `name` to `number` in the dictionary under `key`, which is created if it does not
    /// exist, and applies that. Returns whether the number has changed.
    pub(crate) fn set(&mut self, key: &str, name: &str, number: i64) -> Result<bool, i32> {
        let (key, name, number) = (
            Owned::text(key)?,
            Owned::text(name)?,
            Owned::number(number)?,
        );
        // SAFETY: a session and a string. What comes back is the session's, or null.
        let found = unsafe { SCPreferencesGetValue(self.session.as_ptr(), key.as_ptr()) };
        // SAFETY: takes nothing.
        let dictionary_type = unsafe { CFDictionaryGetTypeID() };
        // SAFETY: an object of any type.
        let changed = if !found.is_null() && unsafe { CFGetTypeID(found) } == dictionary_type {
            // SAFETY: a dictionary and a key.
            let before = unsafe { CFDictionaryGetValue(found, name.as_ptr()) };
            // SAFETY: two objects of any type.
            if !before.is_null() && unsafe { CFEqual(before, number.as_ptr()) } != 0 {
                return Ok(false);
            }
            // SAFETY: a dictionary, of which there will be a copy with room for any number.
            Owned::new(unsafe { CFDictionaryCreateMutableCopy(ptr::null(), 0, found) })?
        } else {
            // SAFETY: room for any number, of keys and values that are objects.
            Owned::new(unsafe {
                CFDictionaryCreateMutable(
                    ptr::null(),
                    0,
                    &raw const kCFTypeDictionaryKeyCallBacks,
                    &raw const kCFTypeDictionaryValueCallBacks,
                )
            })?
        };
        // SAFETY: a dictionary that may be changed, a key, and a value; it retains both.
        unsafe { CFDictionarySetValue(changed.as_ptr(), name.as_ptr(), number.as_ptr()) };
        let session = self.session.as_ptr();
        // SAFETY: a session, a key, and a value.
        done(unsafe { SCPreferencesSetValue(session, key.as_ptr(), changed.as_ptr()) })?;
        // SAFETY: a session.
        done(unsafe { SCPreferencesCommitChanges(session) })?;
        // SAFETY: a session.
        done(unsafe { SCPreferencesApplyChanges(session) })?;
        Ok(true)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: a session, which `open` locked.
        unsafe { SCPreferencesUnlock(self.session.as_ptr()) };
    }
}

fn done(success: u8) -> Result<(), i32> {
    if success == 0 {
        Err(last_error())
    } else {
        Ok(())
    }
}

fn last_error() -> i32 {
    // SAFETY: takes nothing.
    unsafe { SCError() }
}

/// kCFStringEncodingUTF8
const UTF_8: u32 = 0x0800_0100;
/// kCFNumberSInt64Type
const SINT_64: isize = 4;

#[cfg_attr(target_os = "macos", link(name = "CoreFoundation", kind = "framework"))]
unsafe extern "C" {
    static kCFTypeDictionaryKeyCallBacks: c_void;
    static kCFTypeDictionaryValueCallBacks: c_void;

    fn CFRelease(object: *const c_void);
    fn CFGetTypeID(object: *const c_void) -> usize;
    fn CFEqual(one: *const c_void, other: *const c_void) -> u8;
    fn CFStringCreateWithBytes(
        allocator: *const c_void,
        bytes: *const u8,
        len: isize,
        encoding: u32,
        has_mark: u8,
    ) -> *const c_void;
    fn CFNumberCreate(
        allocator: *const c_void,
        number_type: isize,
        value: *const c_void,
    ) -> *const c_void;
    fn CFDictionaryGetTypeID() -> usize;
    fn CFDictionaryCreateMutable(
        allocator: *const c_void,
        capacity: isize,
        keys: *const c_void,
        values: *const c_void,
    ) -> *const c_void;
    fn CFDictionaryCreateMutableCopy(
        allocator: *const c_void,
        capacity: isize,
        original: *const c_void,
    ) -> *const c_void;
    fn CFDictionaryGetValue(dictionary: *const c_void, key: *const c_void) -> *const c_void;
    fn CFDictionarySetValue(dictionary: *const c_void, key: *const c_void, value: *const c_void);
}

#[cfg_attr(
    target_os = "macos",
    link(name = "SystemConfiguration", kind = "framework")
)]
unsafe extern "C" {
    fn SCError() -> c_int;
    fn SCPreferencesCreate(
        allocator: *const c_void,
        name: *const c_void,
        id: *const c_void,
    ) -> *const c_void;
    fn SCPreferencesLock(session: *const c_void, wait: u8) -> u8;
    fn SCPreferencesUnlock(session: *const c_void) -> u8;
    fn SCPreferencesGetValue(session: *const c_void, key: *const c_void) -> *const c_void;
    fn SCPreferencesSetValue(
        session: *const c_void,
        key: *const c_void,
        value: *const c_void,
    ) -> u8;
    fn SCPreferencesCommitChanges(session: *const c_void) -> u8;
    fn SCPreferencesApplyChanges(session: *const c_void) -> u8;
}
