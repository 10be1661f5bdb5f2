//! How much address space an arena gets when the system has plenty, little or none.

use core::ptr::NonNull;

use crate::{Geometry, OsError, OsSource, Purpose, Request, checked_round_up};

/// The smallest part of an arena that is tried before exactly what is needed.
const SMALLEST_PART: usize = 4 << 20;

/// The least alignment of address space for objects: a page of the page heap.
const HEAP_PAGE_BYTES: usize = 8 << 10;

/// Reserved address space for objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaRange {
    /// The first byte.
    pub address: NonNull<u8>,
    /// How many bytes.
    pub bytes: usize,
}

/// Reserves address space for at least `need_bytes` bytes of objects, near `hint` if possible.
///
/// Whole arenas of `G`, aligned to an arena, if the source gives them. If it refuses, and the need
/// is less than an arena: a half, a quarter and so on, as long as that is 4 MB and covers the need.
/// At last, the need itself. What is less than an arena is aligned only to 8 KB or the OS page,
/// whichever is larger, so it may lie across the border of two arenas; it is a multiple of that too.
///
/// # Errors
/// [`OsError::BadSize`] if `need_bytes` is 0 or too large to be rounded up; the source's error if it
/// refused everything. Nothing is reserved then.
pub fn reserve_arena<G: Geometry, O: OsSource>(
    os: &O,
    need_bytes: usize,
    hint: usize,
) -> Result<ArenaRange, OsError> {
    let bad_size = OsError::BadSize { bytes: need_bytes };
    let grain = os.page_bytes().max(HEAP_PAGE_BYTES);
    let least = checked_round_up(need_bytes, grain).ok_or(bad_size)?;
    if need_bytes == 0 || least > isize::MAX as usize {
        return Err(bad_size);
    }
    let reserve = |bytes, align| {
        let request = Request { bytes, align, hint, purpose: Purpose::Arena };
        os.reserve(request).map(|address| ArenaRange { address, bytes })
    };
    if let Some(whole) = least.checked_next_multiple_of(G::ARENA_BYTES) {
        if let Ok(range) = reserve(whole, G::ARENA_BYTES) {
            return Ok(range);
        }
    }
    let mut part = G::ARENA_BYTES / 2;
    while part >= SMALLEST_PART && part > least {
        if let Ok(range) = reserve(part, grain) {
            return Ok(range);
        }
        part /= 2;
    }
    reserve(least, grain)
}
