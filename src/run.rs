//! To come.
use std::process::ExitCode;

use crate::cli::Invocation;
pub(crate) fn run(invocation: Invocation) -> anyhow::Result<ExitCode> {
    println!("{invocation:#?}");
    Ok(ExitCode::SUCCESS)
}
