//! The Internet checksum (RFC 1071), and its update in place when one 16-bit word changes (RFC 1624).
//!
//! Sums are numbers of 16 bits in one's complement arithmetic: they add in any order, and zero may appear as
//! 0xffff. A checksum is the complement of a sum; a text that contains its own right checksum sums to 0xffff.

/// The checksum of a header in which one word changed from `old` to `new`, given the `checksum` before:
/// HC' = ~(~HC + ~m + m'), equation 3 of RFC 1624. A checksum that was wrong stays exactly as wrong.
#[inline(always)]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The sum of the bytes as 16-bit words in network byte order; an odd last byte is the upper half of a word.
#[inline(always)]
pub fn sum(bytes: &[u8]) -> u16 {
    // In the machine's own byte order, which RFC 1071 section 2(B) allows, so that the compiler can add
    // several words at once.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let whole: u64 = words.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
    let total = whole + u64::from(u32::from_ne_bytes(last));
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff) + (total >> 16);
    let total = (total & 0xffff) + (total >> 16);
    let total = (total & 0xffff) + (total >> 16);
    u16::from_be(total as u16)
}

/// The sum of two sums.
#[inline(always)]
pub fn add(first: u16, second: u16) -> u16 {
    let (total, carry) = first.overflowing_add(second);
    total + u16::from(carry)
}

/// Whether a text sums to what one that contains its own right checksum must.
#[inline(always)]
pub fn is_right(bytes: &[u8]) -> bool {
    sum(bytes) == 0xffff
}

/// The same of an IPv4 header, which nearly always has 20 bytes.
#[inline(always)]
pub fn header_is_right(header: &[u8]) -> bool {
    match <&[u8; 20]>::try_from(header) {
        Ok(plain) => is_right(plain),
        Err(_) => is_right(header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_equals_the_slow_one_at_every_length() {
        let bytes: Vec<u8> = (0..200_u32).map(|n| (n * 151 + 255) as u8).collect();
        for length in 0..bytes.len() {
            let words = bytes[..length]
                .chunks(2)
                .map(|pair| u16::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u16::from(low)));
            let words: Vec<u16> = words.collect();
            assert_eq!(!sum(&bytes[..length]), full(&words), "{length}");
        }
        assert_eq!(sum(&[0xff; 65536]), 0xffff);
        assert_eq!(add(0xffff, 0xffff), 0xffff);
        assert_eq!(add(0xfffe, 0x0003), 0x0002);
    }

    fn full(words: &[u16]) -> u16 {
        let mut sum: u64 = words.iter().map(|&word| u64::from(word)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// The example in section 4 of RFC 1624.
    #[test]
    fn the_rfcs_own_example() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn an_update_equals_a_full_sum_for_every_word() {
        let rest = [0x4500, 0x0054, 0x1234, 0x4000, 0x4006, 0x0a00, 0x0001];
        for old in (0..=0xffff_u16).step_by(7) {
            let new = old.rotate_left(5) ^ 0x00b8;
            let words = |word| [&rest[..], &[word]].concat();
            assert_eq!(update(full(&words(old)), old, new), full(&words(new)), "{old:#06x}");
        }
    }
}
