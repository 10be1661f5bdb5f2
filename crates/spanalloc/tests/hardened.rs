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

use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashSet;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::ptr;
use std::sync::mpsc::sync_channel;

use bugs::{Bug, CHILD, announce};
use proptest::prelude::*;
use spanalloc::{Hardened, hardened};
use spanalloc_testkit::{Global, Mix, operations, pattern, run};

#[global_allocator]
static ALLOCATOR: Hardened = Hardened;

/// One cache: the calling thread's.
const MIX: Mix = Mix::new().caches(1);

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_thread(operations in operations(MIX, 0..200)) {
        let result = run(Global(ALLOCATOR), &operations);
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn new_threads(lists in prop::collection::vec(operations(MIX, 0..100), 2..4)) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = lists
                .iter()
                .map(|list| scope.spawn(move || run(Global(ALLOCATOR), list)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for result in results {
            prop_assert!(result.is_ok(), "{:?}", result);
        }
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

fn alloc(size: usize) -> *mut u8 {
    // SAFETY: the allocator serves every layout.
    let object = unsafe { ALLOCATOR.alloc(layout(size)) };
    assert!(!object.is_null());
    object
}

/// Frees, rightly or wrongly.
fn free(object: *mut u8, size: usize) {
    // SAFETY: none, where a bug is planted.
    unsafe { ALLOCATOR.dealloc(object, layout(size)) };
}

/// Sizes of small and large objects; those that only just fit a slot with its canary, and those that do not.
const SIZES: [usize; 12] = [0, 1, 8, 9, 24, 100, 1000, 1016, 5000, 32_760, 32_761, 100_000];

#[test]
fn objects_of_one_thread_are_freed_by_another() {
    const OBJECTS: usize = if cfg!(debug_assertions) { 20_000 } else { 400_000 };
    let (send, receive) = sync_channel::<(usize, usize)>(500);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..OBJECTS {
                let size = SIZES[number * 7 % SIZES.len()].min(3000);
                let object = alloc(size);
                // SAFETY: the object has this size and is this thread's.
                unsafe { pattern::fill(object, 0, size, number as u64) };
                send.send((object.expose_provenance(), size)).unwrap();
            }
        });
        scope.spawn(move || {
            for (number, (address, size)) in receive.iter().enumerate() {
                let object = ptr::with_exposed_provenance_mut(address);
                // SAFETY: the object has this size and is this thread's now.
                unsafe { pattern::check(object, size, number as u64).unwrap() };
                free(object, size);
            }
        });
    });
}

#[test]
fn all_bytes_that_an_object_says_it_has_may_be_used_and_it_can_be_resized() {
    for size in SIZES {
        let size = size.max(1);
        let object = hardened::alloc(size, 16);
        // SAFETY: the object is this test's; what is written lies in its usable bytes.
        unsafe {
            let usable = hardened::usable_size(object);
            assert!(usable >= size && object.addr() % 16 == 0, "{size}: {usable}");
            object.write_bytes(9, usable);
            pattern::fill(object, 0, size, 3);
            let same = hardened::realloc(object, usable, 16);
            assert_eq!(same, object, "{size}: all of {usable} bytes were there already");
            let larger = hardened::realloc(object, 3 * usable + 100, 16);
            pattern::check(larger, size, 3).unwrap();
            let smaller = hardened::realloc(larger, size.div_ceil(2), 16);
            pattern::check(smaller, size.div_ceil(2), 3).unwrap();
            assert!(hardened::realloc(smaller, usize::MAX / 2, 16).is_null());
            pattern::check(smaller, size.div_ceil(2), 3).unwrap();
            hardened::free_sized(smaller, size.div_ceil(2), 16);
        }
    }
    assert!(
        hardened::alloc(usize::MAX, 16).is_null() && hardened::alloc(usize::MAX - 8, 8).is_null()
    );
}

#[test]
fn what_is_handed_out_is_zero() {
    for size in SIZES {
        for zeroed in [false, true] {
            let objects: Vec<_> = (0..200).map(|_| alloc(size)).collect();
            for object in objects {
                // SAFETY: the object has this size.
                unsafe { object.write_bytes(0xff, size) };
                free(object, size);
            }
            // Large objects are only zero if that is asked for.
            if !zeroed && size > 32_760 {
                continue;
            }
            for _ in 0..300 {
                // SAFETY: the allocator serves every layout; the object has this size.
                let bytes = unsafe {
                    let object = if zeroed {
                        ALLOCATOR.alloc_zeroed(layout(size))
                    } else {
                        ALLOCATOR.alloc(layout(size))
                    };
                    std::slice::from_raw_parts_mut(object, size)
                };
                assert!(bytes.iter().all(|byte| *byte == 0), "{size}");
                bytes.fill(0xee);
                free(bytes.as_mut_ptr(), size);
            }
        }
    }
}

fn in_a_thread(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body).join().unwrap();
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
        unsafe {
            object.add(56).write(0);
            let _ = ALLOCATOR.realloc(object, layout(56), 1000);
        }
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
    ("small_twice", "double free of", " (class 80)", || {
        let object = alloc(64);
        announce(object);
        free(object, 64);
        free(object, 64);
    }),
    ("large_twice", "double free of", "", || {
        let object = alloc(100_000);
        announce(object);
        free(object, 100_000);
        free(object, 100_000);
    }),
    ("here_and_in_another_thread", "double free of", " (class 256)", || {
        let object = alloc(248);
        announce(object);
        free(object, 248);
        let address = object.expose_provenance();
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 248));
    }),
    ("in_another_thread_and_here", "double free of", " (class 256)", || {
        let object = alloc(248);
        announce(object);
        let address = object.expose_provenance();
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 248));
        free(object, 248);
    }),
    ("in_two_other_threads", "double free of", " (class 256)", || {
        let object = alloc(248);
        announce(object);
        let address = object.expose_provenance();
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 248));
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 248));
    }),
    ("of_the_stack", "foreign pointer", "", || {
        let mut local = [0_u8; 64];
        announce(local.as_mut_ptr());
        free(local.as_mut_ptr(), 64);
    }),
    ("of_another_heap", "foreign pointer", "", || {
        let object = spanalloc::checked::alloc(64, 8);
        announce(object);
        free(object, 64);
    }),
    ("inside_an_object", "not an object start", " (class 80)", || {
        let object = alloc(64).wrapping_add(8);
        announce(object);
        free(object, 64);
    }),
    ("of_another_class", "size mismatch at", " (class 80)", || {
        let object = alloc(64);
        announce(object);
        free(object, 128);
    }),
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
    if OTHERS.iter().any(|other| std::env::var(CHILD).is_ok_and(|name| name == other.0)) {
        bugs::run_as_child(OTHERS);
    } else {
        bugs::run_as_child(BUGS);
    }
}

#[test]
fn every_bug_ends_the_process_with_one_exact_line() {
    bugs::assert_all_end_with_their_line(BUGS);
}

/// This test binary again, as the child called `name`.
fn other(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CHILD, name);
    command
}

#[test]
fn behind_a_large_object_stands_a_guard() {
    let output = other("guard_of_a_large_object").output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
}

#[test]
fn no_two_processes_have_their_heaps_at_one_place() {
    let place = |_| {
        let mut command = other("places");
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
    assert_eq!(places.len(), 8, "{places:?}");
}
