//! The operators that throw. An exception passes their frames, so they are written with what the
//! unwinder needs to know of them; Rust's own frames would end the process.

use core::arch::naked_asm;
use core::ffi::c_void;

use super::{alloc_aligned, cannot_throw};

/// `operator new(size_t)`
#[unsafe(naked)]
#[unsafe(export_name = "_Znwm")]
pub extern "C-unwind" fn new(size: usize) -> *mut c_void {
    naked_asm!("mov x1, #1", "b {new}", new = sym new_or_throw)
}

/// `operator new[](size_t)`
#[unsafe(naked)]
#[unsafe(export_name = "_Znam")]
pub extern "C-unwind" fn new_array(size: usize) -> *mut c_void {
    naked_asm!("mov x1, #1", "b {new}", new = sym new_or_throw)
}

/// `operator new(size_t, align_val_t)`
#[unsafe(naked)]
#[unsafe(export_name = "_ZnwmSt11align_val_t")]
pub extern "C-unwind" fn new_aligned(size: usize, align: usize) -> *mut c_void {
    naked_asm!("b {new}", new = sym new_or_throw)
}

/// `operator new[](size_t, align_val_t)`
#[unsafe(naked)]
#[unsafe(export_name = "_ZnamSt11align_val_t")]
pub extern "C-unwind" fn new_array_aligned(size: usize, align: usize) -> *mut c_void {
    naked_asm!("b {new}", new = sym new_or_throw)
}

/// Calls the new-handler as long as there is no memory, or throws.
#[unsafe(naked)]
extern "C-unwind" fn new_or_throw(size: usize, align: usize) -> *mut c_void {
    naked_asm!(
        ".weak _ZSt15get_new_handlerv",
        ".weak _ZSt17__throw_bad_allocv",
        ".cfi_startproc",
        "stp x29, x30, [sp, #-32]!",
        ".cfi_def_cfa_offset 32",
        ".cfi_offset x29, -32",
        ".cfi_offset x30, -24",
        "stp x0, x1, [sp, #16]",
        "2:",
        "bl {alloc}",
        "cbz x0, 3f",
        ".cfi_remember_state",
        "ldp x29, x30, [sp], #32",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "ret",
        "3:",
        ".cfi_restore_state",
        "adrp x8, :got:_ZSt15get_new_handlerv",
        "ldr x8, [x8, :got_lo12:_ZSt15get_new_handlerv]",
        "cbz x8, 4f",
        "blr x8",
        "cbz x0, 4f",
        "blr x0",
        "ldp x0, x1, [sp, #16]",
        "b 2b",
        "4:",
        "adrp x8, :got:_ZSt17__throw_bad_allocv",
        "ldr x8, [x8, :got_lo12:_ZSt17__throw_bad_allocv]",
        "cbz x8, 5f",
        "blr x8",
        "5:",
        "bl {cannot_throw}",
        "brk #1",
        ".cfi_endproc",
        alloc = sym alloc_aligned,
        cannot_throw = sym cannot_throw,
    )
}
