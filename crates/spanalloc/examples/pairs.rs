//! Allocates an object and frees it, so many times: for profilers, and for `.ci/instructions`.
//!
//! ```text
//! cargo run --release -p spanalloc --example pairs -- fast 64 1000000
//! ```
//!
//! The allocator is `fast`, `checked`, `hardened`, or `c`: what the program finds as `malloc` and `free`.

use std::alloc::{GlobalAlloc, Layout, handle_alloc_error};
use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use spanalloc::{Checked, Hardened, Spanalloc};

/// `malloc` and `free`.
struct C;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut u8;
    fn free(object: *mut u8);
}

// SAFETY: `malloc` keeps this contract for the alignments that are asked for here.
unsafe impl GlobalAlloc for C {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size may be asked for.
        unsafe { malloc(layout.size()) }
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, _layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { free(object) }
    }
}

/// Allocates as a program does through `__rust_alloc`: one call that is not inlined, into which
/// the allocator's own code is.
#[inline(never)]
fn allocate<A: GlobalAlloc>(allocator: &A, layout: Layout) -> *mut u8 {
    // SAFETY: the layout has a size that is not 0.
    unsafe { allocator.alloc(layout) }
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

fn pairs<A: GlobalAlloc>(allocator: &A, layout: Layout, count: u32) {
    let layout = black_box(layout);
    for _ in 0..count {
        let object = allocate(allocator, layout);
        if object.is_null() {
            handle_alloc_error(layout);
        }
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
        [] => Some(("fast", 64, 1_000_000)),
        [name, size, count] => size
            .parse()
            .ok()
            .filter(|size: &u16| *size > 0)
            .zip(count.parse().ok())
            .map(|(size, count)| (name.as_str(), size, count)),
        _ => None,
    };
    let Some((name, size, count)) = parsed else { return usage() };
    let Ok(layout) = Layout::from_size_align(usize::from(size), 8) else { return usage() };
    let start = Instant::now();
    match name {
        "fast" => pairs(&Spanalloc, layout, count),
        "checked" => pairs(&Checked, layout, count),
        "hardened" => pairs(&Hardened, layout, count),
        "c" => pairs(&C, layout, count),
        _ => return usage(),
    }
    let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(count.max(1));
    println!("{name}: {each:.1} ns for a pair of {size} bytes");
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: pairs fast|checked|hardened|c SIZE COUNT (a size of 1 to 65535)");
    ExitCode::FAILURE
}
