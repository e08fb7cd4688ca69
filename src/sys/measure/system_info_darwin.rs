//! Information about the system: its processor, and how busy it is: sysctlbyname(3) and getloadavg(3). For `bench`.

use super::dynamic;

/// The model of the processor, as in "Apple M4".
pub(crate) fn processor() -> Option<String> {
    dynamic::sysctl(c"machdep.cpu.brand_string")
}

/// The load over one minute.
pub(crate) fn load() -> Option<f64> {
    let mut averages = [0.0];
    // SAFETY: by getloadavg(3), room for numbers, and for how many.
    let count = unsafe { libc::getloadavg(averages.as_mut_ptr(), 1) };
    (count == 1).then_some(averages[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_processor_and_a_load() {
        assert_ne!(processor().unwrap(), "");
        assert!(load().unwrap() >= 0.0);
    }
}
