//! The program `softnet`: reads what was typed, does it, and reports.
//!
//! What goes wrong is one line on standard error and an exit code: 2 when what was typed is
//! to blame, 1 otherwise.

mod benchmark;
mod cli;
mod report;
mod run;
mod uplink;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use cli::Parsed;
use softnet::host::HostError;

fn main() -> ExitCode {
    let invocation = match cli::parse(env::args_os()) {
        Parsed::Invocation(invocation) => invocation,
        Parsed::Answer(text) => {
            // Nobody may be reading.
            let _ = write!(io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Parsed::Usage(line) => return complain(&line, USAGE),
    };
    run::run(*invocation).unwrap_or_else(|error| {
        let usage = error.downcast_ref().is_some_and(HostError::is_usage);
        complain(&format!("{error:#}"), if usage { USAGE } else { FAILURE })
    })
}

fn complain(line: &str, code: u8) -> ExitCode {
    // Unlike eprintln, this does not panic when nobody is reading.
    let _ = writeln!(
        io::stderr(),
        "softnet: {}",
        line.replace(char::is_control, " ")
    );
    ExitCode::from(code)
}

const USAGE: u8 = 2;
const FAILURE: u8 = 1;
