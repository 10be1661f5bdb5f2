//! What holds of every allocator that checks the program.
//!
//! The test that includes this names the module of the allocator's functions without Layouts `functions`, and
//! sizes of small and large objects `SIZES`.

use std::ptr;
use std::sync::mpsc::sync_channel;

use spanalloc_testkit::pattern;

use crate::objects::{alloc, alloc_zeroed, free};
use crate::{SIZES, functions};

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
        let object = functions::alloc(size, 16);
        // SAFETY: the object is this test's; what is written lies in its usable bytes.
        unsafe {
            let usable = functions::usable_size(object);
            assert!(usable >= size && object.addr() % 16 == 0, "{size}: {usable}");
            object.write_bytes(9, usable);
            pattern::fill(object, 0, size, 3);
            let same = functions::realloc(object, usable, 16);
            assert_eq!(same, object, "{size}: all of {usable} bytes were there already");
            let larger = functions::realloc(object, 3 * usable + 100, 16);
            pattern::check(larger, size, 3).unwrap();
            let smaller = functions::realloc(larger, size.div_ceil(2), 16);
            pattern::check(smaller, size.div_ceil(2), 3).unwrap();
            assert!(functions::realloc(smaller, usize::MAX / 2, 16).is_null());
            pattern::check(smaller, size.div_ceil(2), 3).unwrap();
            functions::free_sized(smaller, size.div_ceil(2), 16);
        }
    }
    assert!(functions::alloc(usize::MAX, 16).is_null());
    assert!(functions::alloc(usize::MAX - 8, 8).is_null());
}

#[test]
fn memory_is_zero_if_asked_for() {
    for size in SIZES {
        used_memory_is_zero(size, alloc_zeroed);
    }
}

/// Fills and frees objects of a size: others of that size that `get` makes hold nothing of it.
pub fn used_memory_is_zero(size: usize, get: fn(usize) -> *mut u8) {
    for goes_back in [false, true] {
        let objects: Vec<_> = (0..200).map(|_| alloc(size)).collect();
        for object in objects {
            // SAFETY: the object has this size.
            unsafe { object.write_bytes(0xff, size) };
            free(object, size);
        }
        if goes_back {
            functions::release();
        }
        for _ in 0..300 {
            // SAFETY: the object has this size.
            let bytes = unsafe { std::slice::from_raw_parts_mut(get(size), size) };
            assert!(bytes.iter().all(|byte| *byte == 0), "{size}");
            bytes.fill(0xee);
            free(bytes.as_mut_ptr(), size);
        }
    }
}

#[test]
fn memory_goes_back_to_the_system() {
    // Other tests of this process may be faster to give it back.
    let gives_back = (0..10).any(|_| {
        let large = alloc(64 << 20);
        // SAFETY: the object has this size.
        unsafe { large.write_bytes(1, 64 << 20) };
        free(large, 64 << 20);
        functions::release() >= 60 << 20
    });
    assert!(gives_back);
    let snapshot = functions::snapshot();
    assert!(snapshot.live_objects() > 0 && snapshot.pages.reserved >= 64 << 20);
}
