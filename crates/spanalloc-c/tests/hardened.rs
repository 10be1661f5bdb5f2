//! The library with the feature `hardened`: what it finds besides, in programs with one bug each.
#![cfg(all(target_os = "linux", feature = "hardened"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use common::calls::{aligned_alloc, calloc, free, free_sized, malloc, realloc, usable_size};
use common::child as child_called;
use common::job::{job, say};
use common::limited::run;
use common::misuse::{AT_ONCE, all_right, announce, run_bug, said};

/// Writes `byte` to the first byte that the object does not have.
fn overflow(object: *mut u8, byte: u8) {
    announce(object);
    // SAFETY: none, this is a bug.
    unsafe { object.add(usable_size(object)).write(byte) };
}

/// Writes one byte to a free object, and allocates `size` bytes until its slot comes again.
fn write_after_free(object: *mut u8, at: usize, size: usize) {
    announce(object);
    free(object);
    // SAFETY: none, this is a bug.
    unsafe { object.add(at).write(1) };
    (0..10_000).for_each(|_| _ = malloc(size));
}

/// Name, what the line says before the address and after it, and the bug.
type Bug = (&'static str, &'static str, &'static str, fn());

const BUGS: &[Bug] = &[
    ("a zero too many", "heap overflow of", " (class 32)", || {
        let object = malloc(24);
        overflow(object, 0);
        free(object);
    }),
    ("found when it is resized", "heap overflow of", " (class 64)", || {
        let object = malloc(56);
        overflow(object, b'x');
        realloc(object, 1000);
    }),
    ("of an aligned object", "heap overflow of", " (class 512)", || {
        let object = aligned_alloc(256, 400);
        overflow(object, 0);
        free(object);
    }),
    ("found by a sized free", "heap overflow of", " (class 112)", || {
        let object = malloc(100);
        overflow(object, 0);
        free_sized(object, 100);
    }),
    ("written after it was freed", "write after free of", " (class 64)", || {
        write_after_free(malloc(50), 33, 50);
    }),
    ("written after realloc moved it", "write after free of", " (class 32)", || {
        let object = malloc(20);
        announce(object);
        assert_ne!(realloc(object, 5000), object);
        // SAFETY: none, this is a bug.
        unsafe { object.write(1) };
        (0..10_000).for_each(|_| _ = malloc(20));
    }),
    ("freed twice", "double free of", " (class 80)", || {
        let object = malloc(64);
        announce(object);
        free(object);
        free(object);
    }),
];

#[test]
fn child() {
    let Some(name) = job() else { return };
    if name == "zeroes" {
        for _ in 0..2000 {
            let object = malloc(200);
            let usable = usable_size(object);
            // SAFETY: the object has so many bytes.
            unsafe {
                assert!((0..usable).all(|at| *object.add(at) == 0), "what is handed out is zero");
                object.write_bytes(0xff, usable);
            }
            free(object);
            let object = calloc(20, 10);
            // SAFETY: as above.
            unsafe { assert!((0..200).all(|at| *object.add(at) == 0)) };
            free(object);
        }
    } else {
        BUGS.iter().find(|bug| bug.0 == name).unwrap().3();
    }
    say("survived", 1);
}

#[test]
fn every_bug_ends_the_process_with_one_line() {
    let wrong = BUGS.iter().filter_map(|(name, before, after, _)| {
        run_bug(&mut child_called(name), &[(before, after)]).map(|why| format!("{name}: {why}"))
    });
    all_right(&wrong.collect::<Vec<_>>(), BUGS.len());
}

#[test]
fn a_program_without_bugs_finds_zeroes() {
    let ended = run(&mut child_called("zeroes"), AT_ONCE);
    assert!(ended.status.success() && said(&ended, "survived").is_some(), "{ended:?}");
}
