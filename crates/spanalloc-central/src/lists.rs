use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use spanalloc_classes::{Class, ClassTable, MAX_CLASSES, MAX_SLOTS};
use spanalloc_os::{Misuse, Report};
use spanalloc_pages::{PAGE_BYTES, PageCache, Pages, Pool};
use spanalloc_sync::atomic::Ordering;
use spanalloc_sync::fault::{self, Fault};
use spanalloc_sync::{Lock, Padded, Wait, rank};

use crate::central::Central;
use crate::handover::{deliver, push_to_owner};
use crate::owner::{Owner, Register};
use crate::queue::Queue;
use crate::span::{LARGE, Place, Span, SpanRef, TINY, TINY_BYTES, descriptor_bytes};
use crate::span_list::SpanList;

#[cfg(test)]
mod tests;

const _: () = assert!(
    spanalloc_classes::PAGE_BYTES as usize == PAGE_BYTES,
    "size classes and page heap mean the same by a page"
);

/// The spans of one class that have no owner.
#[derive(Debug, Default)]
struct Lists {
    partial: SpanList,
    full: SpanList,
}

// SAFETY: the spans on the lists belong to whoever holds the lock around them.
unsafe impl Send for Lists {}

impl Lists {
    const fn new() -> Self {
        Self { partial: SpanList::new(), full: SpanList::new() }
    }

    fn insert(&self, span: SpanRef, place: Place) {
        span.set_place(place);
        match place {
            Place::Full => self.full.push(span),
            _ => self.partial.push(span),
        }
    }

    fn remove(&self, span: SpanRef) {
        match span.place() {
            Place::Full => self.full.remove(span),
            _ => self.partial.remove(span),
        }
    }
}

/// The facts of a class in the table `T`. Slots that tiny objects share are those of the class of 16
/// bytes, if the table has one.
#[must_use]
pub const fn class_facts<T: ClassTable>(class: u8) -> &'static Class {
    let class = if class == TINY { T::CLASSES.class_of(TINY_BYTES) } else { class };
    T::CLASSES.class(class)
}

/// The lists of one class, under its lock.
type ClassLock<W> = Lock<Lists, W, { rank::CENTRAL }>;

/// Bitmap words of the descriptors in each pool of ordinary and large spans.
const POOL_WORDS: [usize; 5] = [2, 4, 8, 16, MAX_SLOTS / 64];

/// Descriptors of one capacity.
struct Descriptors<W: Wait> {
    words: usize,
    pool: Pool<Span, W>,
}

impl<W: Wait> Descriptors<W> {
    const fn new(words: usize, tiny: bool) -> Self {
        Self { words, pool: Pool::new(descriptor_bytes(words, tiny)) }
    }
}

/// One central list per size class, over a page heap.
///
/// `T` is the class table and `H` the page heap, owned or borrowed. The constructor is `const`,
/// so a static works.
pub struct CentralLists<T, H: Pages> {
    pub(crate) heap: H,
    classes: [Padded<ClassLock<H::Wait>>; MAX_CLASSES],
    descriptors: [Descriptors<H::Wait>; POOL_WORDS.len()],
    tiny_descriptors: Descriptors<H::Wait>,
    owners: Register<H::Wait>,
    /// Spans that were left to be delivered or discarded later.
    deferred: Queue<Span>,
    table: PhantomData<fn() -> T>,
}

impl<T, H: Pages + fmt::Debug> fmt::Debug for CentralLists<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CentralLists").field("heap", &self.heap).finish_non_exhaustive()
    }
}

impl<T: ClassTable, H: Pages> CentralLists<T, H> {
    /// Empty lists over `heap`.
    pub const fn new(heap: H) -> Self {
        let tiny = class_facts::<T>(TINY);
        let [a, b, c, d, e] = POOL_WORDS;
        Self {
            heap,
            classes: [const { Padded::new(Lock::new(Lists::new())) }; MAX_CLASSES],
            descriptors: [
                Descriptors::new(a, false),
                Descriptors::new(b, false),
                Descriptors::new(c, false),
                Descriptors::new(d, false),
                Descriptors::new(e, false),
            ],
            tiny_descriptors: Descriptors::new((tiny.span_slots as usize).div_ceil(64), true),
            owners: Register::new(),
            deferred: Queue::new(),
            table: PhantomData,
        }
    }

    fn class(&self, class: u8) -> &ClassLock<H::Wait> {
        // SAFETY: `& MAX_CLASSES - 1` is in bounds, MAX_CLASSES being a power of two.
        unsafe { self.classes.get_unchecked(usize::from(class) & (MAX_CLASSES - 1)) }
    }

    fn descriptors(&self, class: u8, slots: usize) -> &Descriptors<H::Wait> {
        let [a, b, c, d, e] = &self.descriptors;
        match slots.div_ceil(64) {
            _ if class == TINY => &self.tiny_descriptors,
            0..=2 => a,
            3..=4 => b,
            5..=8 => c,
            9..=16 => d,
            _ => e,
        }
    }

    /// Takes the frees of other threads into a span that has no owner and whose class is locked.
    /// The caller brings the token, which ends.
    fn fold(&self, span: SpanRef) {
        // SAFETY: the class is locked, the span has no owner, and the caller has the token.
        if let Some(slot) = unsafe { span.fold() } {
            self.die(Misuse::DoubleFree, span.address_of(slot), span.bytes());
        }
    }

    /// Lists a span that has no owner, whose class is locked and which is on no list, or gives it
    /// back to the heap if no slot is used.
    fn settle(&self, lists: &Lists, span: SpanRef) {
        if span.used() == 0 {
            self.discard(span, None);
        } else if span.used() < span.slots() {
            lists.insert(span, Place::Partial);
        } else {
            lists.insert(span, Place::Full);
        }
    }

    /// Ends the process if another thread freed a slot of a span in which no slot is used.
    fn assert_unmarked(&self, span: SpanRef) {
        let words = span.remote_words();
        if let Some(word) = words.iter().position(|word| word.load(Ordering::Relaxed) != 0) {
            let slot = if span.class() == TINY { word * 8 } else { word * 64 };
            self.die(Misuse::DoubleFree, span.address_of(slot), span.bytes());
        }
    }

    /// Gives the pages of a span without used slots to `cache` or to the heap, and its descriptor
    /// to the pool.
    fn discard(&self, span: SpanRef, cache: Option<&PageCache>) {
        let descriptors = self.descriptors(span.class(), span.slots());
        if span.class() != LARGE {
            self.assert_unmarked(span);
        }
        let (base, all) = (span.base(), span.pages());
        // A guard that the system leaves one is lost to the heap.
        let lost = span.is_guarded() && !self.drop_guard(span);
        let pages = all - usize::from(lost);
        span.set_place(Place::Pool);
        // SAFETY: no slot is used, so nobody uses the pages, and this thread is the holder.
        let freed = unsafe {
            self.heap.set_span(base, all, ptr::null_mut());
            match cache {
                Some(cache) => self.heap.free_cached(cache, base, pages),
                None => self.heap.free(base, pages),
            }
        };
        if freed.is_err() {
            self.die(Misuse::DoubleFree, base, 0);
        }
        // SAFETY: the descriptor came from this pool, and no freer is left in it (`remote`).
        unsafe { descriptors.pool.put(span.as_ptr()) };
    }
}

impl<T: ClassTable, H: Pages> CentralLists<T, H> {
    /// Makes the guard of a large object an ordinary page. False if the system refuses.
    pub(crate) fn drop_guard(&self, span: SpanRef) -> bool {
        // SAFETY: the last page is a guard.
        let done = unsafe { self.heap.unguard(span.last_page()) };
        span.set_guarded(!done);
        done
    }

    /// As [`Central::resize_large`], of an object without a guard.
    ///
    /// # Safety
    /// As there.
    unsafe fn resize_unguarded(&self, span: SpanRef, pages: usize) -> Option<bool> {
        let (base, now) = (span.base(), span.pages());
        if pages < now {
            let tail = base + pages * PAGE_BYTES;
            // SAFETY: the caller owns the object and gives its tail back.
            unsafe {
                self.heap.set_span(tail, now - pages, ptr::null_mut());
                self.heap.free(tail, now - pages).ok()?;
            }
            span.resize_large(pages);
        } else if pages > now {
            // SAFETY: the caller owns the object, whose pages this heap handed out.
            let run = unsafe { self.heap.extend(base, now, pages - now) }?;
            // SAFETY: as above; the new pages are this object's.
            unsafe { self.heap.set_span(run.address, run.pages, span.as_ptr().as_ptr().cast()) };
            span.resize_large(pages);
            return Some(run.zeroed);
        }
        Some(false)
    }

    #[cold]
    #[inline(never)]
    fn catch_up_slow(&self) {
        for descriptor in self.deferred.drain() {
            // SAFETY: only spans are deferred: ended large ones, and others with their token.
            unsafe {
                let span = SpanRef::from_descriptor(descriptor);
                if span.class() == LARGE {
                    self.discard(span, None);
                } else {
                    self.deliver(span);
                }
            }
        }
    }
}

// SAFETY: each method below keeps its part of the contract; spans come from runs of the page heap,
// change owners only under the class lock, and return to the heap only when no slot is used.
unsafe impl<T: ClassTable, H: Pages> Central for CentralLists<T, H> {
    type Table = T;
    type Heap = H;

    #[inline(always)]
    fn heap(&self) -> &H {
        &self.heap
    }

    fn take(&self, class: u8, queue: &Queue<Span>) -> Option<SpanRef> {
        let lists = self.class(class).lock();
        let span = lists.partial.pop()?;
        span.set_place(Place::Current);
        span.ownership().claim(queue);
        Some(span)
    }

    fn cut(&self, class: u8, queue: &Queue<Span>, cache: &PageCache) -> Option<SpanRef> {
        let facts = class_facts::<T>(class);
        if class == TINY && facts.bytes as usize != TINY_BYTES {
            return None;
        }
        // SAFETY: the caller is the only user of its page cache.
        let alloc = |pages: u32| unsafe { self.heap.alloc_cached(cache, pages as usize) };
        let (run, slots) = match alloc(facts.span_pages) {
            Some(run) => (run, facts.span_slots),
            None => (alloc(facts.pages)?, facts.slots),
        };
        let slots = slots as usize;
        let descriptors = self.descriptors(class, slots);
        let Some(descriptor) = descriptors.pool.get(&self.heap) else {
            // SAFETY: the run was just handed out and is unused.
            let _ = unsafe { self.heap.free_cached(cache, run.address, run.pages) };
            return None;
        };
        // SAFETY: the descriptor is from the pool for this many words, the run has the room that
        // the table says.
        let span = unsafe {
            let span = SpanRef::from_descriptor(descriptor);
            span.cut(descriptors.words, class, facts, slots, run);
            span
        };
        span.ownership().claim(queue);
        // SAFETY: this thread owns the run; entries of this heap are descriptors of spans.
        unsafe { self.heap.set_span(run.address, run.pages, descriptor.as_ptr().cast()) };
        Some(span)
    }

    unsafe fn release(&self, span: SpanRef, cache: &PageCache) {
        span.ownership().disclaim();
        self.discard(span, Some(cache));
    }

    unsafe fn give(&self, span: SpanRef) {
        let lists = self.class(span.class()).lock();
        span.ownership().disclaim();
        if span.stranded().take() && !fault::seeded(Fault::GiveForgetsToken) {
            self.fold(span);
        }
        self.settle(&lists, span);
    }

    unsafe fn deliver(&self, span: SpanRef) {
        // SAFETY: the caller holds the token; the class lock guards the owner.
        unsafe {
            deliver(span.as_ptr(), self.class(span.class()), |lists, span| {
                let span = SpanRef::from_descriptor(span);
                // A span that is on no list has no slot that anybody could free.
                if !matches!(span.place(), Place::Partial | Place::Full) {
                    self.die(Misuse::DoubleFree, span.base(), span.bytes());
                }
                lists.remove(span);
                self.fold(span);
                self.settle(lists, span);
            });
        }
    }

    fn alloc_large(&self, pages: usize, align_pages: usize) -> Option<SpanRef> {
        u32::try_from(pages).ok()?;
        let run = self.heap.alloc(pages, align_pages)?;
        let descriptors = self.descriptors(LARGE, 1);
        let Some(descriptor) = descriptors.pool.get(&self.heap) else {
            // SAFETY: the run was just handed out and is unused.
            let _ = unsafe { self.heap.free(run.address, run.pages) };
            return None;
        };
        // SAFETY: the descriptor is from the pool, this thread owns the run; entries of this heap
        // are descriptors of spans.
        unsafe {
            let span = SpanRef::from_descriptor(descriptor);
            span.cut_large(descriptors.words, run);
            self.heap.set_span(run.address, run.pages, descriptor.as_ptr().cast());
            Some(span)
        }
    }

    unsafe fn deliver_or_defer(&self, span: SpanRef) {
        // SAFETY: the caller holds the token, which comes back with the refusal.
        unsafe {
            if !push_to_owner(span.as_ptr()) {
                self.defer(span);
            }
        }
    }

    unsafe fn defer(&self, span: SpanRef) {
        // SAFETY: the token, or a large object that has ended, gives the right to the link; this
        // queue is never closed.
        let _ = unsafe { self.deferred.push(span.as_ptr()) };
    }

    #[inline(always)]
    fn catch_up(&self) {
        if !self.deferred.is_empty() {
            self.catch_up_slow();
        }
    }

    unsafe fn free_large(&self, span: SpanRef, address: usize) {
        if !span.end_large(address) {
            self.die(Misuse::DoubleFree, address, 0);
        }
        self.discard(span, None);
    }

    unsafe fn discard_large(&self, span: SpanRef) {
        self.discard(span, None);
    }

    unsafe fn guard_large(&self, span: SpanRef) -> bool {
        // SAFETY: the page is the object's last and unused (contract).
        let guarded = unsafe { self.heap.guard(span.last_page()) };
        span.set_guarded(guarded);
        guarded
    }

    unsafe fn resize_large(&self, span: SpanRef, pages: usize) -> Option<bool> {
        u32::try_from(pages).ok()?;
        let guarded = span.is_guarded();
        if pages <= usize::from(guarded) || (guarded && !self.drop_guard(span)) {
            return None;
        }
        // SAFETY: the caller owns the object and gives up what is cut off.
        let resized = unsafe { self.resize_unguarded(span, pages) };
        if guarded {
            // SAFETY: the last page, where no guard is, is the allocator's.
            unsafe { self.guard_large(span) };
        }
        resized
    }

    unsafe fn move_large(&self, span: SpanRef, pages: usize, align_pages: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.move_to_more_pages(span, pages, align_pages) }
    }

    #[inline(always)]
    fn span_at(&self, address: usize) -> Option<SpanRef> {
        let descriptor = NonNull::new(self.heap.span_of(address).cast::<Span>())?;
        // SAFETY: entries of this heap are descriptors of spans.
        Some(unsafe { SpanRef::from_descriptor(descriptor) })
    }

    unsafe fn register(&self, layout: Layout) -> Option<NonNull<Owner>> {
        // SAFETY: the caller keeps the same contract.
        unsafe { self.owners.get(&self.heap, layout) }
    }

    unsafe fn unregister(&self, owner: &Owner) {
        self.owners.put(owner);
    }

    fn for_each_owner(&self, visit: impl FnMut(NonNull<Owner>)) {
        self.owners.for_each(visit);
    }

    fn for_each_span(&self, mut visit: impl FnMut(SpanRef)) {
        for descriptors in self.descriptors.iter().chain([&self.tiny_descriptors]) {
            descriptors.pool.objects().for_each(|descriptor| {
                // SAFETY: the pool holds descriptors of spans; one that was never cut is all zero,
                // and so at `Place::Pool`.
                let span = unsafe { SpanRef::from_descriptor(descriptor) };
                if span.place() != Place::Pool {
                    visit(span);
                }
            });
        }
    }

    fn locks(&self) -> usize {
        let classes = self.classes.iter().map(|class| class.acquisitions());
        let descriptors = self.descriptors.iter().chain([&self.tiny_descriptors]);
        classes
            .chain(descriptors.map(|descriptors| descriptors.pool.acquisitions()))
            .fold(self.owners.acquisitions(), usize::wrapping_add)
    }

    #[cold]
    #[inline(never)]
    fn die(&self, misuse: Misuse, address: usize, class_bytes: usize) -> ! {
        self.heap.die(Report { misuse, address, class_bytes })
    }
}
