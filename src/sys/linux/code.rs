//! Which pages of program code are in this process' memory: madvise(2). `host::memory` decides
//! when to give them back.

use std::fs;
use std::io;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// Takes the pages of all code out of this process' memory. Those that are needed come back
/// one by one, from the system's cache of files.
pub(crate) fn let_go() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    for (start, len) in maps.lines().filter_map(code_of_a_file) {
        let Some(start) = NonNull::new(std::ptr::without_provenance_mut(start)) else {
            continue;
        };
        // SAFETY: by madvise(2), MADV_DONTNEED,
        // - the range is a whole mapping, as the kernel listed it above, and code of libraries
        //   is not unmapped while softnet runs: it loads none itself;
        // - the mapping is of a file and not writable, and executable, so that the loader has
        //   not relocated anything in it: what comes back is what was there.
        unsafe { madvise(start, len, MmapAdvise::MADV_DONTNEED) }?;
    }
    Ok(())
}

/// Start and length of the mapping that a line of /proc/PID/maps is about, if it is of code.
fn code_of_a_file(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_code = fields.next()? == "r-xp";
    let is_file = fields.nth(2)? != "0" && fields.next()?.starts_with('/');
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    (is_code && is_file).then_some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go() {
        let code = "7f00-8f00 r-xp 00001000 fe:00 1234   /usr/bin/softnet";
        assert_eq!(code_of_a_file(code), Some((0x7f00, 0x1000)));
        for other in [
            "7f00-8f00 r--p 00001000 fe:00 1234   /usr/bin/softnet",
            "7f00-8f00 rw-p 00001000 fe:00 1234   /usr/bin/softnet",
            "7f00-8f00 r-xp 00000000 00:00 0      [vdso]",
            "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]",
            "7f00-8f00 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code_of_a_file(other), None, "{other}");
        }
    }

    #[test]
    fn the_program_goes_on_without_its_code_in_memory() {
        let_go().unwrap();
        assert_eq!("1 + 1 = 2", format!("{} + {} = {}", 1, 1, 1 + 1));
    }
}
