//! The operators that should throw, where it is not known how: without memory they end the process.

use core::ffi::c_void;

use super::{alloc, alloc_aligned, cannot_throw};

fn or_end(object: *mut c_void) -> *mut c_void {
    if object.is_null() { cannot_throw() } else { object }
}

/// `operator new(size_t)`
#[unsafe(export_name = "_Znwm")]
pub extern "C" fn new(size: usize) -> *mut c_void {
    or_end(alloc(size))
}

/// `operator new[](size_t)`
#[unsafe(export_name = "_Znam")]
pub extern "C" fn new_array(size: usize) -> *mut c_void {
    or_end(alloc(size))
}

/// `operator new(size_t, align_val_t)`
#[unsafe(export_name = "_ZnwmSt11align_val_t")]
pub extern "C" fn new_aligned(size: usize, align: usize) -> *mut c_void {
    or_end(alloc_aligned(size, align))
}

/// `operator new[](size_t, align_val_t)`
#[unsafe(export_name = "_ZnamSt11align_val_t")]
pub extern "C" fn new_array_aligned(size: usize, align: usize) -> *mut c_void {
    or_end(alloc_aligned(size, align))
}
