//! Facts of single operations: what stays in place, what is not touched, which alignments are had.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::alloc::Layout;
use std::ptr::NonNull;

use common::PackAll;
use spanalloc_cache::{Checked, Fast, Policy, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::{ClassTable, Go67};
use spanalloc_os::{Counted, Faulty, Mmap, OsSource, Verb};
use spanalloc_pages::{PageHeap, Pages};
use spanalloc_testkit::layers::nothing_left;
use spanalloc_testkit::{Returning, pattern};

type Source = Counted<Returning<Mmap>>;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

type Lists<'a> = CentralLists<Go67, &'a PageHeap<Source>>;

/// Runs `test` with a heap and lists of its own.
fn with_lists(test: impl FnOnce(&PageHeap<Source>, &Lists<'_>)) {
    // SAFETY: the heap and everything above it are gone before the source is.
    let heap = PageHeap::new(Counted::new(unsafe { Returning::new(Mmap::new()) }));
    let central = CentralLists::new(&heap);
    test(&heap, &central);
    nothing_left(&heap).unwrap();
}

/// Reallocates, checks that the contents were kept, and fills the object again.
fn realloc<P: Policy>(
    cache: &mut ThreadCache<&Lists<'_>, P>,
    object: NonNull<u8>,
    from: usize,
    to: usize,
) -> NonNull<u8> {
    let old = layout(from, 8);
    // SAFETY: the object is live with this layout and filled by us.
    unsafe {
        pattern::fill(object.as_ptr(), 0, from, 1);
        let moved = cache.realloc(object, old, to).unwrap();
        pattern::check(moved.as_ptr(), from.min(to), 1).unwrap();
        moved
    }
}

#[test]
fn a_new_size_of_the_same_class_stays_where_it_is() {
    with_lists(|_, central| {
        let mut cache = ThreadCache::new(central);
        for class in 1..=Go67::CLASSES.count() as u8 {
            let bytes = Go67::CLASSES.class(class).bytes as usize;
            let below = if class == 1 { 7 } else { Go67::CLASSES.class(class - 1).bytes as usize };
            let object = cache.alloc(layout(below + 1, 8)).unwrap();
            let grown = realloc(&mut cache, object, below + 1, bytes);
            assert_eq!(grown, object, "class {class}");
            assert_eq!(realloc(&mut cache, grown, bytes, below + 1), object, "class {class}");
            // SAFETY: the object is live and has this size now.
            unsafe { cache.free(object, layout(below + 1, 8)) };
        }
    });
}

#[test]
fn a_large_object_grows_into_free_pages_and_shrinks_where_it_is() {
    with_lists(|heap, central| {
        let mut cache = ThreadCache::new(central);
        let object = cache.alloc(layout(100_000, 8)).unwrap();
        let grown = realloc(&mut cache, object, 100_000, 3_000_000);
        assert_eq!(grown, object, "the pages behind it are free");
        let shrunk = realloc(&mut cache, grown, 3_000_000, 40_000);
        assert_eq!(shrunk, object);
        assert_eq!(cache.snapshot().unwrap().large_pages, 5);
        // What was cut off can be had again, and is then in the way.
        let behind = cache.alloc(layout(100_000, 8)).unwrap();
        assert_eq!(behind.addr().get(), object.addr().get() + 5 * 8192);
        let moved = realloc(&mut cache, shrunk, 40_000, 100_000);
        assert_ne!(moved, object);
        // SAFETY: both are live and have these sizes.
        unsafe {
            cache.free(moved, layout(100_000, 8));
            cache.free(behind, layout(100_000, 8));
        }
        drop(cache);
        assert_eq!(heap.stats().pages_in_use, 0);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_large_object_that_moves_to_grow_leaves_no_memory_behind() {
    const MB: usize = 1 << 20;
    fn test<P: Policy>() {
        with_lists(|_, central| {
            let mut cache = ThreadCache::<_, P>::with_policy(central);
            let object = cache.alloc(layout(5 * MB, 8)).unwrap();
            let in_the_way = cache.alloc(layout(MB, 8)).unwrap();
            let grown = realloc(&mut cache, object, 5 * MB, 9 * MB);
            assert_ne!(grown, object);
            assert_eq!(resident(object, 5 * MB), 0);
            assert_eq!(realloc(&mut cache, grown, 9 * MB, 23 * MB), grown, "there is room");
            assert!(cache.snapshot().unwrap().adds_up());
            // SAFETY: both are live with these layouts.
            unsafe {
                cache.free(grown, layout(23 * MB, 8));
                cache.free(in_the_way, layout(MB, 8));
            }
        });
    }
    test::<Fast>();
    test::<Checked>();
}

#[test]
fn a_refused_growth_leaves_the_object_as_it_was() {
    with_lists(|_, central| {
        let mut cache = ThreadCache::<_, Fast>::new(central);
        for size in [3, 100, 9000, 100_000] {
            let object = cache.alloc(layout(size, 8)).unwrap();
            // SAFETY: the object is live with this layout; the new size is valid, if absurd.
            unsafe {
                pattern::fill(object.as_ptr(), 0, size, 5);
                let wide = usize::try_from(1_u64 << 50).ok();
                for absurd in wide.into_iter().chain([isize::MAX as usize & !7]) {
                    assert_eq!(cache.realloc(object, layout(size, 8), absurd), None);
                }
                pattern::check(object.as_ptr(), size, 5).unwrap();
                cache.free(object, layout(size, 8));
            }
        }
    });
}

/// How many of the `bytes` bytes from `at` are in memory, by the kernel's table of pages.
#[cfg(target_os = "linux")]
fn resident(at: NonNull<u8>, bytes: usize) -> usize {
    use std::os::unix::fs::FileExt;

    let page = Mmap::new().page_bytes();
    let (first, end) = (at.addr().get() / page, (at.addr().get() + bytes).div_ceil(page));
    let mut entries = vec![0; (end - first) * 8];
    let table = std::fs::File::open("/proc/self/pagemap").unwrap();
    table.read_exact_at(&mut entries, first as u64 * 8).unwrap();
    // The highest bit of an entry says that the page is present.
    entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count() * page
}

#[cfg(target_os = "linux")]
#[test]
fn zeroed_fresh_memory_is_not_touched() {
    with_lists(|heap, central| {
        let mut cache = ThreadCache::new(central);
        const BYTES: usize = 64 << 20;
        let object = cache.alloc_zeroed(layout(BYTES, 8)).unwrap();
        let before = resident(object, BYTES);
        assert!(before < 1 << 20, "{before} bytes were touched");
        // SAFETY: the object is live.
        unsafe {
            pattern::check_zero(object.as_ptr(), BYTES).unwrap();
            pattern::fill(object.as_ptr(), 0, BYTES, 2);
            cache.free(object, layout(BYTES, 8));
        }
        assert!(resident(object, BYTES) > 60 << 20, "the measure does not measure");
        // Dirty pages are cleared; what went back to the system is zero again without that.
        let dirty = cache.alloc_zeroed(layout(BYTES, 8)).unwrap();
        assert_eq!(dirty, object);
        // SAFETY: the object is live.
        unsafe {
            pattern::check_zero(dirty.as_ptr(), BYTES).unwrap();
            cache.free(dirty, layout(BYTES, 8));
        }
        assert!(heap.release_free(usize::MAX) >= BYTES / 8192);
        let released = cache.alloc_zeroed(layout(BYTES, 8)).unwrap();
        assert_eq!(released, object);
        let after = resident(released, BYTES);
        assert!(after < 1 << 20, "{after} bytes were touched");
        // SAFETY: the object is live.
        unsafe {
            pattern::check_zero(released.as_ptr(), BYTES).unwrap();
            cache.free(released, layout(BYTES, 8));
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn zeroed_fresh_slots_are_not_touched() {
    with_lists(|_, central| {
        let mut cache = ThreadCache::new(central);
        let objects: Vec<_> =
            (0..1000).map(|_| cache.alloc_zeroed(layout(16384, 8)).unwrap()).collect();
        let touched: usize = objects.iter().map(|object| object.addr().get()).min().unwrap();
        let touched = resident(NonNull::new(touched as *mut u8).unwrap(), 16384 * 1000);
        assert!(touched < 1 << 20, "{touched} bytes were touched");
        for object in objects {
            // SAFETY: the object is live.
            unsafe {
                pattern::check_zero(object.as_ptr(), 16384).unwrap();
                cache.free(object, layout(16384, 8));
            }
        }
    });
}

#[test]
fn slots_that_were_used_are_zeroed_again() {
    with_lists(|_, central| {
        let mut cache = ThreadCache::<_, PackAll>::with_policy(central);
        for round in 0..3 {
            for size in [1, 5, 16, 24, 100, 1024, 9000, 32768, 50_000] {
                let mut objects = Vec::new();
                for _ in 0..200 {
                    let object = cache.alloc_zeroed(layout(size, 1)).unwrap();
                    // SAFETY: the object is live.
                    unsafe {
                        pattern::check_zero(object.as_ptr(), size).unwrap();
                        pattern::fill(object.as_ptr(), 0, size, round);
                    }
                    objects.push(object);
                }
                for object in objects {
                    // SAFETY: the object is live.
                    unsafe { cache.free(object, layout(size, 1)) };
                }
            }
        }
    });
}

#[test]
fn every_alignment_up_to_64_mb() {
    with_lists(|_, central| {
        let mut cache = ThreadCache::<_, PackAll>::with_policy(central);
        for log2 in 0..=26 {
            let align = 1_usize << log2;
            for size in [0, 1, 3, 16, 17, 100, 1025, 4096, 8193, 32768, 32769, 100_000] {
                let object = cache.alloc(layout(size, align)).unwrap();
                let second = cache.alloc_zeroed(layout(size, align)).unwrap();
                assert_eq!(object.addr().get() % align, 0, "{size} aligned to {align}");
                assert_eq!(second.addr().get() % align, 0, "{size} aligned to {align}");
                assert_ne!(object, second);
                // SAFETY: the objects are live; the new sizes are valid.
                unsafe {
                    pattern::fill(object.as_ptr(), 0, size, 3);
                    let moved = cache.realloc(object, layout(size, align), size * 2 + 1).unwrap();
                    assert_eq!(moved.addr().get() % align, 0, "{size} aligned to {align}");
                    pattern::check(moved.as_ptr(), size, 3).unwrap();
                    cache.free(moved, layout(size * 2 + 1, align));
                    cache.free(second, layout(size, align));
                }
            }
        }
        assert_eq!(cache.snapshot().unwrap().live_objects(), 0);
    });
}

#[test]
fn an_alignment_of_512_mb() {
    with_lists(|_, central| {
        let mut cache = ThreadCache::<_, Fast>::new(central);
        let object = cache.alloc(layout(1, 1 << 29)).unwrap();
        assert_eq!(object.addr().get() % (1 << 29), 0);
        // SAFETY: the object is live.
        unsafe {
            object.write(1);
            cache.free(object, layout(1, 1 << 29));
        }
    });
}

#[test]
fn small_objects_freed_by_another_cache_come_back() {
    with_lists(|_, central| {
        let (mut owner, mut other) = (ThreadCache::new(central), ThreadCache::new(central));
        let objects: Vec<_> = (0..5000).map(|_| owner.alloc(layout(64, 8)).unwrap()).collect();
        let spans = owner.snapshot().unwrap().pages.pages_in_use;
        for object in &objects {
            // SAFETY: the object is live.
            unsafe { other.free(*object, layout(64, 8)) };
        }
        let snapshot = owner.snapshot().unwrap();
        assert_eq!(snapshot.live_objects(), 0);
        assert!(snapshot.adds_up());
        let again: Vec<_> = (0..5000).map(|_| owner.alloc(layout(64, 8)).unwrap()).collect();
        let grown = owner.snapshot().unwrap().pages.pages_in_use;
        assert!(grown <= spans + spans / 8 + 1, "{spans} pages, then {grown}");
        for object in again {
            // SAFETY: the object is live.
            unsafe { owner.free(object, layout(64, 8)) };
        }
    });
}

#[test]
fn a_checked_large_object_has_a_guard_that_moves_with_its_end() {
    const GUARDED: usize = Checked::GUARDED_FROM;
    with_lists(|heap, central| {
        let mut cache = ThreadCache::<_, Checked>::with_policy(central);
        let may_be_touched = |at: *mut u8| {
            let mut place = 0_u8;
            // A socket tells whether a byte can be read, without a fault.
            let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
            use std::os::fd::AsRawFd;
            // SAFETY: the kernel checks the address; `place` is valid.
            unsafe {
                let written = libc::write(writer.as_raw_fd(), at.cast(), 1);
                assert!(written == 1 || *libc::__errno_location() == libc::EFAULT);
                written == 1 && libc::read(reader.as_raw_fd(), (&raw mut place).cast(), 1) == 1
            }
        };
        let check = |object: NonNull<u8>, bytes: usize| {
            let end = object.as_ptr().wrapping_add(bytes.next_multiple_of(8192));
            assert!(may_be_touched(end.wrapping_sub(1)), "{bytes}: the last byte");
            assert_eq!(may_be_touched(end), bytes < GUARDED, "{bytes}: behind it");
        };
        let neighbour = cache.alloc(layout(GUARDED - 8192, 8)).unwrap();
        let object = cache.alloc(layout(GUARDED, 8)).unwrap();
        let behind = cache.alloc(layout(GUARDED - 8192, 8)).unwrap();
        check(neighbour, GUARDED - 8192);
        check(object, GUARDED);
        // It shrinks in place as long as it keeps its guard, and grows where there is room.
        let large = cache.alloc(layout(4 * GUARDED, 8)).unwrap();
        let shrunk = realloc(&mut cache, large, 4 * GUARDED, 2 * GUARDED);
        assert_eq!(shrunk, large);
        check(shrunk, 2 * GUARDED);
        let grown = realloc(&mut cache, shrunk, 2 * GUARDED, 3 * GUARDED);
        assert_eq!(grown, large);
        check(grown, 3 * GUARDED);
        let small = realloc(&mut cache, grown, 3 * GUARDED, GUARDED - 8192);
        check(small, GUARDED - 8192);
        assert!(cache.snapshot().unwrap().adds_up());
        // SAFETY: all of them are live with these layouts.
        unsafe {
            cache.free(neighbour, layout(GUARDED - 8192, 8));
            cache.free(object, layout(GUARDED, 8));
            cache.free(behind, layout(GUARDED - 8192, 8));
            cache.free(small, layout(GUARDED - 8192, 8));
        }
        drop(cache);
        // Nothing that is free is a guard still.
        let run = heap.alloc(heap.stats().pages_free / 2, 1).unwrap();
        let start = std::ptr::with_exposed_provenance_mut::<u8>(run.address);
        // SAFETY: the run was just handed out, and is given back unused.
        unsafe {
            start.write_bytes(1, run.pages * 8192);
            heap.free(run.address, run.pages).unwrap();
        }
    });
}

#[test]
fn locks_are_counted_and_the_steady_state_takes_none() {
    fn check<P: Policy>() {
        with_lists(|_, central| {
            let mut cache = ThreadCache::<_, P>::with_policy(central);
            let locks = |cache: &mut ThreadCache<_, P>| {
                let snapshot = cache.snapshot().unwrap();
                (snapshot.pages.heap_locks, snapshot.central_locks)
            };
            let sizes = [5, 16, 64, 1000, 8192];
            let pairs = |cache: &mut ThreadCache<&Lists<'_>, P>, rounds: usize| {
                for size in sizes.repeat(rounds) {
                    let object = cache.alloc(layout(size, 8)).unwrap();
                    // SAFETY: the object is live with this layout.
                    unsafe { cache.free(object, layout(size, 8)) };
                }
            };
            // Dozens of spans of each class, emptied in turn.
            let batch = |cache: &mut ThreadCache<&Lists<'_>, P>| {
                for size in sizes {
                    let objects: Vec<_> =
                        (0..1000).map(|_| cache.alloc(layout(size, 8)).unwrap()).collect();
                    for object in objects {
                        // SAFETY: the object is live with this layout.
                        unsafe { cache.free(object, layout(size, 8)) };
                    }
                }
            };
            let empty = locks(&mut cache);
            pairs(&mut cache, 1);
            let warm = locks(&mut cache);
            assert!(warm.0 > empty.0 + 1, "an arena and its spans were made");
            assert!(warm.1 > empty.1, "descriptors were taken");
            pairs(&mut cache, 1000);
            // A look at the heap takes its locks, once each.
            assert_eq!(locks(&mut cache), (warm.0 + 2, warm.1));
            (0..3).for_each(|_| batch(&mut cache));
            let warm = locks(&mut cache);
            (0..10).for_each(|_| batch(&mut cache));
            assert_eq!(locks(&mut cache), (warm.0 + 2, warm.1));
        });
    }
    check::<Fast>();
    check::<Checked>();
}

#[test]
fn what_magazines_keep_grows_with_use_and_is_bounded_for_the_thread() {
    with_lists(|_, central| {
        let mut cache = ThreadCache::new(central);
        let first = cache.alloc(layout(512, 8)).unwrap();
        let cached = |cache: &mut ThreadCache<&Lists<'_>, Fast>| {
            cache.snapshot().unwrap().rows().map(|row| row.cached * row.slot_bytes).sum::<usize>()
        };
        assert_eq!(cached(&mut cache), 7 * 512);
        // SAFETY: the object is live with this layout.
        unsafe { cache.free(first, layout(512, 8)) };
        for class in 1..=Go67::CLASSES.count() as u8 {
            let layout = layout(Go67::CLASSES.class(class).bytes as usize, 8);
            let objects: Vec<_> = (0..300).map(|_| cache.alloc(layout).unwrap()).collect();
            for object in objects {
                // SAFETY: the object is live with this layout.
                unsafe { cache.free(object, layout) };
            }
        }
        // 8 objects of 1 KB and less, 8 KB of the larger ones or 4 of them, in two magazines each; and
        // what those could grow by.
        let at_first: usize = Go67::CLASSES
            .iter()
            .map(|(_, class)| class.bytes as usize)
            .map(|bytes| 2 * bytes * (8192 / bytes).clamp(4, 8))
            .sum();
        assert!(cached(&mut cache) <= at_first + (512 << 10), "{}", cached(&mut cache));
        assert!(cached(&mut cache) > 256 << 10);
    });
}

#[test]
fn a_thread_keeps_what_it_needs_of_its_empty_spans() {
    const MB: usize = 1 << 20;
    with_lists(|_, central| {
        let mut cache = ThreadCache::<_, Fast>::with_policy(central);
        // Allocates and frees that many bytes; the most bytes that were in use meanwhile.
        let wave = |cache: &mut ThreadCache<&Lists<'_>, Fast>, size, bytes: usize| {
            let objects: Vec<_> =
                (0..bytes / size).map(|_| cache.alloc(layout(size, 8)).unwrap()).collect();
            let most = cache.snapshot().unwrap().pages.pages_in_use * 8192;
            for object in objects {
                // SAFETY: the object is live with this layout.
                unsafe { cache.free(object, layout(size, 8)) };
            }
            most
        };
        let in_use = |cache: &mut ThreadCache<&Lists<'_>, Fast>| {
            cache.snapshot().unwrap().pages.pages_in_use * 8192
        };
        wave(&mut cache, 64, 16 * MB);
        assert!(in_use(&mut cache) > 15 * MB, "the next wave finds all of it");
        // Another size, in spans with more pages, takes the place of the first one.
        let most = wave(&mut cache, 1000, 16 * MB);
        assert!(most < 16 * MB + 16 * MB / 4, "{most} bytes");
        // Small waves go on for long: what they do not need goes back.
        for _ in 0..2000 {
            wave(&mut cache, 64, MB / 4);
        }
        assert!(in_use(&mut cache) < 3 * MB, "{} bytes", in_use(&mut cache));
    });
}

#[test]
fn objects_of_many_spans_that_are_freed_without_order_all_come_back() {
    const COUNT: usize = 120_000;
    with_lists(|_, central| {
        let mut cache = ThreadCache::new(central);
        let mut other = ThreadCache::new(central);
        for round in 0..2 {
            let objects: Vec<_> = (0..COUNT)
                .map(|index| {
                    let owner = if index % 11 == round { &mut other } else { &mut cache };
                    let object = owner.alloc(layout(64, 8)).unwrap();
                    // SAFETY: the object has this size and is new.
                    unsafe { pattern::fill(object.as_ptr(), 0, 64, index as u64) };
                    object
                })
                .collect();
            // A prime that does not divide the count: each index comes once, next to none of its neighbours.
            for index in (0..COUNT).map(|turn| turn * 7919 % COUNT) {
                // SAFETY: the object is live, has this layout, and was filled so.
                unsafe {
                    pattern::check(objects[index].as_ptr(), 64, index as u64).unwrap();
                    cache.free(objects[index], layout(64, 8));
                }
            }
            let snapshot = cache.snapshot().unwrap();
            assert!(snapshot.adds_up());
            assert_eq!(snapshot.live_objects(), 0);
        }
    });
}

/// How often the system is told what to expect of memory when an object is allocated in a new heap, and when it is
/// again.
fn advice(size: usize, zeroed: bool) -> [usize; 2] {
    // SAFETY: the heap and everything above it are gone before the source is.
    let heap = PageHeap::<_>::new(Faulty::new(unsafe { Returning::new(Mmap::new()) }));
    let central = CentralLists::<Go67, _>::new(&heap);
    let mut cache = ThreadCache::<_>::new(&central);
    [1, 2].map(|_| {
        let (before, layout) = (heap.os().calls(Verb::Advise), layout(size, 8));
        let object = if zeroed { cache.alloc_zeroed(layout) } else { cache.alloc(layout) };
        // SAFETY: the object was allocated just now with this layout.
        unsafe { cache.free(object.unwrap(), layout) };
        heap.os().calls(Verb::Advise) - before
    })
}

#[test]
fn very_large_objects_are_expected_to_be_filled_unless_they_are_to_be_zero() {
    assert_eq!(advice(8 << 20, false), [1, 0], "what is used again is not fresh");
    assert_eq!(advice(7 << 20, false), [0, 0]);
    assert_eq!(advice(64 << 20, true), [0, 0]);
}

#[test]
fn neighbours_come_back_whatever_their_order() {
    const COUNT: usize = 1_000;
    let upwards: Vec<usize> = (0..COUNT).collect();
    let downwards: Vec<usize> = upwards.iter().rev().copied().collect();
    let swapped: Vec<usize> = upwards.iter().map(|index| index ^ 1).collect();
    let turned = |length: usize| -> Vec<usize> {
        upwards.chunks(length).flat_map(|chunk| chunk.iter().rev().copied()).collect()
    };
    let apart: Vec<usize> = upwards.iter().map(|index| index * 3 % COUNT).collect();
    let orders = [downwards, swapped, turned(5), turned(64), turned(100), apart, upwards.clone()];
    with_lists(|_, central| {
        for order in &orders {
            let mut cache = ThreadCache::new(central);
            let mut objects: Vec<_> =
                (0..COUNT).map(|_| cache.alloc(layout(48, 8)).unwrap()).collect();
            objects.sort();
            assert!(objects.windows(2).all(|pair| pair[0] < pair[1]));
            for index in order {
                // SAFETY: the object is live and has this layout.
                unsafe { cache.free(objects[*index], layout(48, 8)) };
            }
            let snapshot = cache.snapshot().unwrap();
            assert!(snapshot.adds_up());
            assert_eq!(snapshot.live_objects(), 0);
        }
    });
}
