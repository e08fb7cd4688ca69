//! The sum behind the checksums of IPv4, UDP and TCP.

/// The one's complement sum of words (RFC 1071); an odd byte counts as if a zero followed.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks();
    let whole = words
        .iter()
        .fold(0, |sum, word| add(sum, u16::from_be_bytes(*word)));
    match *rest {
        [last] => add(whole, u16::from_be_bytes([last, 0])),
        _ => whole,
    }
}

/// Adds two such sums.
pub(super) fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // After a carry the sum is below the greatest, so that it cannot overflow again.
    sum.wrapping_add(u16::from(carry))
}
