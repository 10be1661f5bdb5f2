use core::alloc::Layout;
use core::ptr::NonNull;

use spanalloc_classes::ClassTable;
use spanalloc_os::Misuse;
use spanalloc_pages::Pages;

use crate::descriptors::Stash;
use crate::owner::Owner;
use crate::queue::Queue;
use crate::span::{Span, SpanRef};
use crate::span_list::SpanList;

/// Central lists as the thread caches above see them.
///
/// # Safety
/// An implementor promises: a span handed out by `take` or `cut` has one owner, the cache whose
/// queue was given, until that cache gives it back; its memory is Ready and its slots overlap no
/// other object; `span_at` finds the span of every address inside a live span and none for any
/// other address; owners and descriptors are never unmapped; nothing unwinds or allocates from an
/// allocator built on these lists.
pub unsafe trait Central {
    /// The size classes.
    type Table: ClassTable;
    /// The page heap below.
    type Heap: Pages;

    /// The page heap below.
    fn heap(&self) -> &Self::Heap;

    /// The most bytes that a thread keeps of what it freed; `usize::MAX` for as many as its use suggests.
    fn thread_cache(&self) -> usize;

    /// A span of `class` with a free slot that no thread holds, if there is one. It is at
    /// [`Place::Current`](crate::Place::Current) and owned by the cache with `queue`.
    fn take(&self, class: u8, queue: &Queue<Span>) -> Option<SpanRef>;

    /// A new span of `class` from the page heap, as [`take`](Self::take). The caller is the only
    /// user of `stash`. None for tiny spans if the table has no class of 16 bytes.
    fn cut(&self, class: u8, queue: &Queue<Span>, stash: &Stash) -> Option<SpanRef>;

    /// Makes a span in which no slot is used one of `class`, as [`take`](Self::take). It may have
    /// another descriptor then. None, and nothing is changed, if spans of that class do not have as
    /// many pages.
    ///
    /// # Safety
    /// The caller owns the span, which is on no list, by the cache with `queue`, and is the only user
    /// of `stash`.
    unsafe fn recut(
        &self,
        span: SpanRef,
        class: u8,
        queue: &Queue<Span>,
        stash: &Stash,
    ) -> Option<SpanRef>;

    /// Gives a span in which no slot is used back to the page heap.
    ///
    /// # Safety
    /// The caller owns the span, which is on no list, and is the only user of `stash`.
    unsafe fn release(&self, span: SpanRef, stash: &Stash);

    /// Gives spans in which no slot is used back to the page heap, all of them at once.
    ///
    /// # Safety
    /// The caller owns the spans, which lie in the [`WINDOW_BYTES`](spanalloc_pages::WINDOW_BYTES) from
    /// `window` on, a multiple of that, and is the only user of `stash`.
    unsafe fn release_window(&self, window: usize, spans: &SpanList, stash: &Stash);

    /// Gives back everything that is in `stash`.
    ///
    /// # Safety
    /// The caller is the only user of `stash`.
    unsafe fn flush(&self, stash: &Stash);

    /// Takes over a span from an owner that is leaving.
    ///
    /// # Safety
    /// The caller owns the span, which is on no list, has closed its queue and folded what was in
    /// it.
    unsafe fn give(&self, span: SpanRef);

    /// Brings the token of a span to its owner, or folds the span if it has none.
    ///
    /// # Safety
    /// The caller holds the token, and every queue that was given to [`take`](Self::take) or
    /// [`cut`](Self::cut) is still mapped.
    unsafe fn deliver(&self, span: SpanRef);

    /// A span that is one object of `pages` pages, aligned to `align_pages` pages. A descriptor is taken
    /// from `stash`, if there is one, whose only user the caller is.
    fn alloc_large(
        &self,
        pages: usize,
        align_pages: usize,
        stash: Option<&Stash>,
    ) -> Option<SpanRef>;

    /// As [`deliver`](Self::deliver), but takes no lock: a span without an owner waits for
    /// [`catch_up`](Self::catch_up).
    ///
    /// # Safety
    /// As for [`deliver`](Self::deliver).
    unsafe fn deliver_or_defer(&self, span: SpanRef);

    /// Leaves a span to the next [`catch_up`](Self::catch_up). Takes no lock.
    ///
    /// # Safety
    /// The caller holds the span's token, or it is large and [ended](SpanRef::end_large).
    unsafe fn defer(&self, span: SpanRef);

    /// Does what was deferred.
    fn catch_up(&self);

    /// Makes the last page of a large object a guard, if that can be had. It stays the last one when the
    /// object is resized, and counts as one of the object's pages.
    ///
    /// # Safety
    /// The span is large and has no guard, and nobody uses its last page.
    unsafe fn guard_large(&self, span: SpanRef) -> bool;

    /// Frees the large object at `address`; ends the process if it is free already.
    ///
    /// # Safety
    /// The span is large, and nobody uses the object.
    unsafe fn free_large(&self, span: SpanRef, address: usize);

    /// Gives the pages of a large object back that is [ended](SpanRef::end_large), and its descriptor to
    /// `stash`, if there is one.
    ///
    /// # Safety
    /// The caller ended the object, and is the only user of `stash`.
    unsafe fn discard_large(&self, span: SpanRef, stash: Option<&Stash>);

    /// Changes the size of a large object in place, if the pages behind it allow and `pages` is not
    /// 0. Returns whether the pages that were added are known to be zero.
    ///
    /// # Safety
    /// The span is large and the caller owns the object; pages cut off are unused.
    unsafe fn resize_large(&self, span: SpanRef, pages: usize) -> Option<bool>;

    /// Gives a large object more pages at another place, aligned to `align_pages` pages, and keeps its
    /// contents: the span is that of the object there, and has no guard. False if there is no such
    /// place; the object is then as it was, but for a guard that the system does not give again.
    ///
    /// # Safety
    /// The span is large and the caller owns the object, which nobody uses by its old address any
    /// more if this returns true. `pages` is no less than the pages of the span.
    unsafe fn move_large(&self, span: SpanRef, pages: usize, align_pages: usize) -> bool;

    /// The span that `address` lies in, for any address, valid or not. Takes no lock.
    fn span_at(&self, address: usize) -> Option<SpanRef>;

    /// An owner for a new cache.
    ///
    /// # Safety
    /// `layout` is the same at every call, and describes a type that begins with an [`Owner`] and
    /// may be all zero. A recycled owner comes as it was left; one that was [parked](Self::park) still
    /// owns its spans.
    unsafe fn register(&self, layout: Layout) -> Option<NonNull<Owner>>;

    /// Keeps an owner for the next cache.
    ///
    /// # Safety
    /// The owner came from [`register`](Self::register), its queue is closed, it owns no span, and
    /// the caller no longer uses it.
    unsafe fn unregister(&self, owner: &Owner);

    /// Keeps an owner with all that it owns for the next cache. `bytes` of its memory are free. False
    /// if such owners keep enough already: then it is still the caller's.
    ///
    /// # Safety
    /// The owner came from [`register`](Self::register) or [`take_parked`](Self::take_parked), its queue
    /// is open, and the caller no longer uses it if this returns true.
    unsafe fn park(&self, owner: &Owner, bytes: usize) -> bool;

    /// An owner that was parked, if there is one. It is the caller's now, with all that it owns.
    fn take_parked(&self) -> Option<NonNull<Owner>>;

    /// Metadata for what a thread keeps: some that was [left](Self::leave_room), or new.
    ///
    /// # Safety
    /// `layout` is the same at every call and begins with an `AtomicPtr`. What is in it is not known, but in new
    /// memory, which is zeroed.
    unsafe fn room(&self, layout: Layout) -> Option<NonNull<u8>>;

    /// Leaves such metadata to the next who asks.
    ///
    /// # Safety
    /// It came from [`room`](Self::room), and nobody uses it any more.
    unsafe fn leave_room(&self, room: NonNull<u8>);

    /// Calls `visit` with every owner ever registered.
    fn for_each_owner(&self, visit: impl FnMut(NonNull<Owner>));

    /// Calls `visit` with every span in use. Exact while no other thread is inside.
    fn for_each_span(&self, visit: impl FnMut(SpanRef));

    /// How often the locks of these lists were taken: those of the classes, of the span descriptors
    /// and of the register of owners. Wraps at `usize::MAX`.
    fn locks(&self) -> usize;

    /// What it is to free an address that no span has: that of an object in pages that went back to
    /// the heap, or of nothing that this allocator knows.
    fn foreign(&self, address: usize) -> Misuse {
        if self.heap().was_handed_out(address) {
            Misuse::DoubleFree
        } else {
            Misuse::ForeignPointer
        }
    }

    /// Ends the process because the program misused the allocator.
    fn die(&self, misuse: Misuse, address: usize, class_bytes: usize) -> !;
}

// SAFETY: every method is passed on to lists that keep the contract.
unsafe impl<C: Central> Central for &C {
    type Table = C::Table;
    type Heap = C::Heap;

    #[inline(always)]
    fn heap(&self) -> &Self::Heap {
        (**self).heap()
    }

    #[inline]
    fn thread_cache(&self) -> usize {
        (**self).thread_cache()
    }

    fn take(&self, class: u8, queue: &Queue<Span>) -> Option<SpanRef> {
        (**self).take(class, queue)
    }

    fn cut(&self, class: u8, queue: &Queue<Span>, stash: &Stash) -> Option<SpanRef> {
        (**self).cut(class, queue, stash)
    }

    unsafe fn recut(
        &self,
        span: SpanRef,
        class: u8,
        queue: &Queue<Span>,
        stash: &Stash,
    ) -> Option<SpanRef> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).recut(span, class, queue, stash) }
    }

    unsafe fn release(&self, span: SpanRef, stash: &Stash) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).release(span, stash) }
    }

    unsafe fn release_window(&self, window: usize, spans: &SpanList, stash: &Stash) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).release_window(window, spans, stash) }
    }

    unsafe fn flush(&self, stash: &Stash) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).flush(stash) }
    }

    unsafe fn give(&self, span: SpanRef) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).give(span) }
    }

    unsafe fn deliver(&self, span: SpanRef) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).deliver(span) }
    }

    fn alloc_large(
        &self,
        pages: usize,
        align_pages: usize,
        stash: Option<&Stash>,
    ) -> Option<SpanRef> {
        (**self).alloc_large(pages, align_pages, stash)
    }

    unsafe fn deliver_or_defer(&self, span: SpanRef) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).deliver_or_defer(span) }
    }

    unsafe fn defer(&self, span: SpanRef) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).defer(span) }
    }

    #[inline(always)]
    fn catch_up(&self) {
        (**self).catch_up();
    }

    unsafe fn guard_large(&self, span: SpanRef) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).guard_large(span) }
    }

    unsafe fn free_large(&self, span: SpanRef, address: usize) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).free_large(span, address) }
    }

    unsafe fn discard_large(&self, span: SpanRef, stash: Option<&Stash>) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).discard_large(span, stash) }
    }

    unsafe fn resize_large(&self, span: SpanRef, pages: usize) -> Option<bool> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).resize_large(span, pages) }
    }

    unsafe fn move_large(&self, span: SpanRef, pages: usize, align_pages: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).move_large(span, pages, align_pages) }
    }

    #[inline(always)]
    fn span_at(&self, address: usize) -> Option<SpanRef> {
        (**self).span_at(address)
    }

    unsafe fn register(&self, layout: Layout) -> Option<NonNull<Owner>> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).register(layout) }
    }

    unsafe fn unregister(&self, owner: &Owner) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).unregister(owner) }
    }

    unsafe fn park(&self, owner: &Owner, bytes: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).park(owner, bytes) }
    }

    fn take_parked(&self) -> Option<NonNull<Owner>> {
        (**self).take_parked()
    }

    unsafe fn room(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).room(layout) }
    }

    unsafe fn leave_room(&self, room: NonNull<u8>) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).leave_room(room) }
    }

    fn for_each_owner(&self, visit: impl FnMut(NonNull<Owner>)) {
        (**self).for_each_owner(visit);
    }

    fn for_each_span(&self, visit: impl FnMut(SpanRef)) {
        (**self).for_each_span(visit);
    }

    fn locks(&self) -> usize {
        (**self).locks()
    }

    fn die(&self, misuse: Misuse, address: usize, class_bytes: usize) -> ! {
        (**self).die(misuse, address, class_bytes)
    }
}
