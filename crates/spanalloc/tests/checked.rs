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

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::mpsc::sync_channel;

use bugs::{Bug, announce};
use proptest::prelude::*;
use spanalloc::{Checked, checked};
use spanalloc_testkit::amount::{config, config_of, length};
use spanalloc_testkit::{Forking, Global, Mix, Threads, operations, pattern, run};

#[global_allocator]
static ALLOCATOR: Checked = Checked;

/// One cache: the calling thread's.
const MIX: Mix = Mix::new().caches(1);

fn give_back(_most: usize) {
    checked::release();
}

proptest! {
    #![proptest_config(config())]

    /// Children are made while the threads of the other tests are inside the allocator.
    #[test]
    fn one_thread(operations in operations(MIX.forks(1), length())) {
        let result = run(Forking(Global(ALLOCATOR)), &operations);
        prop_assert!(result.is_ok(), "{:?}", result);
    }

    /// A child has the objects of threads that it does not have.
    #[test]
    fn threads_by_turns(operations in operations(Mix::new().scavenges(2).forks(1), length())) {
        let result = run(Threads::new(ALLOCATOR, 3, give_back).unwrap(), &operations);
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}

proptest! {
    #![proptest_config(config_of(64))]

    #[test]
    fn new_threads(lists in prop::collection::vec(operations(MIX, length()), 2..4)) {
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

/// Sizes of small and large objects.
const SIZES: [usize; 8] = [1, 16, 24, 100, 1000, 5000, 32_768, 100_000];

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
fn an_object_tells_how_much_of_it_may_be_used_and_can_be_resized() {
    for size in SIZES {
        let object = checked::alloc(size, 16);
        // SAFETY: the object is this test's; what is written lies in its usable bytes.
        unsafe {
            let usable = checked::usable_size(object);
            assert!(usable >= size && object.addr() % 16 == 0, "{size}: {usable}");
            object.write_bytes(9, usable);
            pattern::fill(object, 0, size, 3);
            let same = checked::realloc(object, usable, 16);
            assert_eq!(same, object, "{size}: all of {usable} bytes were there already");
            let larger = checked::realloc(object, 3 * usable + 100, 16);
            pattern::check(larger, size, 3).unwrap();
            let smaller = checked::realloc(larger, size.div_ceil(2), 16);
            pattern::check(smaller, size.div_ceil(2), 3).unwrap();
            assert!(checked::realloc(smaller, usize::MAX / 2, 16).is_null());
            pattern::check(smaller, size.div_ceil(2), 3).unwrap();
            checked::free_sized(smaller, size.div_ceil(2), 16);
        }
    }
}

#[test]
fn fresh_memory_is_zero_and_so_is_used_memory_if_asked_for() {
    for (size, goes_back) in SIZES.into_iter().flat_map(|size| [(size, false), (size, true)]) {
        let objects: Vec<_> = (0..200).map(|_| alloc(size)).collect();
        for object in objects {
            // SAFETY: the object has this size.
            unsafe { object.write_bytes(0xff, size) };
            free(object, size);
        }
        if goes_back {
            checked::release();
        }
        for _ in 0..300 {
            // SAFETY: the allocator serves every layout; the object has this size.
            let bytes = unsafe {
                let object = ALLOCATOR.alloc_zeroed(layout(size));
                std::slice::from_raw_parts_mut(object, size)
            };
            assert!(bytes.iter().all(|byte| *byte == 0), "{size}");
            bytes.fill(0xee);
            free(bytes.as_mut_ptr(), size);
        }
    }
}

#[test]
fn memory_goes_back_to_the_system() {
    let large = alloc(64 << 20);
    // SAFETY: the object has this size.
    unsafe { large.write_bytes(1, 64 << 20) };
    free(large, 64 << 20);
    assert!(checked::release() >= 60 << 20);
    let snapshot = checked::snapshot();
    assert!(snapshot.live_objects() > 0 && snapshot.pages.reserved >= 64 << 20);
}

static ON_NO_HEAP: [u64; 64] = [0; 64];

fn in_a_thread(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body).join().unwrap();
}

const BUGS: &[Bug] = &[
    ("small_twice", "double free of", " (class 64)", || {
        let object = alloc(64);
        announce(object);
        free(object, 64);
        free(object, 64);
    }),
    ("twice_with_others_between", "double free of", " (class 4096)", || {
        let (one, two) = (alloc(4096), alloc(4096));
        announce(one);
        free(one, 4096);
        free(two, 4096);
        free(one, 4096);
    }),
    ("tiny_twice", "double free of", " (class 4)", || {
        let object = alloc(1);
        announce(object);
        free(object, 1);
        free(object, 1);
    }),
    ("large_twice", "double free of", "", || {
        let object = alloc(100_000);
        announce(object);
        free(object, 100_000);
        free(object, 100_000);
    }),
    ("here_and_in_another_thread", "double free of", " (class 256)", || {
        let object = alloc(256);
        announce(object);
        free(object, 256);
        let address = object.expose_provenance();
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 256));
    }),
    ("in_another_thread_and_here", "double free of", " (class 256)", || {
        let object = alloc(256);
        announce(object);
        let address = object.expose_provenance();
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 256));
        free(object, 256);
    }),
    ("in_two_other_threads", "double free of", " (class 256)", || {
        let object = alloc(256);
        announce(object);
        let address = object.expose_provenance();
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 256));
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 256));
    }),
    ("in_a_thread_that_is_gone", "double free of", " (class 48)", || {
        let (send, receive) = std::sync::mpsc::channel();
        in_a_thread(move || {
            let object = alloc(48);
            // Something else keeps the span from going back to the heap.
            let other = alloc(48);
            free(object, 48);
            send.send((object.expose_provenance(), other.expose_provenance())).unwrap();
        });
        let (object, _) = receive.recv().unwrap();
        announce(ptr::with_exposed_provenance_mut(object));
        free(ptr::with_exposed_provenance_mut(object), 48);
    }),
    ("of_the_stack", "foreign pointer", "", || {
        let mut local = [0_u8; 64];
        announce(local.as_mut_ptr());
        free(local.as_mut_ptr(), 64);
    }),
    ("of_a_static", "foreign pointer", "", || {
        let object = ON_NO_HEAP.as_ptr().cast_mut().cast();
        announce(object);
        free(object, 512);
    }),
    ("with_high_bits", "foreign pointer", "", || {
        let object = alloc(64).map_addr(|address| address | usize::MAX << (usize::BITS - 16));
        announce(object);
        free(object, 64);
    }),
    ("inside_an_object", "not an object start", " (class 64)", || {
        let object = alloc(64).wrapping_add(8);
        announce(object);
        free(object, 64);
    }),
    ("never_handed_out", "not an object start", " (class 9472)", || {
        let object = alloc(9000).wrapping_add(9472);
        announce(object);
        free(object, 9000);
    }),
    ("a_page_inside", "not an object start", "", || {
        let object = alloc(100_000).wrapping_add(8192);
        announce(object);
        free(object, 100_000);
    }),
    ("of_another_class", "size mismatch at", " (class 64)", || {
        let object = alloc(64);
        announce(object);
        free(object, 128);
    }),
    ("of_a_larger_alignment", "size mismatch at", " (class 48)", || {
        let object = alloc(48);
        announce(object);
        // SAFETY: none, this is a bug.
        unsafe { ALLOCATOR.dealloc(object, Layout::from_size_align(48, 64).unwrap()) };
    }),
    ("of_other_pages", "size mismatch at", "", || {
        let object = alloc(100_000);
        announce(object);
        free(object, 200_000);
    }),
    ("small_as_large", "size mismatch at", " (class 64)", || {
        let object = alloc(64);
        announce(object);
        free(object, 40_000);
    }),
    ("realloc_of_a_free_object", "double free of", " (class 64)", || {
        let object = alloc(64);
        announce(object);
        free(object, 64);
        // SAFETY: none, this is a bug.
        unsafe { ALLOCATOR.realloc(object, layout(64), 100) };
    }),
    ("realloc_as_another_class", "size mismatch at", " (class 64)", || {
        let object = alloc(64);
        announce(object);
        // SAFETY: none, this is a bug.
        unsafe { ALLOCATOR.realloc(object, layout(100), 64) };
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
