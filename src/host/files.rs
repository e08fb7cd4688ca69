//! Files and programs that the command line names.
//!
//! Who may start softnet as root, by SUID or sudo, must not reach with it what is closed to
//! them. So a flag that takes a path takes a [`NamedFile`], which can be opened by nobody who
//! has not given up all rights but the caller's (`src/app/cli.rs` has a test for that).

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::privileges::CallersRights;

/// A file or a program by the name that the caller gave it.
#[derive(Debug, Clone)]
pub struct NamedFile(PathBuf);

impl NamedFile {
    /// Opens it for reading.
    ///
    /// # Errors
    /// When there is none, or the caller may not read it.
    pub fn open(&self, _: &CallersRights) -> io::Result<File> {
        File::open(&self.0)
    }

    /// Opens it for writing, empty, and makes it if there is none.
    ///
    /// # Errors
    /// When the caller may not do that.
    pub fn create(&self, _: &CallersRights) -> io::Result<File> {
        File::create(&self.0)
    }

    /// Its path, as that of a program to be started.
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
