//! Absurd and unusual requests: each has its defined answer, and the heap works on.
//!
//! The rows run in children under the library, several assertions each.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::ptr;

use common::calls::{
    aligned_alloc, calloc, errno, free, free_aligned_sized, free_sized, malloc, malloc_trim,
    memalign, posix_memalign, pvalloc, realloc, reallocarray, set_errno, usable_size, valloc,
    with_errno,
};
use common::job::job;
use libc::{EINVAL, ENOMEM};

/// The first size that no object may have.
const TOO_MUCH: usize = isize::MAX as usize + 1;
/// The largest alignment tried.
const LARGEST_ALIGN: usize = 64 << 20;
/// The largest size of a size class.
const LARGEST_CLASS: usize = 32 << 10;
const MB: usize = 1 << 20;

/// The sizes up to the largest class: all of them if the library is optimized, else every border
/// of a class and some others.
fn small_sizes() -> impl Iterator<Item = usize> {
    let thin = |size: &usize| *size < 66 || size % if *size < 1100 { 16 } else { 128 } < 2;
    (0..=LARGEST_CLASS).filter(move |size| !cfg!(debug_assertions) || thin(size))
}

/// The powers of two from `least` to `LARGEST_ALIGN`.
fn aligns(least: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(least), |align| Some(align * 2)).take_while(|a| *a <= LARGEST_ALIGN)
}

fn filled(object: *mut u8, size: usize, byte: u8) -> *mut u8 {
    assert!(!object.is_null());
    // SAFETY: the object has this size.
    unsafe { object.write_bytes(byte, size) };
    object
}

fn holds(object: *mut u8, size: usize, byte: u8) -> bool {
    // SAFETY: the object has this size and was written to.
    let bytes = unsafe { std::slice::from_raw_parts(object, size) };
    // Compared with itself, one further, by the C library's own fast loop.
    size == 0 || bytes[0] == byte && bytes[1..] == bytes[..size - 1]
}

fn good(object: *mut u8, size: usize, align: usize) {
    assert!(!object.is_null(), "{size} aligned to {align}");
    assert_eq!(object.addr() % align, 0, "{size} aligned to {align}");
    let usable = usable_size(object);
    assert!(usable >= size.max(1), "{usable} bytes usable for {size} aligned to {align}");
}

/// The call is refused with ENOMEM, and the next request is served.
fn refused(call: impl FnOnce() -> *mut u8) {
    assert_eq!(with_errno(call), (ptr::null_mut(), ENOMEM));
    let object = malloc(16);
    good(object, 16, 16);
    free(filled(object, 16, 1));
}

fn invalid(call: impl FnOnce() -> *mut u8) {
    assert_eq!(with_errno(call), (ptr::null_mut(), EINVAL));
}

/// What a child checks, by name.
const ROWS: &[(&str, fn())] = &[
    ("malloc_of_0_is_an_object_of_its_own", || {
        let (one, two) = (malloc(0), malloc(0));
        assert!(!one.is_null() && !two.is_null() && one != two);
        free(one);
        free(two);
    }),
    ("malloc_of_more_than_there_can_be_is_refused", || {
        for size in [TOO_MUCH, TOO_MUCH + 1, usize::MAX / 4 * 3, 1 << 50, 1 << 62] {
            refused(|| malloc(size));
            refused(|| calloc(1, size));
            refused(|| realloc(ptr::null_mut(), size));
            refused(|| memalign(64, size));
            refused(|| aligned_alloc(4096, size));
        }
        for less in 0..=1 << 14 {
            assert_eq!(with_errno(|| malloc(usize::MAX - less)), (ptr::null_mut(), ENOMEM));
        }
        for page in 0..=40 {
            assert_eq!(with_errno(|| malloc(TOO_MUCH - page * 4096)), (ptr::null_mut(), ENOMEM));
        }
        refused(|| malloc(usize::MAX));
    }),
    ("calloc_of_a_product_that_overflows_is_refused", || {
        refused(|| calloc(usize::MAX / 2 + 1, 2));
        refused(|| calloc(1 << 32, 1 << 32));
        refused(|| calloc(1 << 33, 1 << 31));
        refused(|| calloc(usize::MAX, usize::MAX));
        refused(|| calloc((1 << 32) + 1, 1 << 32));
    }),
    ("calloc_of_nothing_is_an_object", || {
        for (count, size) in [(0, 0), (0, 8), (8, 0), (0, usize::MAX), (usize::MAX, 0)] {
            let object = calloc(count, size);
            good(object, 0, 16);
            free(object);
        }
    }),
    ("calloc_is_zero_where_there_was_dirt", || {
        let sizes =
            (1..=LARGEST_CLASS).filter(|size| size % 16 == 0 && (*size < 1024 || size % 512 == 0));
        for size in sizes.chain([40_000, 65_536, 100_000, 1 << 20, 5 << 20]) {
            let count = (1 << 20) / size + 1;
            for round in 0..2 {
                let dirty: Vec<_> = (0..count.min(300)).map(|_| malloc(size)).collect();
                dirty.iter().for_each(|object| free(filled(*object, usable_size(*object), 0xa5)));
                if round == 1 {
                    malloc_trim();
                }
                let clean: Vec<_> = dirty.iter().map(|_| calloc(1, size)).collect();
                assert!(clean.iter().all(|object| holds(*object, size, 0)), "{size} bytes");
                clean.into_iter().for_each(free);
            }
        }
    }),
    ("realloc_of_null_is_malloc", || {
        for size in [0, 1, 100, 10_000, 100_000] {
            let object = realloc(ptr::null_mut(), size);
            good(object, size, 16);
            free(filled(object, size, 3));
        }
        refused(|| realloc(ptr::null_mut(), TOO_MUCH));
    }),
    ("realloc_to_0_frees", || {
        for size in [0, 8, 4096, 100_000] {
            let object = malloc(size);
            assert_eq!(with_errno(|| realloc(object, 0)), (ptr::null_mut(), 0));
        }
        let object = malloc(100);
        assert_eq!(reallocarray(object, 0, 10), ptr::null_mut());
        // The slot is free: it comes again before many others do.
        let others: Vec<_> = (0..10_000).map(|_| malloc(100)).collect();
        assert!(others.contains(&object));
        others.into_iter().for_each(free);
    }),
    ("a_refused_realloc_leaves_the_object", || {
        for size in [1, 100, 4096, 100_000] {
            let object = filled(malloc(size), size, 0x5a);
            for new_size in [TOO_MUCH, usize::MAX, usize::MAX - 4096, 1 << 50] {
                refused(|| realloc(object, new_size));
            }
            refused(|| reallocarray(object, usize::MAX / 2 + 1, 2));
            refused(|| reallocarray(object, 1 << 32, 1 << 32));
            assert!(holds(object, size, 0x5a));
            let object = realloc(object, size + 1);
            assert!(holds(object, size, 0x5a));
            free(object);
        }
    }),
    ("realloc_keeps_what_both_sizes_have", || {
        let mut object = malloc(100);
        for (index, byte) in (0..100).zip(1..) {
            // SAFETY: the object has 100 bytes.
            unsafe { object.add(index).write(byte) };
        }
        let mut kept = 100;
        for size in [8 << 20, 50, 5000, 40_000, 33_000, 64 << 20, 32_768, 17, 1 << 20, 20] {
            kept = kept.min(size);
            object = realloc(object, size);
            good(object, size, 16);
            // SAFETY: the object has at least `kept` bytes, and as many were written.
            let bytes = unsafe { std::slice::from_raw_parts(object, kept) };
            assert!(
                bytes.iter().zip(1..).all(|(byte, expected)| *byte == expected),
                "{size} bytes"
            );
        }
        free(object);
    }),
    ("a_resized_large_object_is_all_the_programs", || {
        let neighbours: [_; 4] = std::array::from_fn(|_| malloc(100 << 10));
        let mut large: [_; 4] = std::array::from_fn(|_| filled(malloc(MB), MB, 1));
        let sizes = (0..200).map(|step| (step * step * 7919) % (2 * MB) + 40_000);
        for (step, size) in sizes.chain([MB - 1, MB, MB + 1, 131_071, 131_072, 131_073]).enumerate()
        {
            let object = &mut large[step % 4];
            let kept = usable_size(*object).min(size);
            *object = realloc(*object, size);
            good(*object, size, 16);
            assert!(holds(*object, kept, 1), "{size} bytes");
            filled(*object, usable_size(*object), 1);
            for object in neighbours {
                filled(object, usable_size(object), 2);
            }
            let clean = calloc(1, size);
            assert!(holds(clean, size, 0), "{size} bytes");
            free(filled(clean, usable_size(clean), 3));
        }
        large.into_iter().chain(neighbours).for_each(free);
    }),
    ("null_is_no_object", || {
        free(ptr::null_mut());
        free_sized(ptr::null_mut(), 0);
        free_sized(ptr::null_mut(), 100);
        free_aligned_sized(ptr::null_mut(), 64, 100);
        assert_eq!(usable_size(ptr::null_mut()), 0);
    }),
    ("a_free_with_the_right_size_frees", || {
        for size in (0..40_000).step_by(37).chain([1 << 20]) {
            free_sized(malloc(size), size);
            free_sized(calloc(1, size), size);
            for align in [16, 64, 4096] {
                let size = size.next_multiple_of(align);
                free_aligned_sized(aligned_alloc(align, size), align, size);
            }
        }
    }),
    ("free_leaves_errno_alone", || {
        for size in [8, 100, 4096, 32_768, 100_000, 1 << 20, 100 << 20] {
            let objects: Vec<_> = (0..if size > 1 << 20 { 2 } else { 200 })
                .map(|_| filled(malloc(size), size.min(8192), 1))
                .collect();
            let moved = realloc(filled(malloc(size), 8, 1), 4000);
            set_errno(4711);
            objects.into_iter().for_each(free);
            free_sized(malloc(size), size);
            free(realloc(moved, size));
            assert_eq!(errno(), 4711, "{size} bytes");
        }
        set_errno(4711);
        malloc_trim();
        assert_eq!(errno(), 4711);
    }),
    ("posix_memalign_refuses_what_is_no_alignment", || {
        let untouched = ptr::without_provenance_mut(0x1234);
        set_errno(4711);
        for align in [0, 1, 2, 3, 4, 6, 7, 9, 12, 24, 48, 4095, usize::MAX, TOO_MUCH + 8] {
            assert_eq!(posix_memalign(align, 100, untouched), (EINVAL, untouched), "{align}");
        }
        for (align, size) in [
            (16, TOO_MUCH),
            (8, usize::MAX),
            (TOO_MUCH, TOO_MUCH),
            (TOO_MUCH, 1),
            (1 << 50, 1 << 50),
        ] {
            assert_eq!(posix_memalign(align, size, untouched), (ENOMEM, untouched), "{align}");
        }
        assert_eq!(errno(), 4711, "the answer is returned, not left in errno");
    }),
    ("posix_memalign_serves_every_alignment", || {
        for align in aligns(8) {
            for size in [0, 1, align - 1, align, align + 1] {
                let (answer, object) = posix_memalign(align, size, ptr::null_mut());
                assert_eq!(answer, 0);
                good(object, size, align);
                free(filled(object, size.min(1 << 20), 1));
            }
        }
    }),
    ("aligned_alloc_refuses_what_is_no_alignment", || {
        for align in [0, 3, 6, 24, 65, 4095, usize::MAX] {
            invalid(|| aligned_alloc(align, 64));
        }
        refused(|| aligned_alloc(TOO_MUCH, 64));
        refused(|| aligned_alloc(64, TOO_MUCH));
    }),
    ("aligned_alloc_serves_sizes_that_are_no_multiple", || {
        for (align, size) in [(64, 10), (1, 1), (2, 3), (4096, 1), (4096, 5000), (1 << 20, 100)] {
            let object = aligned_alloc(align, size);
            good(object, size, align);
            free(filled(object, size, 1));
        }
    }),
    ("memalign_rounds_alignments_up", || {
        for (align, rounded, size) in
            [(3, 4, 100), (0, 1, 5), (24, 32, 8), (65, 128, 64), (4097, 8192, 1)]
        {
            let object = memalign(align, size);
            good(object, size, rounded.max(16));
            free(filled(object, size, 1));
        }
        invalid(|| memalign(usize::MAX / 2 + 2, 8));
        invalid(|| memalign(usize::MAX, 8));
        refused(|| memalign(TOO_MUCH, 8));
    }),
    ("valloc_and_pvalloc_give_whole_pages", || {
        for size in [0, 5, 4096, 4097, 100_000] {
            let object = valloc(size);
            good(object, size, 4096);
            free(filled(object, size, 1));
            let object = pvalloc(size);
            good(object, size.next_multiple_of(4096), 4096);
            assert!(usable_size(object) >= 4096 || size == 0);
            free(filled(object, size.next_multiple_of(4096), 1));
        }
        for size in [usize::MAX, usize::MAX - 4095, usize::MAX - 4094, TOO_MUCH] {
            refused(|| valloc(size));
            refused(|| pvalloc(size));
        }
    }),
    ("every_size_has_every_alignment", || {
        for align in aligns(1) {
            for size in small_sizes() {
                let object = memalign(align, size);
                good(object, size, align.max(16));
                // SAFETY: the object has at least one byte, and `size` of them.
                unsafe {
                    object.write(1);
                    object.add(size.saturating_sub(1)).write(2);
                }
                free(object);
            }
        }
    }),
    ("every_size_is_aligned_to_16", || {
        for size in small_sizes().chain([40_000, 100_000, 1 << 20]) {
            let objects: [_; 3] = std::array::from_fn(|_| malloc(size));
            objects.iter().for_each(|object| good(*object, size, 16));
            objects.into_iter().for_each(free);
        }
    }),
    ("every_usable_byte_is_the_programs", || {
        let more = [32_769, 40_000, 65_536, 65_537, 100_000, 1 << 20, 3 << 20];
        for size in small_sizes().chain(more) {
            let objects: [_; 4] = std::array::from_fn(|_| malloc(size));
            for (object, byte) in objects.iter().zip(1..) {
                filled(*object, usable_size(*object), byte);
            }
            for (object, byte) in objects.iter().zip(1..) {
                assert!(holds(*object, usable_size(*object), byte), "{size} bytes");
            }
            // They stay so when the object is told to use them.
            let usable = usable_size(objects[0]);
            assert_eq!(realloc(objects[0], usable), objects[0], "{size} bytes");
            assert!(holds(objects[0], usable, 1), "{size} bytes");
            objects.into_iter().for_each(free);
        }
    }),
];

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    let Some(name) = job() else { return };
    let row = ROWS.iter().find(|row| row.0 == name).unwrap();
    row.1();
}

#[test]
fn every_row_has_its_defined_answer() {
    let mut wrong = Vec::new();
    for (name, _) in ROWS {
        let ended = common::limited::run(common::child(name).env("RUST_BACKTRACE", "0"), 120);
        if !ended.status.success() || !ended.err.is_empty() {
            wrong.push(format!("{name}: {}\n{}", ended.status, ended.err));
        }
    }
    common::misuse::all_right(&wrong, ROWS.len());
}
