//! The hardened allocator without Layouts: the functions of [`checked`](crate::checked), for [`Hardened`].

mod global;
pub(crate) mod heap;

use spanalloc_cache::Snapshot;
use spanalloc_central::Central as _;
use spanalloc_pages::HugePages;

use crate::checked::any;
pub use crate::checked::{Listener, Use, trust_program};
use crate::program::Program as _;

/// spanalloc as the allocator of a Rust program that is attacked.
///
/// It finds all that [`Checked`](crate::Checked) does, and ends the process besides when it frees an object
/// behind the end of which it has written, and when an object is handed out that it has written to
/// after freeing it. What is freed is overwritten with zeros. Where the heap lies and which of the free
/// objects an allocation gets cannot be foreseen. `docs/security.md` tells what is found for sure, what
/// as a rule and what not, and what it costs.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: spanalloc::Hardened = spanalloc::Hardened;
///
/// let words: Vec<String> = "one line is all it takes".split(' ').map(String::from).collect();
/// assert_eq!(words.len(), 6);
/// ```
///
/// All values of this type are the same allocator, and another one than [`Spanalloc`](crate::Spanalloc)
/// and [`Checked`](crate::Checked).
#[derive(Clone, Copy, Debug, Default)]
pub struct Hardened;

/// As [`checked::set_thread_cache`](crate::checked::set_thread_cache).
pub fn set_thread_cache(bytes: usize) {
    Hardened::central().set_thread_cache(bytes);
}

/// As [`checked::set_huge_pages`](crate::checked::set_huge_pages).
pub fn set_huge_pages(huge: HugePages) {
    Hardened::central().heap().set_huge_pages(huge);
}

/// As [`checked::set_soft_limit`](crate::checked::set_soft_limit).
pub fn set_soft_limit(bytes: usize) {
    any::set_soft_limit::<Hardened>(bytes);
}

/// As [`checked::set_hard_limit`](crate::checked::set_hard_limit).
pub fn set_hard_limit(bytes: usize) {
    Hardened::central().heap().set_hard_limit(bytes);
}

/// As [`checked::set_listener`](crate::checked::set_listener).
pub fn set_listener(listener: Option<Listener>) {
    any::set_listener::<Hardened>(listener);
}

/// As [`checked::alloc`](crate::checked::alloc).
#[inline(always)]
#[must_use]
pub fn alloc(size: usize, align: usize) -> *mut u8 {
    any::alloc::<Hardened>(size, align)
}

/// As [`checked::at_hand`](crate::checked::at_hand).
#[inline(always)]
#[must_use]
pub fn at_hand(size: usize, align: usize) -> Option<*mut u8> {
    any::at_hand::<Hardened>(size, align)
}

/// As [`checked::alloc_zeroed`](crate::checked::alloc_zeroed).
#[inline]
#[must_use]
pub fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    any::alloc_zeroed::<Hardened>(size, align)
}

/// As [`checked::free`](crate::checked::free).
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn free(object: *mut u8) {
    // SAFETY: the caller's promise is passed on.
    unsafe { any::free::<Hardened>(object) }
}

/// As [`checked::free_sized`](crate::checked::free_sized).
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn free_sized(object: *mut u8, size: usize, align: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { any::free_sized::<Hardened>(object, size, align) }
}

/// As [`checked::realloc`](crate::checked::realloc).
///
/// # Safety
/// As there.
#[must_use]
pub unsafe fn realloc(object: *mut u8, new_size: usize, align: usize) -> *mut u8 {
    // SAFETY: the caller's promise is passed on.
    unsafe { any::realloc::<Hardened>(object, new_size, align) }
}

/// As [`checked::usable_size`](crate::checked::usable_size).
///
/// # Safety
/// As there.
#[must_use]
pub unsafe fn usable_size(object: *mut u8) -> usize {
    // SAFETY: the caller's promise is passed on.
    unsafe { any::usable_size::<Hardened>(object) }
}

/// As [`checked::release`](crate::checked::release).
pub fn release() -> usize {
    any::release::<Hardened>()
}

/// As [`checked::start_background`](crate::checked::start_background).
pub fn start_background() -> bool {
    any::start::<Hardened>(2)
}

/// As [`checked::for_each_run`](crate::checked::for_each_run).
pub fn for_each_run(visit: impl FnMut(usize, usize, Use)) {
    any::for_each_run::<Hardened>(visit);
}

/// As [`checked::snapshot`](crate::checked::snapshot).
#[must_use]
pub fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::EMPTY;
    snapshot_into(&mut snapshot);
    snapshot
}

/// As [`checked::snapshot_into`](crate::checked::snapshot_into).
pub fn snapshot_into(snapshot: &mut Snapshot) {
    any::snapshot_into::<Hardened>(snapshot);
}
