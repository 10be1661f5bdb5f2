//! The operators that throw. An exception passes their frames, so they are written with what the
//! unwinder needs to know of them; Rust's own frames would end the process.

use core::arch::naked_asm;
use core::ffi::c_void;

use super::{alloc, alloc_aligned, cannot_throw};

/// `operator new(size_t)`
#[unsafe(naked)]
#[unsafe(export_name = "_Znwm")]
pub extern "C-unwind" fn new(size: usize) -> *mut c_void {
    naked_asm!("jmp {new}", new = sym new_or_throw)
}

/// `operator new[](size_t)`
#[unsafe(naked)]
#[unsafe(export_name = "_Znam")]
pub extern "C-unwind" fn new_array(size: usize) -> *mut c_void {
    naked_asm!("jmp {new}", new = sym new_or_throw)
}

/// `operator new(size_t, align_val_t)`
#[unsafe(naked)]
#[unsafe(export_name = "_ZnwmSt11align_val_t")]
pub extern "C-unwind" fn new_aligned(size: usize, align: usize) -> *mut c_void {
    naked_asm!("jmp {new}", new = sym new_aligned_or_throw)
}

/// `operator new[](size_t, align_val_t)`
#[unsafe(naked)]
#[unsafe(export_name = "_ZnamSt11align_val_t")]
pub extern "C-unwind" fn new_array_aligned(size: usize, align: usize) -> *mut c_void {
    naked_asm!("jmp {new}", new = sym new_aligned_or_throw)
}

#[unsafe(naked)]
extern "C-unwind" fn new_or_throw(size: usize) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "call {alloc}",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "test rax, rax",
        "je 2f",
        "ret",
        "2:",
        "mov esi, 1",
        "jmp {handle}",
        ".cfi_endproc",
        alloc = sym alloc,
        handle = sym handle_slow,
    )
}

#[unsafe(naked)]
extern "C-unwind" fn new_aligned_or_throw(size: usize, align: usize) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        "push rsi",
        "push rax",
        ".cfi_adjust_cfa_offset 24",
        "call {alloc}",
        "pop rsi",
        "pop rsi",
        "pop rdi",
        ".cfi_adjust_cfa_offset -24",
        "test rax, rax",
        "je {handle}",
        "ret",
        ".cfi_endproc",
        alloc = sym alloc_aligned,
        handle = sym handle_slow,
    )
}

/// Calls the new-handler until there is memory, or throws.
#[unsafe(naked)]
extern "C-unwind" fn handle_slow(size: usize, align: usize) -> *mut c_void {
    naked_asm!(
        ".weak _ZSt15get_new_handlerv",
        ".weak _ZSt17__throw_bad_allocv",
        ".cfi_startproc",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_offset rbx, -16",
        "push r12",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_offset r12, -24",
        "push rax",
        ".cfi_adjust_cfa_offset 8",
        "mov rbx, rdi",
        "mov r12, rsi",
        "2:",
        "mov rax, qword ptr [rip + _ZSt15get_new_handlerv@GOTPCREL]",
        "test rax, rax",
        "je 3f",
        "call rax",
        "test rax, rax",
        "je 3f",
        "call rax",
        "mov rdi, rbx",
        "mov rsi, r12",
        "call {alloc}",
        "test rax, rax",
        "je 2b",
        ".cfi_remember_state",
        "pop r12",
        "pop r12",
        ".cfi_restore r12",
        "pop rbx",
        ".cfi_restore rbx",
        ".cfi_adjust_cfa_offset -24",
        "ret",
        "3:",
        ".cfi_restore_state",
        "mov rax, qword ptr [rip + _ZSt17__throw_bad_allocv@GOTPCREL]",
        "test rax, rax",
        "je 4f",
        "call rax",
        "4:",
        "call {cannot_throw}",
        "ud2",
        ".cfi_endproc",
        alloc = sym alloc_aligned,
        cannot_throw = sym cannot_throw,
    )
}
