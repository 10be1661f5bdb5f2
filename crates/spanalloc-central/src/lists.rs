use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use spanalloc_classes::{Class, ClassTable, MAX_CLASSES};
use spanalloc_os::{Misuse, Report};
use spanalloc_pages::{PAGE_BYTES, Pages, Run};
use spanalloc_sync::Padded;
use spanalloc_sync::atomic::{AtomicUsize, Ordering};
use spanalloc_sync::fault::{self, Fault};

use crate::central::Central;
use crate::class_lists::{ClassLists, Lists};
use crate::descriptors::{Descriptors, Kind, Stash};
use crate::handover::{deliver, push_to_owner};
use crate::owner::{Owner, Register};
use crate::queue::Queue;
use crate::span::{LARGE, Place, Span, SpanRef, TINY, TINY_BYTES};
use crate::span_list::SpanList;
use crate::span_slots::bits_of;

#[cfg(test)]
mod tests;

const _: () = assert!(
    spanalloc_classes::PAGE_BYTES as usize == PAGE_BYTES,
    "size classes and page heap mean the same by a page"
);

/// The facts of a class in the table `T`. Slots that tiny objects share are those of the class of 16
/// bytes, if the table has one.
#[must_use]
pub const fn class_facts<T: ClassTable>(class: u8) -> &'static Class {
    let class = if class == TINY { T::CLASSES.class_of(TINY_BYTES) } else { class };
    T::CLASSES.class(class)
}

/// One central list per size class, over a page heap.
///
/// `T` is the class table and `H` the page heap, owned or borrowed. The constructor is `const`,
/// so a static works.
pub struct CentralLists<T, H: Pages> {
    pub(crate) heap: H,
    classes: [Padded<ClassLists<H::Wait>>; MAX_CLASSES],
    pub(crate) descriptors: Descriptors<H::Wait>,
    owners: Register<H::Wait>,
    /// Spans that were left to be delivered or discarded later.
    deferred: Queue<Span>,
    /// Guards that the system left guards: ended large objects of one page.
    pub(crate) stuck: Queue<Span>,
    /// The most bytes that a thread keeps.
    thread_cache: AtomicUsize,
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
        let tiny_bits =
            bits_of(tiny.span_slots as usize, tiny.bytes as usize, tiny.span_pages as usize);
        Self {
            heap,
            classes: [const { Padded::new(ClassLists::new()) }; MAX_CLASSES],
            descriptors: Descriptors::new(tiny_bits.div_ceil(64)),
            owners: Register::new(),
            deferred: Queue::new(),
            stuck: Queue::new(),
            thread_cache: AtomicUsize::new(usize::MAX),
            table: PhantomData,
        }
    }

    /// Sets the most bytes that each thread keeps of what it freed: a quarter of them at hand in its bins, a quarter as
    /// large objects, the rest as empty spans and as pages that its next spans are cut from; in any case two
    /// objects of each class, and of those pages what is below 1 MB with what is at hand. `usize::MAX`, as at first, is as many
    /// as its use suggests.
    ///
    /// What a thread keeps already it loses as it frees more, and what is at hand when it gives back all.
    pub fn set_thread_cache(&self, bytes: usize) {
        self.thread_cache.store(bytes, Ordering::Relaxed);
    }

    fn class(&self, class: u8) -> &ClassLists<H::Wait> {
        // SAFETY: `& MAX_CLASSES - 1` is in bounds, MAX_CLASSES being a power of two.
        unsafe { self.classes.get_unchecked(usize::from(class) & (MAX_CLASSES - 1)) }
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

    /// Gives the pages of a span without used slots to `stash` or to the heap, and its descriptor
    /// to `stash` or to the pool.
    pub(crate) fn discard(&self, span: SpanRef, stash: Option<&Stash>) {
        if span.is_guarded() && !self.end_guard(span) {
            return;
        }
        let (base, pages) = (span.base(), span.pages());
        self.forget(span, stash);
        // SAFETY: no slot is used, so nobody uses the pages, of which no span is left.
        let freed = unsafe {
            match stash {
                Some(stash) => self.heap.free_cached(&stash.pages, base, pages),
                None => self.heap.free(base, pages),
            }
        };
        if freed.is_err() {
            self.die(Misuse::DoubleFree, base, 0);
        }
    }

    /// Ends a span without used slots: its pages are no span's, and its descriptor is free.
    fn forget(&self, span: SpanRef, stash: Option<&Stash>) {
        // SAFETY: this thread is the holder, and nobody uses the pages.
        unsafe { self.heap.set_span(span.base(), span.pages(), ptr::null_mut()) };
        self.end(span, stash);
    }

    /// Frees the descriptor of a span without used slots, whose pages are no more this span's.
    fn end(&self, span: SpanRef, stash: Option<&Stash>) {
        if span.class() != LARGE {
            self.assert_unmarked(span);
        }
        span.set_place(Place::Pool);
        // SAFETY: this thread is the holder; no freer is left in the descriptor (`remote`).
        unsafe { self.descriptors.put(span, Kind::of(span.class(), span.bits()), stash) };
    }

    /// Makes `run` a span of `class`, owned by the cache with `queue`. None if there is no descriptor.
    ///
    /// # Safety
    /// This thread owns the run, which has room for so many slots, and the stash.
    unsafe fn begin(
        &self,
        class: u8,
        slots: u32,
        run: Run,
        queue: &Queue<Span>,
        stash: &Stash,
    ) -> Option<SpanRef> {
        let (slots, facts) = (slots as usize, class_facts::<T>(class));
        let kind = Kind::of(class, bits_of(slots, facts.bytes as usize, run.pages));
        let (span, words) = self.descriptors.get(&self.heap, kind, Some(stash))?;
        // SAFETY: the descriptor is from the pool for this many words, the run this thread's; entries
        // of this heap are descriptors of spans.
        unsafe {
            span.cut(words, class, facts, slots, run);
            span.ownership().claim(queue);
            self.heap.set_span(run.address, run.pages, span.as_ptr().as_ptr().cast());
        }
        Some(span)
    }
}

impl<T: ClassTable, H: Pages> CentralLists<T, H> {
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
        let class = self.class(class);
        // A span that was listed just now may be missed: that costs another one, no more.
        if !class.partial.load(Ordering::Relaxed) {
            return None;
        }
        let lists = class.lists.lock();
        let span = lists.partial.pop()?;
        class.note(&lists);
        span.set_place(Place::Current);
        span.ownership().claim(queue);
        Some(span)
    }

    fn cut(&self, class: u8, queue: &Queue<Span>, stash: &Stash) -> Option<SpanRef> {
        let facts = class_facts::<T>(class);
        if class == TINY && facts.bytes as usize != TINY_BYTES {
            return None;
        }
        // SAFETY: the caller is the only user of its stash.
        let alloc = |pages: u32| unsafe { self.heap.alloc_cached(&stash.pages, pages as usize) };
        let (run, slots) = match alloc(facts.span_pages) {
            Some(run) => (run, facts.span_slots),
            None => (alloc(facts.pages)?, facts.slots),
        };
        // SAFETY: the run was just handed out, and has the room that the table says.
        let span = unsafe { self.begin(class, slots, run, queue, stash) };
        if span.is_none() {
            // SAFETY: the run was just handed out and is unused.
            let _ = unsafe { self.heap.free_cached(&stash.pages, run.address, run.pages) };
        }
        span
    }

    #[inline]
    fn thread_cache(&self) -> usize {
        self.thread_cache.load(Ordering::Relaxed)
    }

    unsafe fn recut(
        &self,
        span: SpanRef,
        class: u8,
        queue: &Queue<Span>,
        stash: &Stash,
    ) -> Option<SpanRef> {
        let facts = class_facts::<T>(class);
        let slots = match span.pages() as u32 {
            pages if pages == facts.span_pages => facts.span_slots,
            pages if pages == facts.pages => facts.slots,
            _ => return None,
        };
        let run = Run { address: span.base(), pages: span.pages(), zeroed: false };
        let bits = bits_of(slots as usize, facts.bytes as usize, run.pages);
        if Kind::of(class, bits) != Kind::of(span.class(), span.bits()) {
            // SAFETY: the caller owns the span, so the run is its own.
            let other = unsafe { self.begin(class, slots, run, queue, stash) }?;
            span.ownership().disclaim();
            self.end(span, Some(stash));
            return Some(other);
        }
        self.assert_unmarked(span);
        // SAFETY: as above; the descriptor has the words of its pool, which serves the class too.
        unsafe { span.cut(span.words(), class, facts, slots as usize, run) };
        Some(span)
    }

    unsafe fn release(&self, span: SpanRef, stash: &Stash) {
        span.ownership().disclaim();
        self.discard(span, Some(stash));
        self.heap.tend();
    }

    unsafe fn release_window(&self, window: usize, spans: &SpanList, stash: &Stash) {
        let mut pages = 0;
        while let Some(span) = spans.pop() {
            let first = (span.base() - window) / PAGE_BYTES;
            pages |= (u64::MAX >> (64 - span.pages())) << first;
            span.ownership().disclaim();
            self.forget(span, Some(stash));
        }
        // SAFETY: no slot of these pages is used, and no span of them is left.
        if unsafe { self.heap.free_window(&stash.pages, window, pages) }.is_err() {
            self.die(Misuse::DoubleFree, window, 0);
        }
        self.heap.tend();
    }

    unsafe fn flush(&self, stash: &Stash) {
        // SAFETY: the caller is the only user of the stash.
        unsafe { self.heap.flush(&stash.pages) };
        self.descriptors.flush(stash);
    }

    unsafe fn give(&self, span: SpanRef) {
        let class = self.class(span.class());
        let lists = class.lists.lock();
        span.ownership().disclaim();
        if span.stranded().take() && !fault::seeded(Fault::GiveForgetsToken) {
            self.fold(span);
        }
        self.settle(&lists, span);
        class.note(&lists);
    }

    unsafe fn deliver(&self, span: SpanRef) {
        let class = self.class(span.class());
        // SAFETY: the caller holds the token; the class lock guards the owner.
        unsafe {
            deliver(span.as_ptr(), &class.lists, |lists, span| {
                let span = SpanRef::from_descriptor(span);
                // A span that is on no list has no slot that anybody could free.
                if !matches!(span.place(), Place::Partial | Place::Full) {
                    self.die(Misuse::DoubleFree, span.base(), span.bytes());
                }
                lists.remove(span);
                self.fold(span);
                self.settle(lists, span);
                class.note(lists);
            });
        }
    }

    fn alloc_large(
        &self,
        pages: usize,
        align_pages: usize,
        stash: Option<&Stash>,
    ) -> Option<SpanRef> {
        self.begin_large(pages, align_pages, stash)
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
        self.heap.tend();
    }

    unsafe fn discard_large(&self, span: SpanRef, stash: Option<&Stash>) {
        self.discard(span, stash);
        self.heap.tend();
    }

    unsafe fn guard_large(&self, span: SpanRef) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.put_guard(span) }
    }

    unsafe fn resize_large(&self, span: SpanRef, pages: usize) -> Option<bool> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.resize_in_place(span, pages) }
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

    unsafe fn park(&self, owner: &Owner, bytes: usize) -> bool {
        self.owners.park(owner, bytes)
    }

    fn take_parked(&self) -> Option<NonNull<Owner>> {
        self.owners.take_parked()
    }

    unsafe fn room(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.owners.room().or_else(|| self.heap.metadata(layout))
    }

    unsafe fn leave_room(&self, room: NonNull<u8>) {
        // SAFETY: it came from `room`, whose layout begins with such a pointer, and nobody uses it (contract).
        unsafe { self.owners.leave_room(room.cast()) };
    }

    fn for_each_owner(&self, visit: impl FnMut(NonNull<Owner>)) {
        self.owners.for_each(visit);
    }

    fn for_each_span(&self, mut visit: impl FnMut(SpanRef)) {
        // A descriptor that was never cut is all zero, and so at `Place::Pool`.
        self.descriptors.all().filter(|span| span.place() != Place::Pool).for_each(&mut visit);
    }

    fn locks(&self) -> usize {
        let classes = self.classes.iter().map(|class| class.lists.acquisitions());
        classes
            .chain([self.descriptors.acquisitions(), self.owners.acquisitions()])
            .fold(0, usize::wrapping_add)
    }

    #[cold]
    #[inline(never)]
    fn die(&self, misuse: Misuse, address: usize, class_bytes: usize) -> ! {
        self.heap.die(Report { misuse, address, class_bytes })
    }
}
