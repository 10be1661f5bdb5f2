use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use spanalloc_classes::{Class, ClassTable, MAX_CLASSES, MAX_SLOTS};
use spanalloc_os::{Misuse, Report};
use spanalloc_pages::{PageCache, Pages, Pool};
use spanalloc_sync::{Lock, Padded, rank};

use crate::central::Central;
use crate::handover::deliver;
use crate::owner::{Owner, Register};
use crate::queue::Queue;
use crate::remote::Folded;
use crate::span::{Place, Span, SpanRef, TINY, TINY_BYTES, descriptor_bytes};
use crate::span_list::SpanList;

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

/// The lists of one class, under its lock.
type ClassLock<W> = Lock<Lists, W, { rank::CENTRAL }>;

/// Bitmap words of the descriptors in each pool; the last pool is that of tiny spans.
const POOL_WORDS: [usize; 5] = [2, 4, 8, MAX_SLOTS / 64, MAX_SLOTS / 64];

/// One central list per size class, over a page heap.
///
/// `T` is the class table and `H` the page heap, owned or borrowed. The constructor is `const`,
/// so a static works.
pub struct CentralLists<T, H: Pages> {
    heap: H,
    classes: [Padded<ClassLock<H::Wait>>; MAX_CLASSES],
    descriptors: [Pool<Span, H::Wait>; POOL_WORDS.len()],
    owners: Register<H::Wait>,
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
        let tiny = Self::tiny_facts();
        assert!(
            tiny.bytes as usize == TINY_BYTES || tiny.bytes == 0,
            "the class of 16 bytes has 16 bytes or does not exist"
        );
        let [a, b, c, d, e] = POOL_WORDS;
        Self {
            heap,
            classes: [const { Padded::new(Lock::new(Lists::new())) }; MAX_CLASSES],
            descriptors: [
                Pool::new(descriptor_bytes(a, false)),
                Pool::new(descriptor_bytes(b, false)),
                Pool::new(descriptor_bytes(c, false)),
                Pool::new(descriptor_bytes(d, false)),
                Pool::new(descriptor_bytes(e, true)),
            ],
            owners: Register::new(),
            table: PhantomData,
        }
    }

    const fn tiny_facts() -> &'static Class {
        T::CLASSES.class(T::CLASSES.class_of(TINY_BYTES))
    }

    fn facts(class: u8) -> &'static Class {
        if class == TINY { Self::tiny_facts() } else { T::CLASSES.class(class) }
    }

    fn class(&self, class: u8) -> &ClassLock<H::Wait> {
        // SAFETY: `& MAX_CLASSES - 1` is in bounds, MAX_CLASSES being a power of two.
        unsafe { self.classes.get_unchecked(usize::from(class) & (MAX_CLASSES - 1)) }
    }

    fn pool(&self, words: usize, tiny: bool) -> &Pool<Span, H::Wait> {
        let [a, b, c, d, e] = &self.descriptors;
        match words {
            _ if tiny => e,
            0..=2 => a,
            3..=4 => b,
            5..=8 => c,
            _ => d,
        }
    }

    fn pool_of(&self, span: SpanRef) -> &Pool<Span, H::Wait> {
        self.pool(span.slots().div_ceil(64), span.class() == TINY)
    }

    /// Takes the frees of other threads into a span that has no owner and whose class is locked.
    /// The caller brings the token, and keeps it if frees are still under way.
    fn fold(&self, span: SpanRef) -> Folded {
        // SAFETY: the class is locked, the span has no owner, and the caller has the token.
        let fold = unsafe { span.fold() };
        if let Some(slot) = fold.twice {
            self.die(Misuse::DoubleFree, span.address_of(slot), span.bytes());
        }
        fold.folded
    }

    /// Folds a span that has no owner and whose class is locked, on no list, and lists it where it
    /// belongs now, or gives it back to the heap if no slot is used.
    fn settle(&self, lists: &Lists, span: SpanRef, token: bool) {
        let stranded = token && self.fold(span) == Folded::More;
        if stranded {
            span.stranded().leave();
        }
        if span.used() == 0 && span.pending() == 0 {
            self.discard(span, None);
        } else if stranded || span.used() < span.slots() {
            lists.insert(span, Place::Partial);
        } else {
            lists.insert(span, Place::Full);
        }
    }

    /// Gives the pages of a span without used slots to `cache` or to the heap, and its descriptor
    /// to the pool.
    fn discard(&self, span: SpanRef, cache: Option<&PageCache>) {
        let (base, pages) = (span.base(), span.pages());
        let pool = self.pool_of(span);
        span.set_place(Place::Pool);
        // SAFETY: no slot is used, so nobody uses the pages, and this thread is the holder.
        let freed = unsafe {
            self.heap.set_span(base, pages, ptr::null_mut());
            match cache {
                Some(cache) => self.heap.free_cached(cache, base, pages),
                None => self.heap.free(base, pages),
            }
        };
        if freed.is_err() {
            self.die(Misuse::DoubleFree, base, 0);
        }
        // SAFETY: the descriptor came from this pool, and no freer is left in it (`remote`).
        unsafe { pool.put(span.as_ptr()) };
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
        let skipped = SpanList::new();
        let mut found = None;
        while let Some(span) = lists.partial.pop() {
            let token = span.stranded().take() && self.fold(span) == Folded::More;
            if span.used() < span.slots() {
                span.set_place(Place::Current);
                span.ownership().claim(queue);
                if token {
                    // SAFETY: the token is here. The caller's queue is open, so this is not
                    // refused, and the caller folds the span when it next drains the queue.
                    let _ = unsafe { queue.push(span.as_ptr()) };
                }
                found = Some(span);
                break;
            }
            if token {
                span.stranded().leave();
                skipped.push(span);
            } else {
                lists.insert(span, Place::Full);
            }
        }
        while let Some(span) = skipped.pop() {
            lists.partial.push(span);
        }
        found
    }

    fn cut(&self, class: u8, queue: &Queue<Span>, cache: &PageCache) -> Option<SpanRef> {
        let facts = Self::facts(class);
        // SAFETY: the caller is the only user of its page cache.
        let alloc = |pages: u32| unsafe { self.heap.alloc_cached(cache, pages as usize) };
        let (run, slots) = match alloc(facts.span_pages) {
            Some(run) => (run, facts.span_slots),
            None => (alloc(facts.pages)?, facts.slots),
        };
        let slots = slots as usize;
        let pool = self.pool(slots.div_ceil(64), class == TINY);
        let Some(descriptor) = pool.get(&self.heap) else {
            // SAFETY: the run was just handed out and is unused.
            let _ = unsafe { self.heap.free_cached(cache, run.address, run.pages) };
            return None;
        };
        // SAFETY: the descriptor is from the pool for this many words, the run has the room that
        // the table says.
        let span = unsafe {
            let span = SpanRef::from_descriptor(descriptor);
            span.cut(class, facts, slots, run);
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
        let token = span.stranded().take();
        self.settle(&lists, span, token);
    }

    unsafe fn deliver(&self, span: SpanRef) {
        // SAFETY: the caller holds the token; the class lock guards the owner.
        unsafe {
            deliver(span.as_ptr(), self.class(span.class()), |lists, span| {
                let span = SpanRef::from_descriptor(span);
                lists.remove(span);
                self.settle(lists, span, true);
            });
        }
    }

    fn alloc_large(&self, pages: usize, align_pages: usize) -> Option<SpanRef> {
        u32::try_from(pages).ok()?;
        let run = self.heap.alloc(pages, align_pages)?;
        let Some(descriptor) = self.pool(1, false).get(&self.heap) else {
            // SAFETY: the run was just handed out and is unused.
            let _ = unsafe { self.heap.free(run.address, run.pages) };
            return None;
        };
        // SAFETY: the descriptor is from the pool, this thread owns the run; entries of this heap
        // are descriptors of spans.
        unsafe {
            let span = SpanRef::from_descriptor(descriptor);
            span.cut_large(run);
            self.heap.set_span(run.address, run.pages, descriptor.as_ptr().cast());
            Some(span)
        }
    }

    unsafe fn free_large(&self, span: SpanRef) {
        if !span.end_large() {
            self.die(Misuse::DoubleFree, span.base(), 0);
        }
        self.discard(span, None);
    }

    unsafe fn resize_large(&self, span: SpanRef, pages: usize) -> Option<bool> {
        let (base, now) = (span.base(), span.pages());
        u32::try_from(pages).ok()?;
        if pages < now {
            let tail = base + pages * spanalloc_pages::PAGE_BYTES;
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
        for pool in &self.descriptors {
            pool.objects().for_each(|descriptor| {
                // SAFETY: the pool holds descriptors of spans; one that was never cut is all zero,
                // and so at `Place::Pool`.
                let span = unsafe { SpanRef::from_descriptor(descriptor) };
                if span.place() != Place::Pool {
                    visit(span);
                }
            });
        }
    }

    #[cold]
    #[inline(never)]
    fn die(&self, misuse: Misuse, address: usize, class_bytes: usize) -> ! {
        self.heap.die(Report { misuse, address, class_bytes })
    }
}
