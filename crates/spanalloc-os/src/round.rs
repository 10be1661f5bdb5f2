//! Rounding to powers of two with masks: the division of `next_multiple_of` checks its divisor, and
//! the failed check would be a panic in an allocator that has none.

/// The largest multiple of `power`, a power of two, that is not above `value`.
#[inline]
pub const fn round_down(value: usize, power: usize) -> usize {
    value & power.wrapping_neg()
}

/// The smallest multiple of `power`, a power of two, that is not below `value`, which is so small
/// that there is one.
#[inline]
pub const fn round_up(value: usize, power: usize) -> usize {
    round_down(value + power.wrapping_sub(1), power)
}

/// The smallest multiple of `power`, a power of two, that is not below `value`; None if there is
/// none.
#[inline]
pub const fn checked_round_up(value: usize, power: usize) -> Option<usize> {
    match value.checked_add(power.wrapping_sub(1)) {
        Some(sum) => Some(round_down(sum, power)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_what_division_says() {
        for shift in 0..12 {
            let power = 1 << shift;
            for value in 0..5000 {
                assert_eq!(round_down(value, power), value / power * power);
                assert_eq!(round_up(value, power), value.next_multiple_of(power));
                assert_eq!(checked_round_up(value, power), Some(round_up(value, power)));
            }
            for value in [usize::MAX, usize::MAX - 100, usize::MAX - power + 1, usize::MAX - power]
            {
                assert_eq!(checked_round_up(value, power), value.checked_next_multiple_of(power));
            }
        }
    }
}
