//! The hardened allocator: it works as the others do, and what a program does wrong ends it with one line.
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

use std::collections::HashSet;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::ptr;

use bugs::{Bug, announce, free_wrongly};
use checking::used_memory_is_zero;
use children::job;
use objects::{alloc, free, in_a_thread, realloc};
use spanalloc::{Hardened, hardened as functions};

#[global_allocator]
static ALLOCATOR: Hardened = Hardened;

const FORKS: u32 = 1;

/// Sizes of small and large objects; those that only just fit a slot with its canary, and those that do not.
const SIZES: [usize; 12] = [0, 1, 8, 9, 24, 100, 1000, 1016, 5000, 32_760, 32_761, 100_000];

#[test]
fn small_memory_is_zero_without_asking() {
    for size in SIZES.into_iter().filter(|size| *size <= 32_760) {
        used_memory_is_zero(size, alloc);
    }
}

/// Writes one byte more than the object has room for, and frees it.
fn overflow(size: usize, by: u8) {
    let object = alloc(size);
    announce(object);
    // SAFETY: none, this is a bug.
    unsafe { object.add(size).write(by) };
    free(object, size);
}

/// Writes to a free object, and allocates until its slot is handed out again.
fn write_after_free(size: usize, at: usize) {
    let object = alloc(size);
    announce(object);
    free(object, size);
    // SAFETY: none, this is a bug.
    unsafe { object.add(at).write(1) };
    for _ in 0..10_000 {
        alloc(size);
    }
}

const DOUBLE: &str = "double free of";
const FOREIGN: &str = "foreign pointer";
const NO_START: &str = "not an object start";
const MISMATCH: &str = "size mismatch at";
const OVERFLOW: &str = "heap overflow of";
const WRITTEN: &str = "write after free of";

const BUGS: &[Bug] = &[
    ("a_zero_too_many", OVERFLOW, " (class 32)", || overflow(24, 0)),
    ("a_character_too_many", OVERFLOW, " (class 64)", || overflow(56, b'x')),
    ("a_byte_behind_a_page", OVERFLOW, " (class 4864)", || overflow(4856, 1)),
    ("a_byte_behind_nothing", OVERFLOW, " (class 8)", || overflow(0, 0)),
    ("far_too_many", OVERFLOW, " (class 48)", || {
        let object = alloc(40);
        announce(object);
        // SAFETY: none, this is a bug.
        unsafe { object.write_bytes(0, 200) };
        free(object, 40);
    }),
    ("overflow_found_by_another_thread", OVERFLOW, " (class 256)", || {
        let object = alloc(248);
        announce(object);
        // SAFETY: none, this is a bug.
        unsafe { object.add(248).write(0) };
        let address = object.expose_provenance();
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 248));
    }),
    ("overflow_found_by_realloc", OVERFLOW, " (class 64)", || {
        let object = alloc(56);
        announce(object);
        // SAFETY: none, this is a bug.
        unsafe { object.add(56).write(0) };
        realloc(object, 56, 1000);
    }),
    ("overflow_of_a_thread_that_is_gone", OVERFLOW, " (class 48)", || {
        let (send, receive) = std::sync::mpsc::channel();
        in_a_thread(move || {
            let object = alloc(40);
            // SAFETY: none, this is a bug.
            unsafe { object.add(40).write(7) };
            send.send(object.expose_provenance()).unwrap();
        });
        let object = ptr::with_exposed_provenance_mut(receive.recv().unwrap());
        announce(object);
        free(object, 40);
    }),
    ("first_byte_after_free", WRITTEN, " (class 32)", || write_after_free(20, 0)),
    ("last_byte_after_free", WRITTEN, " (class 128)", || write_after_free(120, 119)),
    ("any_byte_after_free", WRITTEN, " (class 4096)", || write_after_free(4000, 2345)),
    ("any_byte_of_the_largest_slot", WRITTEN, " (class 32768)", || {
        write_after_free(32_000, 12_345)
    }),
    ("written_after_another_thread_freed", WRITTEN, " (class 80)", || {
        let object = alloc(72);
        announce(object);
        let address = object.expose_provenance();
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 72));
        // SAFETY: none, this is a bug.
        unsafe { object.add(8).write(1) };
        for _ in 0..10_000 {
            alloc(72);
        }
    }),
    ("small_twice", DOUBLE, " (class 80)", || bugs::twice(64)),
    ("twice_with_others_between", DOUBLE, " (class 4864)", || {
        bugs::twice_with_another_between(4096)
    }),
    ("tiny_twice", DOUBLE, " (class 10)", || bugs::twice(1)),
    ("large_twice", DOUBLE, "", || bugs::twice(100_000)),
    ("here_and_in_another_thread", DOUBLE, " (class 256)", || {
        bugs::here_and_in_another_thread(248)
    }),
    ("in_another_thread_and_here", DOUBLE, " (class 256)", || {
        bugs::in_another_thread_and_here(248)
    }),
    ("in_two_other_threads", DOUBLE, " (class 256)", || bugs::in_two_other_threads(248)),
    ("in_a_thread_that_is_gone", DOUBLE, " (class 48)", || bugs::in_a_thread_that_is_gone(40)),
    ("of_the_stack", FOREIGN, "", || bugs::of_the_stack(64)),
    ("of_a_static", FOREIGN, "", || free_wrongly(bugs::of_a_static(), 504)),
    ("with_high_bits", FOREIGN, "", || free_wrongly(bugs::with_high_bits(alloc(64)), 64)),
    ("of_another_heap", FOREIGN, "", || free_wrongly(spanalloc::checked::alloc(64, 8), 64)),
    ("inside_an_object", NO_START, " (class 80)", || free_wrongly(alloc(64).wrapping_add(8), 64)),
    ("a_page_inside", NO_START, "", || free_wrongly(alloc(100_000).wrapping_add(8192), 100_000)),
    ("of_another_class", MISMATCH, " (class 80)", || free_wrongly(alloc(64), 128)),
    ("of_other_pages", MISMATCH, "", || free_wrongly(alloc(100_000), 200_000)),
    ("small_as_large", MISMATCH, " (class 80)", || free_wrongly(alloc(64), 40_000)),
];

/// Children that do nothing wrong but one: they say where the heap is, or touch what stands behind an object.
const OTHERS: &[Bug] = &[
    ("places", "", "", || {
        let (small, large) = (alloc(100), alloc(1 << 20));
        println!("places={} {}", small.addr() >> 26, large.addr() >> 26);
    }),
    ("guard_of_a_large_object", "", "", || {
        let object = alloc(40_000);
        // SAFETY: none, this is a bug: the page behind the object's.
        unsafe { object.add(40_960).write(1) };
    }),
];

#[test]
fn child() {
    if OTHERS.iter().any(|other| job().is_some_and(|name| name == other.0)) {
        bugs::run_as_child(OTHERS);
    } else {
        bugs::run_as_child(BUGS);
    }
}

#[test]
fn every_bug_ends_the_process_with_one_exact_line() {
    bugs::assert_all_end_with_their_line(BUGS);
}

#[test]
fn behind_a_large_object_stands_a_guard() {
    let output = children::child("guard_of_a_large_object").output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
}

#[test]
fn no_two_processes_have_their_heaps_at_one_place() {
    let place = |_| {
        let mut command = children::child("places");
        // SAFETY: one call of the system, between fork and exec. Where it is refused, addresses are random
        // in any case.
        unsafe {
            command.pre_exec(|| {
                libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
                Ok(())
            });
        }
        let output = command.output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        out.lines().find_map(|line| line.split_once("places=")).unwrap().1.to_owned()
    };
    let places: HashSet<String> = (0..8).map(place).collect();
    // With 32 bits there are 16 places: no more than two of them come up once in 100,000 runs.
    let least = if usize::BITS == 32 { 3 } else { 8 };
    assert!(places.len() >= least, "{places:?}");
}
