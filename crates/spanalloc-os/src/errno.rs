//! The error number of the C library, which `free` may not change.

use core::ffi::c_int;

#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as location;
#[cfg(not(any(
    target_os = "android",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "freebsd",
    target_vendor = "apple"
)))]
use libc::__errno_location as location;
#[cfg(any(target_os = "freebsd", target_vendor = "apple"))]
use libc::__error as location;

/// The thread's error number.
pub(crate) fn get() -> c_int {
    // SAFETY: the C library returns the address of the thread's own number, always valid.
    unsafe { *location() }
}

/// Runs `call` and puts the error number back.
pub(crate) fn keep<R>(call: impl FnOnce() -> R) -> R {
    let before = get();
    let result = call();
    // SAFETY: as in `get`; no other thread uses this thread's number.
    unsafe { *location() = before };
    result
}
