//! The program `softnet`: parses the command line, carries it out, and reports.
//!
//! A failure is one line on standard error and an exit code: 2 if the command line is wrong, 1
//! otherwise.

mod benchmark;

mod app;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use app::cli::{self, Parsed};
use app::exit_code::{FAILURE, USAGE};
use app::run::run;
use softnet::host::{HostError, console};

fn main() -> ExitCode {
    let invocation = match cli::parse(env::args_os()) {
        Parsed::Invocation(invocation) => invocation,
        Parsed::Print(text) => {
            // The reader may be gone. A slow reader is waited for, because a pager needs that; a
            // signal can interrupt it, since none is caught yet.
            let _ = write!(io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Parsed::Usage(line) => return complain(&line, USAGE),
    };
    run(*invocation).unwrap_or_else(|error| {
        let usage = error.downcast_ref().is_some_and(HostError::is_usage);
        complain(&format!("{error:#}"), if usage { USAGE } else { FAILURE })
    })
}

fn complain(line: &str, code: u8) -> ExitCode {
    let line = format!("softnet: {}\n", console::plain(line));
    // Signals may be caught by now, so without a limit a reader that never reads would block
    // softnet.
    console::to_stderr(line.as_bytes(), PATIENCE);
    ExitCode::from(code)
}

/// How long the last line waits for room. A live reader needs less.
const PATIENCE: Duration = Duration::from_millis(500);
