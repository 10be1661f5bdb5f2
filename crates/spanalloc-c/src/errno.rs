//! The error number of the C library.

use core::ffi::{c_int, c_void};
use core::ptr;

/// Sets the thread's error number.
pub(crate) fn set(number: c_int) {
    // SAFETY: the C library returns the address of the thread's own number, always valid.
    unsafe { *libc::__errno_location() = number };
}

/// What a function of the C library returns when there is no memory: null, and `ENOMEM`.
#[cold]
#[inline(never)]
pub(crate) fn no_memory() -> *mut c_void {
    set(libc::ENOMEM);
    ptr::null_mut()
}

/// What a function of the C library returns for an alignment that is none: null, and `EINVAL`.
#[cold]
#[inline(never)]
pub(crate) fn invalid() -> *mut c_void {
    set(libc::EINVAL);
    ptr::null_mut()
}
