use core::alloc::Layout;

use std::vec::Vec;

use spanalloc_central::{Central, CentralLists, SpanRef};
use spanalloc_classes::Go67;
use spanalloc_os::Mmap;
use spanalloc_pages::{PAGE_BYTES, PageHeap, Pages};

use super::{LARGEST_PAGES, LEAST_PAGES, LEAST_SPACE, MOST_MORE, MOST_SPACE, PART, SPACE_FACTOR};
use crate::policy::{Checked, Fast, Policy};
use crate::{Snapshot, ThreadCache};

type Lists = CentralLists<Go67, PageHeap<Mmap>>;

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * 8192, 8).unwrap()
}

fn with<P: Policy>(test: impl FnOnce(&Lists, &mut ThreadCache<&Lists, P>)) {
    let lists = Lists::new(PageHeap::new(Mmap::new()));
    test(&lists, &mut ThreadCache::with_policy(&lists));
    assert_eq!(lists_in_use(&lists), 0, "a cache that ends keeps nothing");
}

fn lists_in_use(lists: &Lists) -> usize {
    lists.heap().stats().pages_in_use
}

/// Allocates and frees an object; where it was.
fn pair<P: Policy>(cache: &mut ThreadCache<&Lists, P>, pages: usize) -> usize {
    let object = cache.alloc(layout(pages)).unwrap();
    // SAFETY: allocated just now with this layout.
    unsafe { cache.free(object, layout(pages)) };
    object.addr().get()
}

fn snapshot<P: Policy>(cache: &mut ThreadCache<&Lists, P>) -> Snapshot {
    let snapshot = cache.snapshot().unwrap();
    assert!(snapshot.adds_up(), "{snapshot:?}");
    snapshot
}

fn same_place_again<P: Policy>() {
    with::<P>(|_, cache| {
        for pages in [24, 40, 128] {
            let first = pair(cache, pages);
            assert_eq!(pair(cache, pages), first);
            assert_eq!(pair(cache, pages - pages / 6), first, "a little smaller");
            assert_ne!(pair(cache, pages + 1), first, "one page larger");
            let counted = snapshot(cache);
            assert_eq!((counted.large_objects, counted.large_pages), (0, 0));
            assert!(counted.cached_pages >= pages);
        }
    });
}

#[test]
fn an_object_comes_to_where_one_of_about_its_size_was() {
    same_place_again::<Fast>();
    same_place_again::<Checked>();
}

/// Frees 200 objects of 5 to 124 pages, of which so many bytes were written to at each end, and calls
/// `each` with the pages of those that live and the cache after each.
fn free_many(touched: usize, mut each: impl FnMut(usize, &mut ThreadCache<&Lists, Fast>)) {
    with::<Fast>(|_, cache| {
        let objects = std::vec::Vec::from_iter((0..200).map(|index| {
            let layout = layout(5 + index % 120);
            let object = cache.alloc(layout).unwrap();
            // SAFETY: the object has at least twice so many bytes.
            unsafe {
                object.write_bytes(1, touched.min(layout.size()));
                let end = layout.size() - touched.min(layout.size());
                object.add(end).write_bytes(1, layout.size() - end);
            }
            (object, layout)
        }));
        let mut live: usize = objects.iter().map(|(_, layout)| layout.size() / 8192).sum();
        for (object, layout) in objects {
            // SAFETY: allocated above with this layout.
            unsafe { cache.free(object, layout) };
            live -= layout.size() / 8192;
            each(live, cache);
        }
    });
}

/// The most that is kept in any case: 32 MB.
const MOST_PAGES: usize = (32 << 20) / PAGE_BYTES;
/// The window of free pages that a thread keeps beside its objects: 2 MB.
const WINDOW_PAGES: usize = (2 << 20) / PAGE_BYTES;

#[test]
fn the_memory_that_is_kept_is_bounded() {
    free_many(usize::MAX, |live, cache| {
        let kept = snapshot(cache).cached_pages;
        // A size has up to an eighth more pages than its objects need.
        let most = LEAST_PAGES + MOST_MORE + live * 9 / 8 / PART;
        assert!(kept <= most.min(MOST_PAGES) + WINDOW_PAGES, "{kept} pages are kept, {live} live");
    });
}

#[test]
fn address_space_without_memory_is_kept_longer_and_bounded_too() {
    let mut most_kept = 0;
    free_many(1, |live, cache| {
        let kept = snapshot(cache).cached_pages;
        let most = LEAST_SPACE + live * 9 / 8 * SPACE_FACTOR;
        assert!(kept <= most.min(MOST_SPACE) + WINDOW_PAGES, "{kept} pages are kept, {live} live");
        most_kept = most_kept.max(kept);
    });
    assert!(most_kept > MOST_PAGES, "{most_kept}");
}

#[test]
fn what_is_missed_again_and_again_is_kept() {
    with::<Fast>(|lists, cache| {
        let layout = layout(64);
        // More than is kept at first, and less than may be kept in the end.
        let mut round = |objects| {
            let before = lists.heap().stats().heap_locks;
            let objects = Vec::from_iter((0..objects).map(|_| cache.alloc(layout).unwrap()));
            for object in objects {
                // SAFETY: the object has this size, and was allocated with this layout.
                unsafe {
                    object.write_bytes(1, layout.size());
                    cache.free(object, layout);
                }
            }
            lists.heap().stats().heap_locks - before
        };
        // To look takes some, too.
        let none = round(0);
        let rounds = [9; 20].map(round);
        assert!(rounds[1] >= none + 4, "{rounds:?}");
        assert_eq!(rounds[19], none, "{rounds:?}");
    });
}

#[test]
fn an_object_above_the_largest_is_not_kept() {
    with::<Fast>(|_, cache| {
        pair(cache, 5);
        let kept = snapshot(cache).cached_pages;
        pair(cache, LARGEST_PAGES + 1);
        assert_eq!(snapshot(cache).cached_pages, kept);
    });
}

#[test]
fn objects_of_sizes_that_come_again_take_no_lock() {
    fn locks<P: Policy>() {
        with::<P>(|lists, cache| {
            let locks = || lists.locks() + lists.heap().stats().heap_locks;
            let mut live = std::collections::VecDeque::new();
            let mut counts = [0; 2];
            for round in 0..8 {
                for index in 0..500 {
                    let layout = layout(5 + index * 37 % 120);
                    live.push_back((cache.alloc(layout).unwrap(), layout));
                    if live.len() > 40 {
                        let (object, layout) = live.pop_front().unwrap();
                        // SAFETY: allocated above with this layout.
                        unsafe { cache.free(object, layout) };
                    }
                }
                counts = [counts[1], locks()];
                // To look takes locks too.
                let looking = locks() - counts[1];
                counts[1] += looking;
                let taken = counts[1] - counts[0] - 2 * looking;
                assert!(round < 6 || taken == 0, "{taken} locks in round {round}");
            }
            for (object, layout) in live {
                // SAFETY: as above.
                unsafe { cache.free(object, layout) };
            }
        });
    }
    locks::<Fast>();
    locks::<Checked>();
}

#[test]
fn what_was_kept_longest_goes_first() {
    with::<Fast>(|lists, cache| {
        let kept = [40, 48, 40, 56].map(|pages| cache.alloc(layout(pages)).unwrap());
        for (object, pages) in kept.into_iter().zip([40, 48, 40, 56]) {
            // SAFETY: allocated above with this layout.
            unsafe { cache.free(object, layout(pages)) };
        }
        let base = |span: SpanRef| span.base();
        let state = cache.cache().unwrap().state;
        let mut order = std::vec::Vec::new();
        while let Some((size, _)) = state.recent.oldest() {
            let oldest = state.recent.take_first(size).unwrap();
            order.push(base(oldest));
            // SAFETY: what is kept has ended, and is given back once.
            unsafe { lists.discard_large(oldest, None) };
        }
        assert_eq!(order, kept.map(|object| object.addr().get()));
    });
}

#[test]
fn zeros_are_zeros_where_something_was() {
    with::<Fast>(|_, cache| {
        for pages in [5, 40, 100] {
            let object = cache.alloc(layout(pages)).unwrap();
            // SAFETY: allocated just now with this layout, and again below.
            unsafe {
                object.write_bytes(1, pages * 8192);
                cache.free(object, layout(pages));
                let zeros = cache.alloc_zeroed(layout(pages)).unwrap();
                assert_eq!(zeros, object);
                let bytes = core::slice::from_raw_parts(zeros.as_ptr(), pages * 8192);
                assert!(bytes.iter().all(|&byte| byte == 0));
                cache.free(zeros, layout(pages));
            }
        }
    });
}

/// Guards from a size on that is none of those to which large objects are rounded up.
struct Odd;

impl Policy for Odd {
    type Bin = crate::Magazines;
    const PACK_MAX: usize = 0;
    const GUARDED_FROM: usize = 100 * PAGE_BYTES;
}

#[test]
fn what_serves_an_object_is_large_enough_whatever_is_guarded() {
    for (kept, asked) in [(97, 98), (98, 99), (96, 97), (99, 100), (101, 99)] {
        with::<Odd>(|_, cache| {
            // The first that ends takes a slow path.
            pair(cache, 10);
            let first = pair(cache, kept);
            assert_ne!(pair(cache, asked), first, "{kept} pages serve {asked}");
        });
    }
}
