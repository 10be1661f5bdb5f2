//! `malloc` and all that goes with it: glibc's, with a note of each call.
//!
//! An allocation is noted after it, a free before it: while an object is in the log, its address
//! is nobody else's.

use core::ffi::{c_int, c_void};
use core::ptr;

use spanalloc_log::Kind;

use crate::recorder::note;

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(object: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    fn __libc_free(object: *mut c_void);
}

/// The logarithm of the alignment of what has no other.
const ALIGN_LOG2: u8 = 4;

/// Fails as the C library does.
fn refuse(number: c_int) -> *mut c_void {
    // SAFETY: the C library returns the address of the thread's own number, always valid.
    unsafe { *libc::__errno_location() = number };
    ptr::null_mut()
}

fn noted(kind: Kind, object: *mut c_void, size: usize, align_log2: u8) -> *mut c_void {
    if !object.is_null() {
        note(kind, object, size, align_log2);
    }
    object
}

#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: glibc's function takes any size.
    noted(Kind::Alloc, unsafe { __libc_malloc(size) }, size, ALIGN_LOG2)
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: glibc's function takes any sizes.
    let object = unsafe { __libc_calloc(count, size) };
    noted(Kind::AllocZeroed, object, count.wrapping_mul(size), ALIGN_LOG2)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(object: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if object.is_null() {
            return malloc(size);
        }
        if size == 0 {
            note(Kind::Free, object, 0, 0);
            return __libc_realloc(object, 0);
        }
        note(Kind::Resize, object, size, ALIGN_LOG2);
        let moved = __libc_realloc(object, size);
        note(Kind::Resized, moved, size, ALIGN_LOG2);
        moved
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn reallocarray(object: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise is passed on.
        Some(bytes) => unsafe { realloc(object, bytes) },
        None => refuse(libc::ENOMEM),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(object: *mut c_void) {
    if !object.is_null() {
        note(Kind::Free, object, 0, 0);
        // SAFETY: the caller's promise is passed on.
        unsafe { __libc_free(object) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cfree(object: *mut c_void) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free(object) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free_sized(object: *mut c_void, _size: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free(object) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free_aligned_sized(object: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free(object) };
}

/// Memory at a multiple of `align`, a power of two.
fn aligned(align: usize, size: usize) -> *mut c_void {
    // SAFETY: glibc's function takes any sizes.
    let object = unsafe { __libc_memalign(align, size) };
    noted(Kind::Alloc, object, size, (align.trailing_zeros() as u8).max(ALIGN_LOG2))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    // SAFETY: the C library returns the address of the thread's own number, always valid.
    let before = unsafe { *libc::__errno_location() };
    let object = aligned(align, size);
    if object.is_null() {
        refuse(before);
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(object) };
    0
}

#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if align.is_power_of_two() { aligned(align, size) } else { refuse(libc::EINVAL) }
}

#[unsafe(no_mangle)]
extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned(align, size),
        None => refuse(libc::EINVAL),
    }
}

/// Bytes of a page of the system.
fn page_bytes() -> usize {
    // SAFETY: asks for a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
}

#[unsafe(no_mangle)]
extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned(page_bytes(), size)
}

#[unsafe(no_mangle)]
extern "C" fn pvalloc(size: usize) -> *mut c_void {
    match size.max(1).checked_next_multiple_of(page_bytes()) {
        Some(size) => aligned(page_bytes(), size),
        None => refuse(libc::ENOMEM),
    }
}
