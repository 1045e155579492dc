//! The Internet checksum, updated in place when one 16-bit word changes (RFC 1624).

/// The checksum of a header in which one word changed from `old` to `new`, given the `checksum` before:
/// HC' = ~(~HC + ~m + m'), equation 3 of RFC 1624. A checksum that was wrong stays exactly as wrong.
#[inline(always)]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

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
