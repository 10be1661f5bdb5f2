//! What is written into objects: bytes that follow from a number, so that whoever knows the number
//! can tell whether somebody else wrote to the object.
//!
//! The bytes repeat after 251, a prime: no two places of an object that lie a power of two apart
//! hold the same bytes.

use std::iter;
use std::ops::Range;
use std::ptr;

/// After how many bytes a pattern repeats.
pub const PERIOD: usize = 251;

/// Bytes that are written or looked at together: whole periods.
const BLOCK: usize = 16 * PERIOD;

/// Objects of more bytes are written and looked at in [`parts`] if they are to be so sparsely.
const SPARSE: usize = 16 << 10;
/// Bytes at each end of such an object that are.
const END: usize = 1024;
/// How far apart the others are.
const STRIDE: usize = 64 << 10;
/// How many bytes each of these has.
const SAMPLE: usize = 64;

/// What is written and looked at of an object: all of it, or, of more than 16 KB, both ends and 64 bytes
/// in every 64 KB, which have not as many pages as the object.
pub(crate) fn parts(bytes: usize, sparse: bool) -> impl Iterator<Item = Range<usize>> {
    let end = if sparse && bytes > SPARSE { END } else { bytes };
    let inner = (STRIDE..(bytes - end).max(STRIDE)).step_by(STRIDE).map(|at| at..at + SAMPLE);
    let last = (end < bytes).then(|| bytes - end..bytes);
    iter::once(0..end).chain(inner).chain(last)
}

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
    // SAFETY: the caller's promise.
    unsafe { check_part(at, 0..bytes, id) }
}

/// As [`check`], for the bytes of `part` of the object.
///
/// # Errors
/// # Safety
/// As for [`check`]; only these bytes are read.
pub(crate) unsafe fn check_part(
    at: *const u8,
    part: Range<usize>,
    id: u64,
) -> Result<(), Mismatch> {
    let block = block(id, part.end);
    let mut offset = part.start;
    while offset < part.end {
        let start = offset % BLOCK;
        let length = (BLOCK - start).min(part.end - offset);
        // SAFETY: `offset + length <= part.end`.
        let found = unsafe { std::slice::from_raw_parts(at.add(offset), length) };
        let expected = &block[start..start + length];
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
    // SAFETY: the caller's promise.
    unsafe { check_zero_part(at, 0..bytes) }
}

/// As [`check_zero`], for the bytes of `part` of the object.
///
/// # Errors
/// # Safety
/// As for [`check_part`].
pub(crate) unsafe fn check_zero_part(at: *const u8, part: Range<usize>) -> Result<(), Mismatch> {
    const ZEROES: [u8; 4096] = [0; 4096];
    let mut offset = part.start;
    while offset < part.end {
        let length = ZEROES.len().min(part.end - offset);
        // SAFETY: `offset + length <= part.end`.
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
    fn parts_are_in_order_inside_and_at_both_ends() {
        for bytes in [0, 1, 16_384, 16_385, 65_536, 66_559, 66_560, 66_700, 131_072, 1 << 20] {
            assert!(parts(bytes, false).eq(iter::once(0..bytes)));
            let parts: Vec<_> = parts(bytes, true).collect();
            assert!(parts.windows(2).all(|two| two[0].end <= two[1].start), "{bytes}: {parts:?}");
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, bytes));
            let sum: usize = parts.iter().map(Range::len).sum();
            assert!(sum == bytes || (bytes > 16_384 && sum < 4096), "{bytes}: {parts:?}");
        }
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
