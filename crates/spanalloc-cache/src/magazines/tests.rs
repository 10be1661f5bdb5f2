use spanalloc_central::CentralLists;
use spanalloc_classes::Go67;
use spanalloc_os::Mmap;
use spanalloc_pages::PageHeap;

use super::*;
use crate::policy::Fast;

#[test]
fn an_unused_bin_gives_nothing_and_takes_nothing() {
    let bin = Magazines::new();
    let mut object = 0u64;
    // SAFETY: this thread is the bin's.
    unsafe {
        assert_eq!(bin.pop::<Fast>(), None);
        assert!(!bin.keep((&raw mut object).cast()));
    }
    assert_eq!((bin.loaded(), bin.freed(), bin.limit.get()), (0, 0, 0));
}

#[test]
fn a_bin_takes_up_to_its_limit_and_gives_the_newest_first_after_a_swap() {
    let bin = Magazines::new();
    bin.begin(MAGAZINE_BYTES, usize::MAX);
    let mut objects = [0u64; LEAST + 1];
    let objects = objects.each_mut().map(|object| ptr::from_mut(object).cast::<u8>());
    let (kept, one_more) = (&objects[..LEAST], objects[LEAST]);
    // Each turn the magazines have changed places once more.
    for _ in 0..3 {
        // SAFETY: this thread is the bin's.
        unsafe {
            assert!(kept.iter().all(|object| bin.keep(*object)) && !bin.keep(one_more));
            assert_eq!(bin.pop::<Fast>(), None, "freed objects are not handed out before a swap");
            assert_eq!((bin.loaded(), bin.freed()), (0, LEAST));
            bin.swap();
            assert_eq!((bin.loaded(), bin.freed(), bin.zeroed()), (LEAST, 0, false));
            assert!(bin.keep(one_more));
            assert!(kept.iter().rev().all(|object| bin.pop::<Fast>() == Some(*object)));
            assert_eq!(bin.pop::<Fast>(), None);
            bin.clear_freed();
        }
    }
    bin.end(&CentralLists::<Go67, PageHeap<Mmap>>::new(PageHeap::new(Mmap::new())));
    assert_eq!(bin.limit.get(), 0);
}

#[test]
fn magazines_grow_by_doubling_until_a_bound_or_what_the_thread_may_keep() {
    let grown = AtomicUsize::new(0);
    let bin = Magazines::new();
    bin.begin(64, usize::MAX);
    let mut limits = std::vec![bin.limit.get()];
    while bin.grow(64, &grown, usize::MAX) {
        limits.push(bin.limit.get());
    }
    assert_eq!(limits, [FIRST, 16, 32, 64, MAGAZINE]);
    assert_eq!(grown.load(Ordering::Relaxed), 2 * (MAGAZINE - FIRST) * 64);
    assert_eq!((bin.freed(), bin.inlet.low()), (0, MAGAZINE as u32));
    let large = Magazines::new();
    large.begin(MAGAZINE_BYTES, usize::MAX);
    assert!(!large.grow(MAGAZINE_BYTES, &grown, usize::MAX), "there is room for the least only");
    let late = Magazines::new();
    late.begin(64, 2 * FIRST * 64);
    let most = grown.load(Ordering::Relaxed) + 2 * FIRST * 64;
    assert!(late.grow(64, &grown, most) && !late.grow(64, &grown, most), "the thread keeps enough");
    assert_eq!(late.limit.get(), 2 * FIRST);
    let narrow = Magazines::new();
    assert_eq!(narrow.begin(64, 2 * FIRST * 64 - 1), 2 * 64, "no room for more");
    assert_eq!((narrow.limit.get(), narrow.holds(64)), (1, (2 * 64, 2 * FIRST * 64)));
}

#[test]
fn a_load_is_known_to_be_zero_until_the_next_one() {
    let bin = Magazines::new();
    bin.begin(8, usize::MAX);
    // SAFETY: the last place of the loaded half.
    unsafe { bin.object(MAGAZINE - 1).write(ptr::null_mut()) };
    bin.set_loaded(1, true);
    // SAFETY: this thread is the bin's.
    assert_eq!(unsafe { bin.pop::<Fast>() }, Some(ptr::null_mut()));
    assert!(bin.zeroed(), "the object popped last is one of that load");
    bin.swap();
    assert!(!bin.zeroed());
}

#[test]
fn a_bin_that_was_empty_when_it_was_shut_has_no_late_object() {
    let bin = Magazines::new();
    bin.begin(64, usize::MAX);
    for _ in 0..2 {
        let end = bin.outlet.next();
        // As who shuts it finds it while its thread looks whether there is something.
        bin.outlet.set_next(end + 1);
        bin.shut();
        bin.find_ends();
        bin.outlet.set_next(end);
        bin.reopen();
        assert_eq!((bin.state(), bin.cached()), (OPEN, 0));
        bin.swap();
    }
}
