//! The operators `new` and `delete` of C++, under their names in the C++ ABI.
//!
//! A `new` that finds no memory calls the program's new-handler until there is some; without a handler
//! it throws `std::bad_alloc`. Both are libstdc++'s, which this library does not need: it is
//! referred to weakly, and found in the programs that use it. A `new` that may not throw returns null
//! without asking the handler, which may throw.

use core::ffi::c_void;

use crate::heap;

use crate::malloc::{ALIGN, free_any, free_known};
use crate::system::STDERR;

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod arch;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "other.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod arch;

/// `std::nothrow_t`, of which nothing is read.
type NoThrow = *const c_void;

/// Memory for a `new`, or null.
extern "C" fn alloc(size: usize) -> *mut c_void {
    heap::alloc(size, ALIGN).cast()
}

/// Memory for a `new` of a type with an alignment, or null.
extern "C" fn alloc_aligned(size: usize, align: usize) -> *mut c_void {
    heap::alloc(size, align.max(ALIGN)).cast()
}

/// Ends a process that should throw and cannot: nothing of libstdc++ was there when it was loaded.
#[cold]
extern "C" fn cannot_throw() -> ! {
    STDERR.write_all(b"spanalloc: no memory for operator new, and no std::bad_alloc to throw\n");
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

/// `operator new(size_t, const nothrow_t&)`
#[unsafe(export_name = "_ZnwmRKSt9nothrow_t")]
pub extern "C" fn new_nothrow(size: usize, _: NoThrow) -> *mut c_void {
    alloc(size)
}

/// `operator new[](size_t, const nothrow_t&)`
#[unsafe(export_name = "_ZnamRKSt9nothrow_t")]
pub extern "C" fn new_array_nothrow(size: usize, _: NoThrow) -> *mut c_void {
    alloc(size)
}

/// `operator new(size_t, align_val_t, const nothrow_t&)`
#[unsafe(export_name = "_ZnwmSt11align_val_tRKSt9nothrow_t")]
pub extern "C" fn new_aligned_nothrow(size: usize, align: usize, _: NoThrow) -> *mut c_void {
    alloc_aligned(size, align)
}

/// `operator new[](size_t, align_val_t, const nothrow_t&)`
#[unsafe(export_name = "_ZnamSt11align_val_tRKSt9nothrow_t")]
pub extern "C" fn new_array_aligned_nothrow(size: usize, align: usize, _: NoThrow) -> *mut c_void {
    alloc_aligned(size, align)
}

/// `operator delete(void*)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdlPv")]
pub unsafe extern "C" fn delete(object: *mut c_void) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// `operator delete[](void*)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdaPv")]
pub unsafe extern "C" fn delete_array(object: *mut c_void) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// `operator delete(void*, const nothrow_t&)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdlPvRKSt9nothrow_t")]
pub unsafe extern "C" fn delete_nothrow(object: *mut c_void, _: NoThrow) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// `operator delete[](void*, const nothrow_t&)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdaPvRKSt9nothrow_t")]
pub unsafe extern "C" fn delete_array_nothrow(object: *mut c_void, _: NoThrow) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// `operator delete(void*, size_t)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdlPvm")]
pub unsafe extern "C" fn delete_sized(object: *mut c_void, size: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_known(object, size, ALIGN) }
}

/// `operator delete[](void*, size_t)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdaPvm")]
pub unsafe extern "C" fn delete_array_sized(object: *mut c_void, size: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_known(object, size, ALIGN) }
}

/// `operator delete(void*, align_val_t)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdlPvSt11align_val_t")]
pub unsafe extern "C" fn delete_aligned(object: *mut c_void, _align: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// `operator delete[](void*, align_val_t)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdaPvSt11align_val_t")]
pub unsafe extern "C" fn delete_array_aligned(object: *mut c_void, _align: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// `operator delete(void*, align_val_t, const nothrow_t&)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdlPvSt11align_val_tRKSt9nothrow_t")]
pub unsafe extern "C" fn delete_aligned_nothrow(object: *mut c_void, _align: usize, _: NoThrow) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// `operator delete[](void*, align_val_t, const nothrow_t&)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdaPvSt11align_val_tRKSt9nothrow_t")]
pub unsafe extern "C" fn delete_array_aligned_nothrow(
    object: *mut c_void,
    _align: usize,
    _: NoThrow,
) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_any(object) }
}

/// `operator delete(void*, size_t, align_val_t)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdlPvmSt11align_val_t")]
pub unsafe extern "C" fn delete_sized_aligned(object: *mut c_void, size: usize, align: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_known(object, size, align.max(ALIGN)) }
}

/// `operator delete[](void*, size_t, align_val_t)`
///
/// # Safety
/// Nobody uses the object any more.
#[unsafe(export_name = "_ZdaPvmSt11align_val_t")]
pub unsafe extern "C" fn delete_array_sized_aligned(
    object: *mut c_void,
    size: usize,
    align: usize,
) {
    // SAFETY: the caller's promise is passed on.
    unsafe { free_known(object, size, align.max(ALIGN)) }
}
