//! Counts the instructions of one pair: runs pairs of a size on an allocator, so many times, for
//! `valgrind --tool=callgrind`.
//!
//! `pair ALLOCATOR SIZE COUNT` with `fast`, `checked` or `system`; the difference between two
//! counts is free of what starts and ends the program.

use std::alloc::{GlobalAlloc, Layout, System, handle_alloc_error};
use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use spanalloc::{Checked, Spanalloc};

/// Allocates as a program does through `__rust_alloc`: one call that is not inlined, into which
/// the allocator's own code is.
#[inline(never)]
fn allocate<A: GlobalAlloc>(allocator: &A, layout: Layout) -> *mut u8 {
    // SAFETY: the layout has a size that is not 0.
    let object = unsafe { allocator.alloc(layout) };
    if object.is_null() {
        handle_alloc_error(layout);
    }
    object
}

/// Frees as a program does through `__rust_dealloc`.
///
/// # Safety
/// The object came from [`allocate`] of the same allocator with this layout, and is not used any
/// more.
#[inline(never)]
unsafe fn deallocate<A: GlobalAlloc>(allocator: &A, object: *mut u8, layout: Layout) {
    // SAFETY: the caller's promise.
    unsafe { allocator.dealloc(object, layout) }
}

fn pairs<A: GlobalAlloc>(allocator: &A, layout: Layout, count: u64) {
    let layout = black_box(layout);
    for _ in 0..count {
        let object = allocate(allocator, layout);
        // SAFETY: the first byte lies in the object, which was just allocated with this layout.
        unsafe {
            object.write_volatile(1);
            deallocate(allocator, object, layout);
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let parsed = match &arguments[..] {
        [name, size, count] => size
            .parse()
            .ok()
            .filter(|size: &u16| *size > 0)
            .and_then(|size| Layout::from_size_align(usize::from(size), 8).ok())
            .zip(count.parse().ok())
            .map(|(layout, count)| (name.as_str(), layout, count)),
        _ => None,
    };
    match parsed {
        Some(("fast", layout, count)) => pairs(&Spanalloc, layout, count),
        Some(("checked", layout, count)) => pairs(&Checked, layout, count),
        Some(("system", layout, count)) => pairs(&System, layout, count),
        _ => {
            eprintln!("usage: pair fast|checked|system SIZE COUNT (a size of 1 to 65535)");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
