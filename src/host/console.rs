//! Output for people: makes text harmless to a terminal, and writes to standard error without being
//! blocked by a reader.
//!
//! All of softnet's lines go through here: those of the log, and the last one of a program that
//! fails.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::nowait;

/// Writes `text` to standard error as far as its reader makes room within `patience`, and drops the
/// rest. It is not an error if nobody reads.
pub fn to_stderr(text: &[u8], patience: Duration) {
    // Locked, so that lines of different threads do not mix.
    let stderr = io::stderr().lock();
    write_within(stderr.as_fd(), text, patience);
}

/// Escapes everything in `text` that a terminal acts upon or that changes how the rest of the line
/// looks: control characters (escape sequences begin with one), line ends, direction marks, and
/// other invisible characters. They are written as in Rust, `\n` or `\u{202e}`.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_plain(character) {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_debug());
        }
    }
    Cow::Owned(escaped)
}

/// Beyond ASCII, Rust's own table decides. It treats the categories Cc, Cf, Cn, Co, Cs, Zl, Zp and
/// Zs as not printable (library/core/src/unicode/printable.py); direction marks are Cf. It also
/// escapes combining characters, which are rare in softnet's output.
fn is_plain(character: char) -> bool {
    match character {
        ' '..='~' => true,
        '\0'..='\x7f' => false,
        other => other.escape_debug().len() == 1,
    }
}

fn write_within(fd: BorrowedFd<'_>, mut text: &[u8], patience: Duration) {
    let deadline = Instant::now() + patience;
    while !text.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.as_micros().div_ceil(1000);
        let timeout = timeout.try_into().unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout) {
            Err(Errno::EINTR) => continue,
            Ok(1..) => {}
            Ok(_) | Err(_) => return,
        }
        // poll(2) says that a pipe is writable once this much fits.
        let piece = &text[..text.len().min(libc::PIPE_BUF)];
        match nowait::write(fd, piece) {
            Ok(count @ 1..) => text = &text[count..],
            // Another writer was faster.
            Err(Errno::EAGAIN | Errno::EINTR) if !left.is_zero() => {}
            Ok(0) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Read, Write};
    use std::sync::mpsc::channel;
    use std::thread;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_escaped() {
        for (text, expected) in [
            ("tap0: \"caf\u{e9}\" \\ 日本", "tap0: \"café\" \\ 日本"),
            ("\x1b[2J\x1b]0;title\x07", r"\u{1b}[2J\u{1b}]0;title\u{7}"),
            ("a\nsoftnet: b\r\tc\0\x7f", r"a\nsoftnet: b\r\tc\0\u{7f}"),
            ("\u{9b}31m\u{85}", r"\u{9b}31m\u{85}"),
            (
                "\u{202e}gpj\u{2066}\u{200f}",
                r"\u{202e}gpj\u{2066}\u{200f}",
            ),
            (
                "\u{61c}\u{200b}\u{feff}\u{2028}",
                r"\u{61c}\u{200b}\u{feff}\u{2028}",
            ),
            ("\u{a0}\u{e0041}\u{e000}", r"\u{a0}\u{e0041}\u{e000}"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }

    fn full_pipe() -> (io::PipeReader, PipeWriter) {
        let (reader, mut writer) = io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        for size in [4096, 1] {
            while writer.write(&vec![b'.'; size]).is_ok() {}
        }
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        (reader, writer)
    }

    /// Writes on a thread of its own. Returns how long that took, or None if it did not return.
    fn time_to_write(writer: PipeWriter, len: usize, patience: Duration) -> Option<Duration> {
        let (say, said) = channel();
        thread::spawn(move || {
            let start = Instant::now();
            write_within(writer.as_fd(), &vec![b'x'; len], patience);
            say.send(start.elapsed())
        });
        said.recv_timeout(Duration::from_secs(10)).ok()
    }

    #[test]
    fn a_reader_that_does_not_read_is_waited_for_no_longer_than_told() {
        for (len, patience) in [(10, 0), (10, 50), (1_000_000, 50)] {
            let patience = Duration::from_millis(patience);
            let (_reader, writer) = full_pipe();
            let took = time_to_write(writer, len, patience).expect("it hangs");
            assert!(took >= patience, "{took:?}");
            // Room for part of it, but not for all.
            let (_reader, writer) = io::pipe().unwrap();
            let took = time_to_write(writer, 1_000_000, patience).expect("it hangs");
            assert!(took >= patience, "{took:?}");
        }
    }

    #[test]
    fn a_reader_that_is_slow_gets_it_all_and_one_that_is_gone_delays_nobody() {
        let (mut reader, writer) = full_pipe();
        let reading = thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes.iter().filter(|byte| **byte == b'x').count()
        });
        time_to_write(writer, 300_000, Duration::from_secs(9)).expect("it hangs");
        assert_eq!(reading.join().unwrap(), 300_000);

        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let took = time_to_write(writer, 10, Duration::from_secs(9)).expect("it hangs");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
