//! The second names by which programs made for glibc call the same functions.

use core::ffi::{c_int, c_void};

use crate::heap;

use crate::aligned::{alloc_at_page, alloc_pages, alloc_rounded, put_aligned};
use crate::errno::no_memory;
use crate::malloc::{ALIGN, free_any, or_no_memory, realloc_any};

/// As [`malloc`](crate::malloc::malloc).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_malloc(size: usize) -> *mut c_void {
    or_no_memory(heap::alloc(size, ALIGN))
}

/// As [`calloc`](crate::malloc::calloc).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => or_no_memory(heap::alloc_zeroed(bytes, ALIGN)),
        None => no_memory(),
    }
}

/// As [`realloc`](crate::malloc::realloc).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_realloc(object: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise is passed on.
    unsafe { realloc_any(object, size) }
}

/// As [`free`](crate::malloc::free).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_free(object: *mut c_void) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// As [`memalign`](crate::aligned::memalign).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_memalign(align: usize, size: usize) -> *mut c_void {
    alloc_rounded(align, size)
}

/// As [`valloc`](crate::aligned::valloc).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_valloc(size: usize) -> *mut c_void {
    alloc_at_page(size)
}

/// As [`pvalloc`](crate::aligned::pvalloc).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_pvalloc(size: usize) -> *mut c_void {
    alloc_pages(size)
}

/// As [`posix_memalign`](crate::aligned::posix_memalign).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __posix_memalign(
    out: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise is passed on.
    unsafe { put_aligned(out, align, size) }
}
