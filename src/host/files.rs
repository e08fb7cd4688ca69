//! Files and programs that the command line names.
//!
//! A caller who may start softnet as root, through SUID or sudo, must not use it to reach files
//! that they could not open themselves. So a flag that takes a path takes a [`NamedFile`], which
//! can only be opened after all privileges but the caller's have been dropped (a test in
//! `src/app/cli.rs` checks the flags).

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::privileges::CallersRights;

/// A file or program, by the name that the caller gave.
#[derive(Debug, Clone)]
pub struct NamedFile(PathBuf);

impl NamedFile {
    /// Opens it for reading.
    ///
    /// # Errors
    /// If it does not exist, or the caller may not read it.
    pub fn open(&self, _: &CallersRights) -> io::Result<File> {
        File::open(&self.0)
    }

    /// Reads the whole of a regular file with at most `limit` bytes. A link is followed, since it
    /// leads only to what the caller may read anyway; a FIFO or a device is not waited for.
    ///
    /// # Errors
    /// If it does not exist, is no regular file or too long, or the caller may not read it.
    pub fn read(&self, _: &CallersRights, limit: usize) -> io::Result<Vec<u8>> {
        let mut options = OpenOptions::new();
        options.read(true);
        let file = options
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&self.0)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        // One more byte tells that there are too many.
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::Error::other(format!("longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Opens it for writing, truncated, and creates it if it does not exist.
    ///
    /// # Errors
    /// If the caller may not do that.
    pub fn create(&self, _: &CallersRights) -> io::Result<File> {
        File::create(&self.0)
    }

    /// Its path, for a program to be started.
    #[must_use]
    pub fn program(&self, _: &CallersRights) -> &Path {
        &self.0
    }
}

impl From<OsString> for NamedFile {
    fn from(name: OsString) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}
