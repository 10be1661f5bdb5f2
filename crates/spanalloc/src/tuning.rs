//! What can be chosen for the allocators of the whole program.

use spanalloc_central::Central as _;
use spanalloc_pages::HugePages;

use crate::program::Program;
use crate::{Spanalloc, checked, hardened};

/// Sets the most bytes that each thread keeps of what it freed: a quarter of them as large objects, a quarter as
/// small ones at hand, the rest as pages for small objects of any size. `usize::MAX`, as at first, is as many as
/// the thread's use suggests, up to fixed bounds.
///
/// Whatever the number, a thread keeps two objects at hand of each size class that it uses, and of a bound below 1 MB
/// the pages that the next ones come from, up to 512 KB. What a thread keeps already goes as it frees more, and with
/// [`release`](crate::release).
pub fn set_thread_cache(bytes: usize) {
    Spanalloc::central().set_thread_cache(bytes);
    checked::set_thread_cache(bytes);
    hardened::set_thread_cache(bytes);
}

/// Chooses for which memory the system is asked for huge pages from now on.
pub fn set_huge_pages(huge: HugePages) {
    Spanalloc::central().heap().set_huge_pages(huge);
    checked::set_huge_pages(huge);
    hardened::set_huge_pages(huge);
}
