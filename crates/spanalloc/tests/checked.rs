//! The allocator that checks the program: it works as the other one does, and each bug ends the
//! process at the very call.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/bugs.rs"]
mod bugs;
#[path = "common/checking.rs"]
mod checking;
#[path = "common/children.rs"]
mod children;
#[path = "common/objects.rs"]
mod objects;
#[path = "common/operations.rs"]
mod operations;

use std::alloc::{GlobalAlloc, Layout};

use bugs::{Bug, announce, free_wrongly};
use objects::{alloc, free, realloc};
use spanalloc::{Checked, checked as functions};

#[global_allocator]
static ALLOCATOR: Checked = Checked;

const FORKS: u32 = 1;

/// Sizes of small and large objects.
const SIZES: [usize; 8] = [1, 16, 24, 100, 1000, 5000, 32_768, 100_000];

const DOUBLE: &str = "double free of";
const FOREIGN: &str = "foreign pointer";
const NO_START: &str = "not an object start";
const MISMATCH: &str = "size mismatch at";

const BUGS: &[Bug] = &[
    ("small_twice", DOUBLE, " (class 64)", || bugs::twice(64)),
    ("twice_with_others_between", DOUBLE, " (class 4096)", || {
        bugs::twice_with_another_between(4096)
    }),
    ("tiny_twice", DOUBLE, " (class 4)", || bugs::twice(1)),
    ("large_twice", DOUBLE, "", || bugs::twice(100_000)),
    ("here_and_in_another_thread", DOUBLE, " (class 256)", || {
        bugs::here_and_in_another_thread(256)
    }),
    ("in_another_thread_and_here", DOUBLE, " (class 256)", || {
        bugs::in_another_thread_and_here(256)
    }),
    ("in_two_other_threads", DOUBLE, " (class 256)", || bugs::in_two_other_threads(256)),
    ("in_a_thread_that_is_gone", DOUBLE, " (class 48)", || bugs::in_a_thread_that_is_gone(48)),
    ("of_the_stack", FOREIGN, "", || bugs::of_the_stack(64)),
    ("of_a_static", FOREIGN, "", || free_wrongly(bugs::of_a_static(), 512)),
    ("with_high_bits", FOREIGN, "", || free_wrongly(bugs::with_high_bits(alloc(64)), 64)),
    ("inside_an_object", NO_START, " (class 64)", || free_wrongly(alloc(64).wrapping_add(8), 64)),
    ("never_handed_out", NO_START, " (class 9472)", || {
        free_wrongly(alloc(9000).wrapping_add(9472), 9000);
    }),
    ("a_page_inside", NO_START, "", || free_wrongly(alloc(100_000).wrapping_add(8192), 100_000)),
    ("of_another_class", MISMATCH, " (class 64)", || free_wrongly(alloc(64), 128)),
    ("of_a_larger_alignment", MISMATCH, " (class 48)", || {
        let object = alloc(48);
        announce(object);
        // SAFETY: none, this is a bug.
        unsafe { ALLOCATOR.dealloc(object, Layout::from_size_align(48, 64).unwrap()) };
    }),
    ("of_other_pages", MISMATCH, "", || free_wrongly(alloc(100_000), 200_000)),
    ("small_as_large", MISMATCH, " (class 64)", || free_wrongly(alloc(64), 40_000)),
    ("realloc_of_a_free_object", DOUBLE, " (class 64)", || {
        let object = alloc(64);
        announce(object);
        free(object, 64);
        realloc(object, 64, 100);
    }),
    ("realloc_as_another_class", MISMATCH, " (class 64)", || {
        let object = alloc(64);
        announce(object);
        realloc(object, 100, 64);
    }),
];

#[test]
fn child() {
    bugs::run_as_child(BUGS);
}

#[test]
fn every_bug_ends_the_process_at_the_call_with_one_exact_line() {
    bugs::assert_all_end_with_their_line(BUGS);
}
