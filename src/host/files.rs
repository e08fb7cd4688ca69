//! Files and programs that the command line names.
//!
//! A caller who may start softnet as root, through SUID or sudo, must not use it to reach files
//! that they could not open themselves. So a flag that takes a path takes a [`NamedFile`], which
//! can only be opened after all privileges but the caller's have been dropped (a test in
//! `src/app/cli.rs` checks the flags).

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
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
