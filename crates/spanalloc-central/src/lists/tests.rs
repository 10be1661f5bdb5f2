use std::vec::Vec;

use spanalloc_classes::{Go67, Rule, SizeClasses};

use super::*;
use crate::remote::Marked;
use crate::span_slots::Put;
use crate::testing::Refusing;

mod late;

type TestLists = CentralLists<Go67, Refusing>;

/// Class 5 of Go's table has 48 bytes.
const CLASS: u8 = 5;

struct Setup {
    lists: TestLists,
    queue: Queue<Span>,
    stash: Stash,
}

impl Setup {
    fn new() -> Self {
        Self { lists: CentralLists::new(Refusing::new()), queue: Queue::new(), stash: Stash::new() }
    }

    fn cut(&self, class: u8) -> Option<SpanRef> {
        self.lists.cut(class, &self.queue, &self.stash)
    }

    fn take(&self) -> Option<SpanRef> {
        self.lists.take(CLASS, &self.queue)
    }

    fn pages_in_use(&self) -> usize {
        self.lists.heap().stats().pages_in_use - self.stash.free_pages()
    }

    fn spans(&self) -> Vec<SpanRef> {
        let mut spans = Vec::new();
        self.lists.for_each_span(|span| spans.push(span));
        spans
    }

    fn give(&self, span: SpanRef) {
        // SAFETY: the test owns the span.
        unsafe { self.lists.give(span) };
    }

    /// Frees a slot as another thread would.
    fn free_remote(&self, span: SpanRef, slot: usize) {
        // SAFETY: nobody uses the slot; a token is delivered.
        unsafe {
            match span.mark(slot) {
                Marked::Token => self.lists.deliver(span),
                marked => assert_eq!(marked, Marked::Done),
            }
        }
    }
}

fn use_slots(span: SpanRef, count: usize) -> Vec<usize> {
    let mut out = Vec::with_capacity(count);
    // SAFETY: the test owns the span; there is room.
    let taken = unsafe { span.take(out.as_mut_ptr(), count) };
    assert_eq!(taken.count, count);
    // SAFETY: `take` has written that many.
    unsafe { out.set_len(count) };
    out.iter().rev().map(|at: &*mut u8| at.addr()).collect()
}

#[test]
fn a_span_is_cut_found_and_released() {
    let setup = Setup::new();
    assert_eq!(setup.take(), None);
    let span = setup.cut(CLASS).unwrap();
    let facts = Go67::CLASSES.class(CLASS);
    assert_eq!((span.bytes(), span.slots()), (48, facts.span_slots as usize));
    assert_eq!((span.pages(), span.used()), (facts.span_pages as usize, 0));
    assert!(span.ownership().is(&setup.queue));
    assert_eq!((setup.spans(), setup.pages_in_use()), (Vec::from([span]), span.pages()));
    let end = span.base() + span.pages() * PAGE_BYTES;
    for (address, found) in [
        (span.base() - 1, None),
        (span.base(), Some(span)),
        (end - 1, Some(span)),
        (end, None),
        (0, None),
        (usize::MAX, None),
    ] {
        assert_eq!(setup.lists.span_at(address), found);
    }
    // SAFETY: the test owns the span, of which no slot is used.
    unsafe { setup.lists.release(span, &setup.stash) };
    assert_eq!((setup.spans(), setup.pages_in_use()), (Vec::new(), 0));
    assert_eq!(setup.lists.span_at(end - 1), None);
    assert_eq!(setup.cut(CLASS), Some(span), "the descriptor serves again");
}

#[test]
fn what_is_given_can_be_taken() {
    let setup = Setup::new();
    let [partial, full, empty] = [(); 3].map(|()| setup.cut(CLASS).unwrap());
    use_slots(partial, 1);
    use_slots(full, full.slots());
    [partial, full, empty].into_iter().for_each(|span| setup.give(span));
    assert_eq!((partial.place(), full.place()), (Place::Partial, Place::Full));
    assert_eq!(setup.spans().len(), 2, "an empty span goes to the heap");
    assert_eq!(setup.pages_in_use(), 2 * partial.pages());
    assert!(!partial.ownership().is(&setup.queue));
    assert_eq!((setup.take(), setup.take()), (Some(partial), None));
    assert!(partial.ownership().is(&setup.queue));
    assert_eq!(partial.place(), Place::Current);
    // A late free makes the full one worth taking.
    setup.free_remote(full, 3);
    assert_eq!(full.place(), Place::Partial);
    assert_eq!((setup.take(), full.used()), (Some(full), full.slots() - 1));
    assert_eq!(setup.lists.take(CLASS + 1, &setup.queue), None);
}

#[test]
fn a_span_that_is_worth_taking_again_is_listed_beside_the_others() {
    let setup = Setup::new();
    let [partial, full] = [(); 2].map(|()| setup.cut(CLASS).unwrap());
    use_slots(partial, 1);
    use_slots(full, full.slots());
    [partial, full].into_iter().for_each(|span| setup.give(span));
    setup.free_remote(full, 3);
    assert_eq!((setup.take(), setup.take(), setup.take()), (Some(full), Some(partial), None));
}

#[test]
fn the_last_late_free_gives_the_span_back() {
    let setup = Setup::new();
    let span = setup.cut(CLASS).unwrap();
    use_slots(span, 2);
    setup.give(span);
    setup.free_remote(span, 0);
    assert_eq!((span.used(), setup.spans().len()), (1, 1));
    setup.free_remote(span, 1);
    assert_eq!((setup.spans().len(), setup.pages_in_use()), (0, 0));
    assert_eq!(setup.take(), None);
}

#[test]
fn a_token_that_waits_is_folded_when_the_span_is_given() {
    let setup = Setup::new();
    let span = setup.cut(CLASS).unwrap();
    use_slots(span, 2);
    assert_eq!(setup.queue.close().count(), 0);
    setup.free_remote(span, 0);
    assert_eq!(span.used(), 2);
    setup.give(span);
    assert_eq!((span.used(), span.unfolded()), (1, 0));
}

#[test]
fn tiny_spans_have_descriptors_of_their_own() {
    let setup = Setup::new();
    let span = setup.cut(TINY).unwrap();
    assert_eq!((span.class(), span.bytes()), (TINY, TINY_BYTES));
    assert_eq!(span.slots() * TINY_BYTES, span.pages() * PAGE_BYTES);
    // SAFETY: the test owns the span, of which no slot is used.
    unsafe { setup.lists.release(span, &setup.stash) };
    let small = setup.cut(2).unwrap();
    assert_eq!(small.bytes(), TINY_BYTES);
    assert_ne!(small, span);
}

#[test]
fn classes_that_do_not_exist_have_no_spans() {
    #[derive(Debug)]
    struct Coarse;
    impl ClassTable for Coarse {
        const CLASSES: &'static SizeClasses = &SizeClasses::from_sizes(&Rule::GO, &[32, 64]);
    }
    let setup = Setup::new();
    for class in [68, 127, LARGE] {
        assert_eq!(setup.cut(class), None);
    }
    let coarse = CentralLists::<Coarse, _>::new(setup.lists.heap());
    for (class, exists) in [(TINY, false), (1, true), (2, true), (3, false)] {
        assert_eq!(coarse.cut(class, &setup.queue, &setup.stash).is_some(), exists);
    }
}

#[test]
fn short_of_pages_the_span_is_as_the_table_says() {
    let setup = Setup::new();
    let class = Go67::CLASSES.class_of(1024);
    let facts = Go67::CLASSES.class(class);
    assert!(facts.span_pages > facts.pages);
    setup.lists.heap().most_pages.set(facts.pages as usize);
    let span = setup.cut(class).unwrap();
    assert_eq!((span.pages(), span.slots()), (facts.pages as usize, facts.slots as usize));
    // SAFETY: the test owns the span, of which no slot is used.
    unsafe { setup.lists.release(span, &setup.stash) };
    setup.lists.heap().most_pages.set(0);
    assert_eq!((setup.cut(class), setup.lists.alloc_large(1, 1, None)), (None, None));
    assert_eq!(setup.pages_in_use(), 0);
}

#[test]
fn without_a_descriptor_the_pages_go_back() {
    let setup = Setup::new();
    setup.lists.heap().no_metadata.set(true);
    assert_eq!(setup.cut(CLASS), None);
    assert_eq!(setup.lists.alloc_large(9, 1, None), None);
    assert_eq!((setup.pages_in_use(), setup.spans().len()), (0, 0));
    setup.lists.heap().no_metadata.set(false);
    assert!(setup.cut(CLASS).is_some());
}

#[test]
fn a_large_object_lives_and_dies() {
    let setup = Setup::new();
    let span = setup.lists.alloc_large(20, 16, None).unwrap();
    assert_eq!((span.class(), span.pages(), span.base() % (16 * PAGE_BYTES)), (LARGE, 20, 0));
    assert_eq!(setup.lists.span_at(span.base() + 20 * PAGE_BYTES - 1), Some(span));
    assert_eq!(setup.lists.alloc_large(0, 1, None), None);
    assert_eq!(setup.lists.alloc_large(usize::MAX, 1, None), None);
    // SAFETY: the object is the test's.
    unsafe { setup.lists.free_large(span, span.base()) };
    assert_eq!(setup.lists.span_at(span.base()), None);
    assert_eq!((setup.pages_in_use(), setup.spans().len()), (0, 0));
}

#[test]
fn a_large_object_changes_its_size_where_it_is() {
    let setup = Setup::new();
    let span = setup.lists.alloc_large(20, 1, None).unwrap();
    // SAFETY: the object is the test's, and nothing uses its pages.
    let resize = |pages| unsafe { setup.lists.resize_large(span, pages) };
    let at = |page: usize| setup.lists.span_at(span.base() + page * PAGE_BYTES);
    assert_eq!((resize(20), span.pages()), (Some(false), 20));
    assert_eq!((resize(8), span.pages(), setup.pages_in_use()), (Some(false), 8, 8));
    assert_eq!((at(7), at(8)), (Some(span), None));
    assert!(resize(12).is_some());
    assert_eq!((span.pages(), at(11), at(12), setup.pages_in_use()), (12, Some(span), None, 12));
    let zeroed = resize(40);
    assert_eq!((zeroed, span.pages()), (Some(false), 40), "some of the pages were used before");
    assert_eq!(resize(60), Some(true), "none of these was");
    let wall = setup.lists.alloc_large(1, 1, None).unwrap();
    assert_eq!(wall.base(), span.base() + 60 * PAGE_BYTES);
    assert_eq!((resize(61), resize(0), resize(usize::MAX)), (None, None, None));
    assert_eq!((span.pages(), setup.pages_in_use()), (60, 61));
}

#[test]
#[should_panic(expected = "DoubleFree at class 0")]
fn a_large_object_dies_once() {
    let setup = Setup::new();
    let span = setup.lists.alloc_large(20, 1, None).unwrap();
    assert!(span.end_large(span.base()));
    // SAFETY: misuse that is noticed before anything is touched.
    unsafe { setup.lists.free_large(span, span.base()) };
}

#[test]
#[should_panic(expected = "DoubleFree at class 48")]
fn a_late_free_of_a_free_slot_is_noticed() {
    let setup = Setup::new();
    let span = setup.cut(CLASS).unwrap();
    use_slots(span, 2);
    // SAFETY: the test owns the span and uses no slot; it frees one as two threads do at once, and
    // delivers the token when the span is nobody's.
    unsafe {
        assert_eq!(span.mark(1), Marked::Token);
        assert_eq!(span.put(1), Put::Done);
        setup.give(span);
        setup.lists.deliver(span);
    }
}

#[test]
fn a_borrowed_central_is_one() {
    let setup = Setup::new();
    let central = &&setup.lists;
    let span = central.cut(CLASS, &setup.queue, &setup.stash).unwrap();
    use_slots(span, 1);
    let spans = |central: &&TestLists| {
        let mut spans = 0;
        Central::for_each_span(central, |_| spans += 1);
        spans
    };
    assert_eq!(spans(central), 1);
    // SAFETY: the test owns what it passes.
    unsafe {
        central.give(span);
        assert_eq!(central.take(CLASS, &setup.queue), Some(span));
        central.give(span);
        assert_eq!(span.mark(0), Marked::Token);
        central.deliver(span);
        let empty = central.cut(CLASS, &setup.queue, &setup.stash).unwrap();
        assert_eq!(central.span_at(empty.base()), Some(empty));
        central.release(empty, &setup.stash);
        let large = central.alloc_large(2, 1, None).unwrap();
        assert_eq!((central.resize_large(large, 1), large.pages()), (Some(false), 1));
        central.free_large(large, large.base());
        let owner = central.register(Layout::new::<Owner>()).unwrap();
        let mut owners = 0;
        central.for_each_owner(|found| owners += usize::from(found == owner));
        assert_eq!(owners, 1);
        central.unregister(owner.as_ref());
    }
    assert_eq!(
        (spans(central), central.heap().stats().pages_in_use - setup.stash.free_pages()),
        (0, 0)
    );
}

#[test]
fn a_span_of_every_class_holds_as_many_objects_as_the_table_says() {
    let setup = Setup::new();
    for (class, facts) in Go67::CLASSES.iter() {
        let span = setup.cut(class).unwrap();
        assert_eq!(span.pages(), facts.span_pages as usize);
        assert_eq!(use_slots(span, span.slots()).len(), facts.span_slots as usize);
    }
}

#[test]
fn an_empty_span_becomes_one_of_another_class() {
    let setup = Setup::new();
    let recut = |span, class| {
        // SAFETY: the test owns the span, which is on no list and of which no slot is used.
        unsafe { setup.lists.recut(span, class, &setup.queue, &setup.stash) }
    };
    let facts = Go67::CLASSES.class(CLASS);
    for (class, other) in Go67::CLASSES.iter() {
        let old = setup.cut(CLASS).unwrap();
        let base = old.base();
        let Some(span) = recut(old, class) else {
            assert!(facts.span_pages != other.span_pages && facts.span_pages != other.pages);
            assert_eq!((old.class(), old.place()), (CLASS, Place::Current));
            continue;
        };
        assert_eq!((span.class(), span.base(), span.used()), (class, base, 0));
        assert_eq!((span.place(), span.zeroed()), (Place::Current, false));
        assert!(span.ownership().is(&setup.queue) && span.slots() <= span.words() * 64);
        assert_eq!(setup.lists.span_at(base + span.pages() * PAGE_BYTES - 1), Some(span));
        assert_eq!(use_slots(span, span.slots()).len(), span.slots());
        assert_eq!(setup.spans().iter().filter(|span| span.base() == base).count(), 1);
    }
}

#[test]
fn empty_spans_of_one_window_are_released_together() {
    let setup = Setup::new();
    let spans = [(); 5].map(|()| setup.cut(CLASS).unwrap());
    let window = spans[0].base() & !(spanalloc_pages::WINDOW_BYTES - 1);
    assert!(spans.iter().all(|span| span.base() - window < spanalloc_pages::WINDOW_BYTES));
    // SAFETY: the test is the stash's only user.
    unsafe { setup.lists.flush(&setup.stash) };
    let before = setup.lists.heap().stats();
    let list = SpanList::new();
    spans[1..4].iter().for_each(|span| list.push(*span));
    // SAFETY: the test owns the spans, which lie in the window.
    unsafe { setup.lists.release_window(window, &list, &setup.stash) };
    let after = setup.lists.heap().stats();
    assert_eq!(before.pages_in_use - after.pages_in_use, 3 * spans[0].pages());
    // One look at the figures takes the lock of the pages and that of the metadata.
    assert_eq!(after.heap_locks - before.heap_locks, 2 + 1);
    assert_eq!(setup.spans().len(), 2);
    assert_eq!(
        spans.map(|span| setup.lists.span_at(span.base()).is_some()),
        [true, false, false, false, true]
    );
}

#[test]
fn what_threads_may_keep_is_what_was_set_last() {
    let setup = Setup::new();
    // A borrowed central says the same.
    let told = || (setup.lists.thread_cache(), Central::thread_cache(&&setup.lists));
    assert_eq!(told(), (usize::MAX, usize::MAX));
    setup.lists.set_thread_cache(4096);
    assert_eq!(told(), (4096, 4096));
}

#[test]
fn every_lock_that_is_taken_is_counted() {
    let setup = Setup::new();
    let locks = || {
        let locks = setup.lists.locks();
        assert_eq!(Central::locks(&&setup.lists), locks);
        locks
    };
    assert_eq!(locks(), 0, "nothing was asked of it");
    // A descriptor comes from its pool, and the span goes to its class.
    let span = setup.cut(CLASS).unwrap();
    assert_eq!(locks(), 1);
    use_slots(span, 1);
    setup.give(span);
    assert_eq!(locks(), 2);
    assert_eq!(setup.lists.take(CLASS + 1, &setup.queue), None);
    assert_eq!(locks(), 2, "a class without a span needs none");
    assert!(setup.take().is_some());
    assert_eq!(locks(), 3);
    // SAFETY: the layout is always this one.
    assert!(unsafe { setup.lists.register(Layout::new::<Owner>()) }.is_some());
    assert_eq!(locks(), 4);
    // SAFETY: the test is the stash's only user.
    unsafe { setup.lists.flush(&Stash::new()) };
    assert_eq!(locks(), 4, "an empty stash has nothing for the pools");
}

#[test]
fn a_parked_owner_is_found_by_whoever_asks() {
    let setup = Setup::new();
    // SAFETY: the layout is always this one; the owner is parked by its only user.
    unsafe {
        let owner = setup.lists.register(Layout::new::<Owner>()).unwrap();
        assert!(setup.lists.park(owner.as_ref(), 100));
        assert_eq!(setup.lists.take_parked(), Some(owner));
        assert_eq!(setup.lists.take_parked(), None);
        assert!(Central::park(&&setup.lists, owner.as_ref(), 100));
        assert_eq!(Central::take_parked(&&setup.lists), Some(owner));
        assert!(!setup.lists.park(owner.as_ref(), usize::MAX / 2), "too much to keep");
        assert!(!Central::park(&&setup.lists, owner.as_ref(), usize::MAX / 2));
    }
}

#[test]
fn a_stash_says_what_it_has() {
    let setup = Setup::new();
    assert!(!setup.stash.has(1) && setup.stash.free_pages() == 0);
    let span = setup.cut(CLASS).unwrap();
    let free = setup.stash.free_pages();
    assert!(free > 1 && setup.stash.has(1) && !setup.stash.has(64));
    // SAFETY: the test owns the span, of which no slot is used, and the stash.
    unsafe {
        setup.lists.release(span, &setup.stash);
        assert_eq!(setup.stash.free_pages(), free + span.pages());
        setup.lists.flush(&setup.stash);
    }
    assert!(!setup.stash.has(1) && setup.stash.free_pages() == 0);
}
