//! What is written into objects: bytes that follow from a number, so that whoever knows the number
//! can tell whether somebody else wrote to the object.
//!
//! The bytes repeat after 251, a prime: no two places of an object that lie a power of two apart
//! hold the same bytes.

use std::ptr;

/// After how many bytes a pattern repeats.
pub const PERIOD: usize = 251;

/// Bytes that are written or looked at together: whole periods.
const BLOCK: usize = 16 * PERIOD;

/// A byte that is not what the pattern says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Offset of the first such byte.
    pub offset: usize,
    /// What the pattern says.
    pub expected: u8,
    /// What is there.
    pub found: u8,
}

/// The first bytes of the pattern of `id`, as many as an object of `bytes` bytes needs.
fn block(id: u64, bytes: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut state = id;
    let mut at = 0;
    while at < bytes.min(PERIOD) {
        // SplitMix64 (Steele, Lea and Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        block[at..at + 8].copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        at += 8;
    }
    let mut length = PERIOD;
    while length < bytes.min(BLOCK) {
        let more = length.min(BLOCK - length);
        block.copy_within(..more, length);
        length += more;
    }
    block
}

/// Writes bytes `from..bytes` of the pattern of `id` into an object.
///
/// # Safety
/// `bytes` bytes from `at` may be written and are nobody else's.
pub unsafe fn fill(at: *mut u8, from: usize, bytes: usize, id: u64) {
    let block = block(id, bytes);
    let mut offset = from;
    while offset < bytes {
        let start = offset % BLOCK;
        let length = (BLOCK - start).min(bytes - offset);
        // SAFETY: `offset + length <= bytes` and `start + length <= BLOCK`.
        unsafe { ptr::copy_nonoverlapping(block[start..].as_ptr(), at.add(offset), length) };
        offset += length;
    }
}

/// Whether the first `bytes` bytes of an object hold the pattern of `id`.
///
/// # Errors
/// The first byte that does not.
///
/// # Safety
/// `bytes` bytes from `at` may be read, were written before, and nobody writes to them now.
pub unsafe fn check(at: *const u8, bytes: usize, id: u64) -> Result<(), Mismatch> {
    let block = block(id, bytes);
    let mut offset = 0;
    while offset < bytes {
        let length = BLOCK.min(bytes - offset);
        // SAFETY: `offset + length <= bytes`.
        let found = unsafe { std::slice::from_raw_parts(at.add(offset), length) };
        let expected = &block[..length];
        if found != expected {
            let pairs = found.iter().zip(expected).zip(offset..);
            for ((&found, &expected), offset) in pairs {
                if found != expected {
                    return Err(Mismatch { offset, expected, found });
                }
            }
        }
        offset += length;
    }
    Ok(())
}

/// Whether the first `bytes` bytes of an object are zero.
///
/// # Errors
/// The first byte that is not.
///
/// # Safety
/// As for [`check`].
pub unsafe fn check_zero(at: *const u8, bytes: usize) -> Result<(), Mismatch> {
    const ZEROES: [u8; 4096] = [0; 4096];
    let mut offset = 0;
    while offset < bytes {
        let length = ZEROES.len().min(bytes - offset);
        // SAFETY: `offset + length <= bytes`.
        let found = unsafe { std::slice::from_raw_parts(at.add(offset), length) };
        if found != &ZEROES[..length] {
            let wrong = found.iter().zip(offset..).find(|(byte, _)| **byte != 0);
            if let Some((&found, offset)) = wrong {
                return Err(Mismatch { offset, expected: 0, found });
            }
        }
        offset += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_is_found_wherever_it_is() {
        for bytes in [1, 7, 8, 250, 251, 252, 4015, 4016, 4017, 10_000] {
            let mut object = vec![0; bytes];
            // SAFETY: the object is ours and has that many bytes.
            unsafe { fill(object.as_mut_ptr(), 0, bytes, 7) };
            for offset in [0, bytes / 2, bytes - 1] {
                object[offset] ^= 1;
                let (found, expected) = (object[offset], object[offset] ^ 1);
                // SAFETY: as above.
                let result = unsafe { check(object.as_ptr(), bytes, 7) };
                assert_eq!(result, Err(Mismatch { offset, expected, found }));
                object[offset] ^= 1;
            }
            // SAFETY: as above.
            assert_eq!(unsafe { check(object.as_ptr(), bytes, 7) }, Ok(()));
        }
    }

    #[test]
    fn a_pattern_written_in_two_parts_is_the_same() {
        let (mut once, mut twice) = (vec![0; 4000], vec![0; 4000]);
        // SAFETY: the objects are ours and have that many bytes.
        unsafe {
            fill(once.as_mut_ptr(), 0, 4000, 9);
            fill(twice.as_mut_ptr(), 0, 1500, 9);
            fill(twice.as_mut_ptr(), 1500, 4000, 9);
        }
        assert_eq!(once, twice);
    }

    #[test]
    fn a_byte_that_is_not_zero_is_found() {
        let mut object = vec![0; 10_000];
        object[9_000] = 3;
        // SAFETY: the object is ours and has that many bytes.
        let result = unsafe { check_zero(object.as_ptr(), object.len()) };
        assert_eq!(result, Err(Mismatch { offset: 9_000, expected: 0, found: 3 }));
        // SAFETY: as above.
        assert_eq!(unsafe { check_zero(object.as_ptr(), 9_000) }, Ok(()));
    }
}
