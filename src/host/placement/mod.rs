//! `--pin`: which processors a VM's threads run on.
//!
//! A frame's bytes are in the caches of the processor that touched them last, so threads that hand
//! frames to each other should share a last-level cache. Each thread places itself when it starts.
//! If that fails, it is logged, and has no other effect.

use std::str::FromStr;

use thiserror::Error;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;

#[cfg(target_os = "macos")]
#[path = "darwin.rs"]
mod system;

pub use system::Placement;

/// The value of `--pin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pin {
    /// All threads within one last-level-cache group, if there is more than one.
    #[default]
    Auto,
    /// No preference.
    None,
    /// Each direction's threads on one processor.
    Cpus {
        /// The processor of the threads that move frames from the VM.
        outbound: usize,
        /// The processor of the threads that move frames to the VM.
        inbound: usize,
    },
}

/// Why a text is not a value of `--pin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("neither auto, nor none, nor two processor numbers, as in 2,3")]
pub struct NotAPin;

impl FromStr for Pin {
    type Err = NotAPin;

    fn from_str(text: &str) -> Result<Self, NotAPin> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => {
                let (outbound, inbound) = text.split_once(',').ok_or(NotAPin)?;
                let cpu = |text: &str| text.parse().map_err(|_| NotAPin);
                Ok(Self::Cpus {
                    outbound: cpu(outbound)?,
                    inbound: cpu(inbound)?,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_a_word_or_two_processors() {
        assert_eq!("auto".parse(), Ok(Pin::Auto));
        assert_eq!("none".parse(), Ok(Pin::None));
        assert_eq!(
            "2,3".parse(),
            Ok(Pin::Cpus {
                outbound: 2,
                inbound: 3
            })
        );
        assert_eq!(
            "0,0".parse(),
            Ok(Pin::Cpus {
                outbound: 0,
                inbound: 0
            })
        );
        for text in ["", "3", "1,2,3", "a,b", "-1,2", "1,", "AUTO", "1, 2"] {
            assert_eq!(text.parse::<Pin>(), Err(NotAPin), "{text}");
        }
    }
}
