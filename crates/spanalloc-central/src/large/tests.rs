use spanalloc_classes::Go67;
use spanalloc_os::Mmap;
use spanalloc_pages::PageHeap;

use super::*;
use crate::Central;
use crate::testing::Refusing;

type Lists = CentralLists<Go67, PageHeap<Mmap>>;

fn lists() -> Lists {
    CentralLists::new(PageHeap::new(Mmap::new()))
}

fn alloc(lists: &Lists, pages: usize) -> SpanRef {
    lists.alloc_large(pages, 1, None).unwrap()
}

/// The address behind the last page of an object.
fn end(span: SpanRef) -> usize {
    span.base() + span.pages() * PAGE_BYTES
}

/// Writes to every page of an object but its guard.
fn fill(span: SpanRef) {
    for page in 0..span.pages() - usize::from(span.is_guarded()) {
        let word: *mut u64 = ptr::with_exposed_provenance_mut(span.base() + page * PAGE_BYTES);
        // SAFETY: the page is the test's, and Ready.
        unsafe { word.write(page as u64 | 1 << 40) };
    }
}

/// Whether the first `pages` pages of an object are as [`fill`] left them.
fn is_filled(span: SpanRef, pages: usize) -> bool {
    (0..pages).all(|page| {
        let word: *mut u64 = ptr::with_exposed_provenance_mut(span.base() + page * PAGE_BYTES);
        // SAFETY: the page is the test's, and Ready.
        unsafe { word.read() == page as u64 | 1 << 40 }
    })
}

#[test]
fn the_guard_of_an_object_is_its_last_page_whatever_its_size() {
    let lists = lists();
    let span = alloc(&lists, 20);
    let guards = || lists.heap().stats().guard_pages;
    assert!(!span.is_guarded() && guards() == 0);
    // SAFETY: the object is the test's, and nothing uses its pages but the test.
    unsafe {
        assert!(lists.guard_large(span));
        assert!(span.is_guarded() && guards() == 1);
        fill(span);
        for pages in [20, 12, 33] {
            let filled = pages.min(span.pages()) - 1;
            assert!(lists.resize_large(span, pages).is_some());
            assert_eq!((span.pages(), span.is_guarded(), guards()), (pages, true, 1));
            assert!(is_filled(span, filled));
            // Every page but the guard can be written to.
            fill(span);
        }
        assert_eq!(span.last_page(), span.base() + 32 * PAGE_BYTES);
        assert_eq!(lists.resize_large(span, 1), None, "one page alone cannot be a guard");
        assert!(span.is_guarded() && guards() == 1);
        lists.free_large(span, span.base());
    }
    let stats = lists.heap().stats();
    assert_eq!((stats.guard_pages, stats.pages_in_use), (0, 0));
    // The page that was a guard serves as any other.
    fill(alloc(&lists, 33));
}

#[test]
fn a_guard_that_the_system_leaves_costs_its_page_and_no_other() {
    let lists = CentralLists::<Go67, _>::new(Refusing::new());
    let span = lists.alloc_large(20, 1, None).unwrap();
    let (base, guard) = (span.base(), span.last_page());
    // SAFETY: the object is the test's, and nothing uses its pages.
    unsafe {
        assert!(lists.guard_large(span));
        lists.heap().no_unguard.set(true);
        assert_eq!(lists.resize_large(span, 30), None);
        assert!(!lists.move_large(span, 30, 1));
        assert_eq!((span.pages(), span.base(), span.is_guarded()), (20, base, true));
        lists.free_large(span, base);
    }
    let stats = lists.heap().stats();
    assert_eq!((stats.guard_pages, stats.pages_in_use), (1, 1));
    // The pages before it serve again, and it does not as long as the system leaves it.
    let before = lists.alloc_large(19, 1, None).unwrap();
    assert_eq!(before.base(), base);
    assert!(lists.alloc_large(1, 1, None).unwrap().base() > guard);
}

#[test]
fn spans_of_small_objects_have_no_guards() {
    let small = crate::testing::span(5, 64, 10, false);
    small.set_notify(3);
    assert!(!small.is_guarded());
}

#[test]
fn an_object_without_a_guard_may_have_one_page() {
    let lists = lists();
    let span = alloc(&lists, 3);
    // SAFETY: the object is the test's, and nothing uses its pages.
    unsafe {
        assert_eq!(lists.resize_large(span, 0), None);
        assert_eq!((lists.resize_large(span, 1), span.pages()), (Some(false), 1));
        assert_eq!(span.last_page(), span.base());
    }
}

#[test]
fn an_object_that_moves_keeps_its_contents_and_loses_its_guard() {
    for (pages, more) in [(20, 21), (20, 200), (70, 71)] {
        let lists = lists();
        let span = alloc(&lists, pages);
        let old = span.base();
        // SAFETY: the object is the test's.
        unsafe {
            assert!(lists.guard_large(span));
            fill(span);
            assert!(!lists.move_large(span, pages - 1, 1), "it is to get more");
            assert!(span.is_guarded() && span.base() == old);
            assert!(lists.move_large(span, more, 1));
        }
        assert_ne!(span.base(), old);
        assert_eq!((span.pages(), span.is_guarded()), (more, false));
        assert!(is_filled(span, pages - 1));
        assert_eq!(lists.span_at(old), None);
        assert_eq!(lists.span_at(end(span) - 1), Some(span));
        let stats = lists.heap().stats();
        assert_eq!((stats.guard_pages, stats.pages_in_use), (0, more));
    }
}

#[test]
fn an_object_of_512_kilobytes_that_moves_can_grow_there() {
    for (more, roomy) in [(63, false), (64, true), (65, true)] {
        let lists = lists();
        // As many pages in one piece as all of it takes, whatever the size of an arena is.
        let all = alloc(&lists, 20 * more);
        // SAFETY: the object is the test's, and nothing uses its pages.
        unsafe { lists.free_large(all, all.base()) };
        let span = alloc(&lists, 50);
        let wall = alloc(&lists, 1);
        // SAFETY: the object is the test's.
        assert!(unsafe { lists.move_large(span, more, 1) });
        // The first fit is behind the wall; who gets room lies further on, and has some before it.
        assert_eq!(span.base() == end(wall), !roomy, "{more} pages");
        assert!(!roomy || span.base() > end(wall));
    }
}

// There are not so many with 32 bits.
#[cfg(target_pointer_width = "64")]
#[test]
fn more_pages_than_a_span_can_say_are_refused() {
    let lists = lists();
    let span = alloc(&lists, 2);
    let too_many = u32::MAX as usize + 1;
    assert_eq!(lists.alloc_large(too_many, 1, None), None);
    // SAFETY: the object is the test's.
    unsafe {
        assert_eq!(lists.resize_large(span, too_many), None);
        assert!(!lists.move_large(span, too_many, 1));
    }
    assert_eq!((span.pages(), lists.span_at(span.base())), (2, Some(span)));
}
