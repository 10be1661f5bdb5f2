//! Layouts that make no sense, and the end of memory: null, and then on as before.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/children.rs"]
mod children;

use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashSet;
use std::ptr;

use children::job;
use spanalloc::Spanalloc;
use spanalloc_testkit::{Global, Mix, operations, pattern, run};

#[global_allocator]
static ALLOCATOR: Spanalloc = Spanalloc;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// A layout that may break the contract of the type: its size is any number.
fn absurd(size: usize, align: usize) -> Layout {
    let valid = Layout::from_size_align(3, align).unwrap();
    // SAFETY: two words; which is which is looked up below.
    let mut words: [usize; 2] = unsafe { std::mem::transmute(valid) };
    let place = words.iter().position(|word| *word == 3).unwrap();
    words[place] = size;
    // SAFETY: the word of the alignment is the one of a valid layout, and the size is a plain
    // number to the language. That it is absurd is the point: the allocator only reads it.
    let layout: Layout = unsafe { std::mem::transmute(words) };
    assert_eq!((layout.size(), layout.align()), (size, align));
    layout
}

#[test]
fn objects_of_no_size() {
    for log2 in 0..=20 {
        let layout = layout(0, 1 << log2);
        let mut addresses = HashSet::new();
        // SAFETY: this allocator serves a size of 0 as 1; objects are freed with their layout.
        unsafe {
            let objects: Vec<_> = (0..20).map(|_| ALLOCATOR.alloc(layout)).collect();
            for object in &objects {
                assert!(!object.is_null());
                assert_eq!(object.addr() % layout.align(), 0);
                assert!(addresses.insert(object.addr()), "{object:?} was handed out twice");
            }
            for object in objects {
                ALLOCATOR.dealloc(object, layout);
            }
            let object = ALLOCATOR.alloc_zeroed(layout);
            assert!(!object.is_null());
            let grown = ALLOCATOR.realloc(object, layout, 100);
            assert!(!grown.is_null());
            pattern::fill(grown, 0, 100, 1);
            let shrunk =
                ALLOCATOR.realloc(grown, Layout::from_size_align(100, 1 << log2).unwrap(), 0);
            assert!(!shrunk.is_null());
            ALLOCATOR.dealloc(shrunk, layout);
        }
    }
}

#[test]
fn sizes_beyond_all_memory() {
    let sizes = [
        isize::MAX as usize,
        isize::MAX as usize - 7,
        isize::MAX as usize + 1,
        usize::MAX - (1 << 14),
        usize::MAX - 8192,
        usize::MAX - 4095,
        usize::MAX - 7,
        usize::MAX,
    ];
    // Sizes that an address may have and no memory has: with 64 bits.
    let wide = [1 << 50, (1 << 42) + 1, 1 << 46, (1 << 45) + 1, (1 << 32) * 8192 + 1_u64];
    let wide = wide.into_iter().filter_map(|size| usize::try_from(size).ok());
    for size in sizes.into_iter().chain(wide) {
        for log2 in [0, 3, 4, 12, 13, 16, 26, 29, usize::BITS - 2] {
            let align = 1 << log2;
            // SAFETY: the allocator only reads the two numbers.
            unsafe {
                let layout = absurd(size, align);
                assert!(ALLOCATOR.alloc(layout).is_null(), "{size:#x} {align:#x}");
                assert!(ALLOCATOR.alloc_zeroed(layout).is_null(), "{size:#x} {align:#x}");
            }
        }
        for old in [3, 100, 5000, 100_000] {
            let layout = layout(old, 8);
            // SAFETY: the object is freed with its layout; the new size breaks the contract, which
            // is the point.
            unsafe {
                let object = ALLOCATOR.alloc(layout);
                pattern::fill(object, 0, old, 9);
                assert!(ALLOCATOR.realloc(object, layout, size).is_null(), "{old} to {size:#x}");
                pattern::check(object, old, 9).unwrap();
                ALLOCATOR.dealloc(object, layout);
            }
        }
    }
    let works: Box<[u8]> = Box::new([1_u8; 16]);
    assert_eq!(works.len(), 16);
}

#[test]
fn alignments_beyond_all_need() {
    let all = [(1, 29), (0, 29), (100_000, 28), (1, 30), (1, 42), (1, 46), (1, 47), (1, 62)];
    // No layout has an alignment that an address has no bit for.
    for (size, log2) in all.into_iter().filter(|(_, log2)| *log2 < usize::BITS) {
        let layout = layout(size, 1 << log2);
        // SAFETY: the object is used within its size and freed with its layout.
        unsafe {
            let object = ALLOCATOR.alloc(layout);
            assert_eq!(object.is_null(), log2 > 30, "2^{log2}");
            if !object.is_null() {
                assert_eq!(object.addr() % layout.align(), 0);
                pattern::fill(object, 0, size, 4);
                pattern::check(object, size, 4).unwrap();
                ALLOCATOR.dealloc(object, layout);
            }
        }
    }
}

#[test]
fn zeroed_memory_that_went_back_to_the_system_dirty() {
    for (size, count) in
        [(1, 5000), (24, 5000), (1000, 500), (9000, 200), (100_000, 50), (6 << 20, 3)]
    {
        let layout = layout(size, 8);
        // SAFETY: objects are used within their size and freed with their layout.
        unsafe {
            for _ in 0..2 {
                let dirty: Vec<_> = (0..count).map(|_| ALLOCATOR.alloc(layout)).collect();
                for object in &dirty {
                    object.write_bytes(0xa5, size);
                }
                dirty.into_iter().for_each(|object| ALLOCATOR.dealloc(object, layout));
                spanalloc::background::release();
                let clean: Vec<_> = (0..count).map(|_| ALLOCATOR.alloc_zeroed(layout)).collect();
                for object in clean {
                    pattern::check_zero(object, size).unwrap();
                    ALLOCATOR.dealloc(object, layout);
                }
            }
        }
    }
}

/// The same operations that the layers below are tested with, on the whole.
#[test]
fn random_operations_on_the_program_s_heap() {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    let config = ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() };
    let strategy = operations(Mix::new().caches(1).max_align(1 << 26), 1..150);
    TestRunner::new(config)
        .run(&strategy, |operations| {
            run(Global(Spanalloc), &operations)
                .map(|_| ())
                .map_err(|failure| TestCaseError::fail(failure.to_string()))
        })
        .unwrap();
}

/// Bytes of address space that a child may have.
const LIMIT: libc::rlim_t = 160 << 20;

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    if job().is_none() {
        return;
    }
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: the limit is valid for reading.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    for round in 0..3 {
        for (size, align) in
            [(48, 8), (200, 8), (1000, 16), (9000, 8), (30_000, 8), (1 << 20, 4096)]
        {
            let count = exhaust(layout(size, align));
            // Pages that became metadata, when the system had no more to give, lie between the others:
            // they are in the way of long runs only.
            let least = if size < 1 << 20 { 40 << 20 } else { 2 << 20 };
            assert!(count * size >= least, "round {round}: {count} objects of {size}");
        }
    }
    let snapshot = spanalloc::stats::snapshot();
    assert!(snapshot.adds_up(), "{snapshot:?}");
    assert!(snapshot.live_objects() < 5000, "{}", snapshot.live_objects());
    let works: String = "as before ".repeat(100_000);
    assert_eq!(works.len(), 1_000_000);
}

/// Allocates until there is no more memory, frees everything, and says how much it was. The objects
/// are chained through their first words: nothing else can be allocated meanwhile.
fn exhaust(layout: Layout) -> usize {
    let (mut first, mut count) = (ptr::null_mut::<u8>(), 0_usize);
    // SAFETY: objects have room for a pointer, and are freed with their layout.
    unsafe {
        loop {
            let object = ALLOCATOR.alloc(layout);
            if object.is_null() {
                break;
            }
            object.cast::<*mut u8>().write(first);
            (first, count) = (object, count + 1);
        }
        for other in [(1, 1), (24, 8), (5000, 8), (1 << 20, 8)] {
            let layout = Layout::from_size_align(other.0, other.1).unwrap();
            let object = ALLOCATOR.alloc_zeroed(layout);
            if !object.is_null() {
                ALLOCATOR.dealloc(object, layout);
            }
        }
        while !first.is_null() {
            let next = first.cast::<*mut u8>().read();
            ALLOCATOR.dealloc(first, layout);
            first = next;
        }
    }
    count
}

#[test]
fn a_process_with_a_limit_runs_out_of_memory_and_goes_on() {
    children::run("in little memory");
}
