//! Large objects that were freed lately, kept as they are for the next allocations of about their size.

use core::ptr::{self, NonNull};

use spanalloc_central::{Central, Span, SpanRef};
use spanalloc_pages::PAGE_BYTES;
use spanalloc_sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use crate::cache::Cache;
use crate::large::{most_pages, usable_pages};
use crate::policy::Policy;

/// The most objects that are kept.
const ENTRIES: usize = 16;
/// The largest object that is kept: 1.25 MB, which is also what may be kept in any case.
const LARGEST_PAGES: usize = (1280 << 10) / PAGE_BYTES;
/// The most that is kept by a thread that has many large objects: 4 MB.
const MOST_PAGES: usize = (4 << 20) / PAGE_BYTES;
/// What is kept is at most this part of the thread's live large objects, but for the bounds above.
const PART: usize = 16;
/// The same where large objects have guards, which are dear to make.
const PART_WITH_GUARDS: usize = 4;

/// Spans of large objects that have ended, in a ring. The thread whose state this is uses it alone; the
/// all-zero value is empty.
#[derive(Debug)]
pub(crate) struct Recent {
    /// For each span twice its usable pages, and 1 more if it has a guard; 0 for no span.
    keys: [AtomicU32; ENTRIES],
    spans: [AtomicPtr<Span>; ENTRIES],
    /// The entry that the next span comes to: behind it are the oldest.
    next: AtomicUsize,
    /// Usable pages of all of them.
    pages: AtomicUsize,
    /// Pages of the objects that this thread allocated less those it freed, never below 0.
    live: AtomicUsize,
}

fn key(pages: usize, guarded: bool) -> usize {
    2 * pages + usize::from(guarded)
}

impl Recent {
    pub(crate) const fn new() -> Self {
        Self {
            keys: [const { AtomicU32::new(0) }; ENTRIES],
            spans: [const { AtomicPtr::new(ptr::null_mut()) }; ENTRIES],
            next: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
        }
    }

    /// Counts an object of the thread in or out.
    fn note(&self, pages: usize, born: bool) {
        let live = self.live.load(Ordering::Relaxed);
        let live = if born { live + pages } else { live.saturating_sub(pages) };
        self.live.store(live, Ordering::Relaxed);
    }

    fn entry(&self, index: usize) -> (&AtomicU32, &AtomicPtr<Span>) {
        let index = index % ENTRIES;
        // SAFETY: the index is below the length of both.
        unsafe { (self.keys.get_unchecked(index), self.spans.get_unchecked(index)) }
    }

    /// Takes the span out of an entry, if it has one.
    fn remove(&self, index: usize) -> Option<SpanRef> {
        let (key, span) = self.entry(index);
        let pages = key.load(Ordering::Relaxed) as usize / 2;
        if pages == 0 {
            return None;
        }
        key.store(0, Ordering::Relaxed);
        self.pages.store(self.pages.load(Ordering::Relaxed) - pages, Ordering::Relaxed);
        // SAFETY: an entry with a key is a span.
        NonNull::new(span.load(Ordering::Relaxed))
            .map(|span| unsafe { SpanRef::from_descriptor(span) })
    }

    /// The smallest span that has `pages` to `most` usable pages.
    fn take(&self, pages: usize, most: usize, guarded: bool) -> Option<SpanRef> {
        let (low, high) = (key(pages, guarded) as u32, key(most, guarded) as u32);
        let mut best = (u32::MAX, 0);
        for (index, found) in self.keys.iter().enumerate() {
            let found = found.load(Ordering::Relaxed);
            if found >= low && found <= high && (found ^ low) & 1 == 0 {
                best = best.min((found, index));
            }
        }
        if best.0 == u32::MAX { None } else { self.remove(best.1) }
    }

    /// Takes out the oldest span if there is no room for one of `pages` pages.
    fn make_room(&self, pages: usize, part: usize) -> Option<SpanRef> {
        let next = self.next.load(Ordering::Relaxed);
        let most = (self.live.load(Ordering::Relaxed) / part).clamp(LARGEST_PAGES, MOST_PAGES);
        if self.pages.load(Ordering::Relaxed) + pages > most {
            return (0..ENTRIES).find_map(|age| self.remove(next.wrapping_add(age)));
        }
        self.remove(next)
    }

    /// Keeps a span, for which there is room.
    fn put(&self, span: SpanRef, pages: usize, guarded: bool) {
        let next = self.next.load(Ordering::Relaxed);
        let (place, entry) = self.entry(next);
        place.store(key(pages, guarded) as u32, Ordering::Relaxed);
        entry.store(span.as_ptr().as_ptr(), Ordering::Relaxed);
        self.next.store(next.wrapping_add(1), Ordering::Relaxed);
        self.pages.store(self.pages.load(Ordering::Relaxed) + pages, Ordering::Relaxed);
    }
}

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// A new object of at least `pages` usable pages, where one of about that size was freed.
    pub(crate) fn take_recent(self, pages: usize, guarded: bool) -> Option<SpanRef> {
        if pages > LARGEST_PAGES {
            return None;
        }
        // What has no guard may not have the size of what has one.
        let limit = if guarded { usize::MAX } else { (P::GUARDED_FROM - 1) / PAGE_BYTES };
        let most = most_pages(pages).min(limit.max(pages));
        let span = self.state.recent.take(pages, most, guarded)?;
        span.begin_large();
        Some(span)
    }

    /// Notes that a large object was allocated.
    pub(crate) fn note_large(self, span: SpanRef) {
        self.state.recent.note(usable_pages(span), true);
    }

    /// Keeps the span of a large object that ended, or gives it back.
    ///
    /// # Safety
    /// The caller ended the object.
    pub(crate) unsafe fn keep_large(self, span: SpanRef) {
        let (recent, pages) = (&self.state.recent, usable_pages(span));
        recent.note(pages, false);
        // SAFETY: the object was ended, and so were those that are kept; each is given back once.
        let give_back = |span| unsafe { self.central.discard_large(span) };
        if pages > LARGEST_PAGES {
            return give_back(span);
        }
        let part = if P::GUARDED_FROM == usize::MAX { PART } else { PART_WITH_GUARDS };
        while let Some(other) = recent.make_room(pages, part) {
            give_back(other);
        }
        recent.put(span, pages, span.is_guarded());
    }

    /// Gives every span that is kept back.
    pub(crate) fn flush_recent(self) {
        for span in (0..ENTRIES).filter_map(|index| self.state.recent.remove(index)) {
            // SAFETY: what is kept has ended, and is given back once.
            unsafe { self.central.discard_large(span) };
        }
    }
}

#[cfg(test)]
mod tests {
    use core::alloc::Layout;

    use spanalloc_central::CentralLists;
    use spanalloc_classes::Go67;
    use spanalloc_os::Mmap;
    use spanalloc_pages::{PageHeap, Pages};

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
        use spanalloc_central::Central;
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

    #[test]
    fn what_is_kept_is_bounded() {
        with::<Fast>(|_, cache| {
            let objects = std::vec::Vec::from_iter((0..200).map(|index| {
                let layout = layout(5 + index % 120);
                (cache.alloc(layout).unwrap(), layout)
            }));
            for (object, layout) in objects {
                // SAFETY: allocated above with this layout.
                unsafe { cache.free(object, layout) };
                let kept = snapshot(cache).cached_pages;
                assert!(kept <= super::MOST_PAGES + 64, "{kept} pages are kept");
            }
            let kept = snapshot(cache).cached_pages;
            assert!(kept <= super::LARGEST_PAGES + 64, "{kept} pages, and nothing lives");
            // A large one is not kept.
            pair(cache, super::LARGEST_PAGES + 1);
            assert!(snapshot(cache).cached_pages <= kept);
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
}
