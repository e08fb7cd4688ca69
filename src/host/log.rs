//! The log: lines on standard error, never on standard output, which may be a control socket.
//!
//! A line is `softnet: ` and a message, with the level in between unless it is `info`. Lines have
//! no colours and no times: journald and other collectors add times. On macOS the lines also go to
//! the system log.

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::console;
use crate::sys::identity;

/// Starts logging: `info` and more severe, or the level in `SOFTNET_LOG` (`off`, `error`, `warn`,
/// `info`, `debug` or `trace`). A set-id process ignores its caller's environment.
pub fn start() {
    let wanted = if identity::is_set_id() {
        None
    } else {
        env::var_os(VARIABLE)
    };
    let level = wanted
        .as_ref()
        .map(|level| level.to_str().and_then(|level| level.parse().ok()));
    tracing_subscriber::fmt()
        .with_max_level(level.flatten().unwrap_or(LevelFilter::INFO))
        .event_format(Line)
        .with_writer(|| Stderr)
        .init();
    if level == Some(None) {
        warn!("{VARIABLE} must be off, error, warn, info, debug or trace: using info");
    }
}

/// Formats an event as a line.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        line.write_str(match *event.metadata().level() {
            Level::ERROR => "softnet: error: ",
            Level::WARN => "softnet: warning: ",
            Level::INFO => "softnet: ",
            Level::DEBUG => "softnet: debug: ",
            Level::TRACE => "softnet: trace: ",
        })?;
        // Messages contain names of files and interfaces, and text from other programs.
        let mut message = String::new();
        context
            .field_format()
            .format_fields(Writer::new(&mut message), event)?;
        writeln!(line, "{}", console::plain(&message))
    }
}

/// Standard error, which is never waited for.
///
/// A line for which the reader has no room is dropped, and so is one that cannot be written at all.
/// A terminal that was stopped with Control-S, or a full or broken pipe, must neither stop the VM's
/// network nor end it.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        console::to_stderr(line, Duration::ZERO);
        crate::sys::syslog::write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The environment variable that sets the level.
const VARIABLE: &str = "SOFTNET_LOG";
