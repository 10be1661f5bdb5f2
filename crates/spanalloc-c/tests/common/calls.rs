//! The functions of the C library as a program calls them, hidden from the compiler, which knows
//! too well what they should do.

use std::ffi::{CStr, c_int, c_void};
use std::hint::black_box;
use std::mem::transmute;

pub fn malloc(size: usize) -> *mut u8 {
    // SAFETY: any size may be asked for.
    black_box(unsafe { libc::malloc(black_box(size)) }).cast()
}

pub fn calloc(count: usize, size: usize) -> *mut u8 {
    // SAFETY: any number may be asked for.
    black_box(unsafe { libc::calloc(black_box(count), black_box(size)) }).cast()
}

pub fn realloc(object: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the object is the test's own, or a bug is planted.
    black_box(unsafe { libc::realloc(black_box(object).cast(), black_box(size)) }).cast()
}

pub fn reallocarray(object: *mut u8, count: usize, size: usize) -> *mut u8 {
    // SAFETY: as for `realloc`.
    black_box(unsafe { libc::reallocarray(black_box(object).cast(), count, black_box(size)) })
        .cast()
}

pub fn free(object: *mut u8) {
    // SAFETY: as for `realloc`.
    unsafe { libc::free(black_box(object).cast()) };
}

/// The answer, and what is at the place for the address afterwards; before, it holds `untouched`.
pub fn posix_memalign(align: usize, size: usize, untouched: *mut u8) -> (c_int, *mut u8) {
    let mut object = untouched.cast::<c_void>();
    // SAFETY: the place is writable; any number may be asked for.
    let answer =
        unsafe { libc::posix_memalign(&raw mut object, black_box(align), black_box(size)) };
    (answer, black_box(object).cast())
}

pub fn aligned_alloc(align: usize, size: usize) -> *mut u8 {
    // SAFETY: any number may be asked for.
    black_box(unsafe { libc::aligned_alloc(black_box(align), black_box(size)) }).cast()
}

pub fn memalign(align: usize, size: usize) -> *mut u8 {
    // SAFETY: any number may be asked for.
    black_box(unsafe { libc::memalign(black_box(align), black_box(size)) }).cast()
}

pub fn usable_size(object: *mut u8) -> usize {
    // SAFETY: as for `realloc`.
    black_box(unsafe { libc::malloc_usable_size(black_box(object).cast()) })
}

pub fn malloc_trim() -> c_int {
    // SAFETY: gives back only memory that nobody uses.
    unsafe { libc::malloc_trim(0) }
}

/// A function of the library that the C library this test is linked with does not have or declare.
fn function(name: &CStr) -> *mut c_void {
    // SAFETY: asks for an address.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    assert!(!address.is_null(), "{name:?} is missing");
    address
}

pub fn free_sized(object: *mut u8, size: usize) {
    // SAFETY: the type of the function in C23; for the object as for `realloc`.
    unsafe {
        let call: unsafe extern "C" fn(*mut u8, usize) = transmute(function(c"free_sized"));
        call(object, size);
    }
}

pub fn free_aligned_sized(object: *mut u8, align: usize, size: usize) {
    let name = c"free_aligned_sized";
    // SAFETY: the type of the function in C23; for the object as for `realloc`.
    unsafe {
        let call: unsafe extern "C" fn(*mut u8, usize, usize) = transmute(function(name));
        call(object, align, size);
    }
}

pub fn valloc(size: usize) -> *mut u8 {
    // SAFETY: the type of the function; any number may be asked for.
    unsafe {
        let call: unsafe extern "C" fn(usize) -> *mut u8 = transmute(function(c"valloc"));
        call(size)
    }
}

pub fn pvalloc(size: usize) -> *mut u8 {
    // SAFETY: the type of the function; any number may be asked for.
    unsafe {
        let call: unsafe extern "C" fn(usize) -> *mut u8 = transmute(function(c"pvalloc"));
        call(size)
    }
}

pub fn errno() -> c_int {
    // SAFETY: the thread's own number.
    unsafe { *libc::__errno_location() }
}

pub fn set_errno(number: c_int) {
    // SAFETY: the thread's own number.
    unsafe { *libc::__errno_location() = number };
}

/// What `call` answers and the `errno` it leaves, which was 0 before.
pub fn with_errno<T>(call: impl FnOnce() -> T) -> (T, c_int) {
    set_errno(0);
    let answer = call();
    (answer, errno())
}
