//! Memory with an alignment.

use core::ffi::{c_int, c_void};

use crate::heap;

use crate::errno::{invalid, no_memory};
use crate::malloc::{ALIGN, or_no_memory};

/// Puts memory of at least `size` bytes at a multiple of `align` into `*out`, and returns 0. Without
/// memory it returns `ENOMEM`, for an alignment that is no power of two or less than a pointer's
/// `EINVAL`; `*out` and `errno` are then as they were.
///
/// # Safety
/// `out` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    // SAFETY: the caller's promise is passed on.
    unsafe { put_aligned(out, align, size) }
}

/// As [`posix_memalign`].
///
/// # Safety
/// As for [`posix_memalign`].
pub(crate) unsafe fn put_aligned(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let object = heap::alloc(size, align.max(ALIGN));
    if object.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(object.cast()) };
    0
}

/// Memory of at least `size` bytes at a multiple of `align`; `EINVAL` if that is no power of two (C11).
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return invalid();
    }
    or_no_memory(heap::alloc(size, align.max(ALIGN)))
}

/// Memory of at least `size` bytes at a multiple of `align`, which is rounded up to a power of two;
/// `EINVAL` if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    alloc_rounded(align, size)
}

/// As [`memalign`].
pub(crate) fn alloc_rounded(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => or_no_memory(heap::alloc(size, align.max(ALIGN))),
        None => invalid(),
    }
}

/// Memory of at least `size` bytes that begins with a page of the system.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    alloc_at_page(size)
}

/// As [`valloc`].
pub(crate) fn alloc_at_page(size: usize) -> *mut c_void {
    or_no_memory(heap::alloc(size, page_bytes()))
}

/// As [`valloc`], and whole pages, at least one.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    alloc_pages(size)
}

/// As [`pvalloc`].
pub(crate) fn alloc_pages(size: usize) -> *mut c_void {
    let page = page_bytes();
    match size.max(1).checked_add(page - 1) {
        Some(sum) => or_no_memory(heap::alloc(sum & !(page - 1), page)),
        None => no_memory(),
    }
}

/// Bytes of a page of the system: 4 KB to 64 KB and more.
fn page_bytes() -> usize {
    // SAFETY: asks for a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    match usize::try_from(bytes) {
        Ok(bytes) if bytes.is_power_of_two() => bytes,
        _ => 4096,
    }
}
