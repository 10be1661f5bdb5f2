//! `malloc` and `free`, and what is made of them.
//!
//! The rules are glibc's. Failure is null and `ENOMEM`; nothing else changes `errno`, `free` least of
//! all. Objects are aligned to 16 bytes from the smallest on.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use core::arch::asm;
use core::ffi::c_void;

use crate::heap;

use crate::errno::no_memory;
use crate::hooks;

// These two stand beside `malloc`, so that a program that links any part of the archive has them.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = hooks::start;
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = hooks::end;

/// The alignment of what has no other: that of `max_align_t`.
pub(crate) const ALIGN: usize = 16;

/// The object, or null and `ENOMEM`.
#[inline(always)]
pub(crate) fn or_no_memory(object: *mut u8) -> *mut c_void {
    if object.is_null() { no_memory() } else { object.cast() }
}

/// Memory of at least `size` bytes; of 1 if that is 0.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    match heap::at_hand(size, ALIGN) {
        Some(object) => object.cast(),
        None => malloc_any(size),
    }
}

#[inline(never)]
fn malloc_any(size: usize) -> *mut c_void {
    or_no_memory(heap::alloc(size, ALIGN))
}

/// Memory for `count` objects of `size` bytes, all zero.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => or_no_memory(heap::alloc_zeroed(bytes, ALIGN)),
        None => no_memory(),
    }
}

/// Gives an object another size and keeps its contents. A null `object` is `malloc`, a `size` of 0 is
/// `free` and null. On failure the object is as it was.
///
/// # Safety
/// The object is null or the caller's alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(object: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise is passed on.
    unsafe { realloc_any(object, size) }
}

/// As [`realloc`].
///
/// # Safety
/// As for [`realloc`].
#[inline(always)]
pub(crate) unsafe fn realloc_any(object: *mut c_void, size: usize) -> *mut c_void {
    if object.is_null() {
        return or_no_memory(heap::alloc(size, ALIGN));
    }
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if size == 0 {
            heap::free(object.cast());
            return core::ptr::null_mut();
        }
        or_no_memory(heap::realloc(object.cast(), size, ALIGN))
    }
}

/// As [`realloc`] to `count` objects of `size` bytes.
///
/// # Safety
/// As for [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    object: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else { return no_memory() };
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match realloc_of_the_process() {
            Some(realloc) => realloc(object, bytes),
            None => realloc_any(object, bytes),
        }
    }
}

type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;

/// The `realloc` that the process uses. An executable with an allocator of its own goes before this
/// library, and may lack `reallocarray`: its objects are then resized where they came from, as glibc
/// would. None before the library is relocated.
#[inline]
fn realloc_of_the_process() -> Option<Realloc> {
    let found: usize;
    // SAFETY: reads the address that the dynamic linker found for the name.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(
            "mov {found}, qword ptr [rip + realloc@GOTPCREL]",
            found = out(reg) found,
            options(pure, readonly, nostack, preserves_flags),
        );
        #[cfg(target_arch = "aarch64")]
        asm!(
            "adrp {found}, :got:realloc",
            "ldr {found}, [{found}, :got_lo12:realloc]",
            found = out(reg) found,
            options(pure, readonly, nostack, preserves_flags),
        );
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            found = 0;
        }
    }
    // SAFETY: null, or the address of a function of this type.
    unsafe { core::mem::transmute(found) }
}

/// Frees an object. Null is none.
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(object: *mut c_void) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// As [`free`].
///
/// # Safety
/// As for [`free`].
#[inline(always)]
pub(crate) unsafe fn free_any(object: *mut c_void) {
    if !object.is_null() {
        // SAFETY: the caller's promise is passed on.
        unsafe { heap::free(object.cast()) }
    }
}

/// As [`free`]: what programs of the last century call.
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(object: *mut c_void) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// As [`free`], of an object that was asked for with this size (C23).
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(object: *mut c_void, size: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_known(object, size, ALIGN) }
}

/// As [`free`], of an object that was asked for with this alignment and size (C23).
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(object: *mut c_void, align: usize, size: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_known(object, size, align.max(ALIGN)) }
}

/// As [`free`], of an object that was asked for with this size and alignment.
///
/// # Safety
/// As for [`free`].
#[inline(always)]
pub(crate) unsafe fn free_known(object: *mut c_void, size: usize, align: usize) {
    if !object.is_null() {
        // SAFETY: the caller's promise is passed on.
        unsafe { heap::free_sized(object.cast(), size, align) }
    }
}

/// How many bytes of an object the program may use; 0 of null.
///
/// # Safety
/// The object is null, or not freed meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(object: *mut c_void) -> usize {
    if object.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise is passed on.
    unsafe { heap::usable_size(object.cast()) }
}
