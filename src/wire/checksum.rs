//! The sum behind the checksums of IPv4, UDP and TCP.

use std::net::Ipv4Addr;

/// The one's complement sum of words (RFC 1071); an odd byte counts as if a zero followed.
///
/// Whole runs of words are added as numbers of four bytes in the order of this machine, which the
/// compiler does several at a time: the order of bytes does not matter before the end, nor when the
/// carries are added (RFC 1071, section 2).
#[must_use]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks();
    let add = |sum: u64, word: &[u8; 4]| sum.wrapping_add(u32::from_ne_bytes(*word).into());
    // 2^32 of them would have to come before this is too much for 64 bits.
    let sum = words.iter().fold(0, add);
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    fold(add(sum, &last)).to_be()
}

/// Adds two such sums.
pub(crate) const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // After a carry the sum is below the greatest, so that it cannot overflow again.
    sum.wrapping_add(carry as u16)
}

/// The sum of what the checksums of UDP and TCP cover beside their own bytes (RFC 9293, 3.1).
#[must_use]
pub(crate) fn pseudo_header(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, len: u16) -> u16 {
    let addresses = add(sum(&from.octets()), sum(&to.octets()));
    add(add(addresses, u16::from(protocol)), len)
}

/// Adds the carries until there are none.
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32).wrapping_add(sum & 0xffff_ffff);
    let sum = (sum >> 32).wrapping_add(sum & 0xffff_ffff);
    add((sum >> 16) as u16, (sum & 0xffff) as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As RFC 1071 has it, section 4.1.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0_u64;
        for word in bytes.chunks(2) {
            let second = word.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([word[0], second]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_rfc(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            // 0 and 0xffff are both zero, and only bytes that are all zero have a sum of 0.
            prop_assert_eq!(sum(&bytes), by_the_book(&bytes));
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes), 0xddf2);
        assert_eq!(sum(&[0xff; 65_535]), by_the_book(&[0xff; 65_535]));
        assert_eq!(sum(&[]), 0);
    }
}
