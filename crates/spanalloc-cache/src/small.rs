//! The small path behind the bins: refill, and what becomes of spans.

use core::alloc::Layout;
use core::ptr;

use spanalloc_central::remote::Marked;
use spanalloc_central::{Central, LARGE, Place, SpanRef, class_facts};
use spanalloc_classes::Class;
use spanalloc_os::Misuse;
use spanalloc_pages::{PAGE_BYTES, Pages};
use spanalloc_sync::atomic::Ordering;

use crate::bin::{Keep, Load, Spans};
use crate::cache::{Cache, Path};
use crate::policy::Policy;
use crate::slots::mixed;

/// The most free slots that a full span needs before it is worth taking from again.
const USEFUL_SLOTS: usize = 64;

impl<'a, C: Central, P: Policy> Cache<'a, C, P> {
    /// Takes an object from a bin that has none at hand, as a rule, and tells whether it is known to hold zeros.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_small_slow(self, class: u8) -> (*mut u8, bool) {
        self.wake();
        // A cache that was just taken over from another thread may have some.
        let taken = self.try_alloc_known_of(class).or_else(|| {
            let refilled = self.refill(class) || self.refill_at_last(class);
            if refilled { self.try_alloc_known_of(class) } else { None }
        });
        self.heed();
        taken.unwrap_or((ptr::null_mut(), false))
    }

    /// As [`refill`](Self::refill), when that had nothing.
    #[cold]
    #[inline(never)]
    fn refill_at_last(self, class: u8) -> bool {
        let bytes = class_facts::<C::Table>(class).span_pages as usize * PAGE_BYTES;
        self.insist(bytes, || self.refill(class).then_some(())).is_some()
    }

    /// Brings objects to hand, from the nearest place that has some. The bin has none that could be popped.
    fn refill(self, class: u8) -> bool {
        let bin = self.prepare(class);
        if P::Bin::recover(self, class) {
            return true;
        }
        let spans = bin.spans();
        loop {
            if let Some(span) = spans.current() {
                // SAFETY: this thread owns its current span, which is of this class.
                match unsafe { bin.load(span) } {
                    Load::Loaded => {
                        if P::SHUFFLES {
                            let secret = self.central.heap().secret();
                            bin.stir(mixed(secret, ptr::from_ref(bin).addr()) as u32);
                        }
                        return true;
                    }
                    Load::Exhausted => self.retire(spans, span),
                    Load::Twice(slot) => {
                        self.central.die(Misuse::DoubleFree, span.address_of(slot), span.bytes())
                    }
                }
            }
            let Some(span) = self.next_span(spans, class) else {
                return false;
            };
            span.set_place(Place::Current);
            span.set_notify(0);
            spans.set_current(Some(span));
        }
    }

    /// The bin of a class, in use.
    pub(crate) fn prepare(self, class: u8) -> &'a P::Bin {
        let bin = self.state.bin(class);
        if !bin.is_in_use() {
            self.begin(bin, class_facts::<C::Table>(class).bytes as usize);
            self.state.set_used(class, true);
        }
        bin
    }

    /// A span with free slots: the thread's own, then what others freed into its spans, then the
    /// thread's empty ones of the class, then central, then the empty ones of other classes, then the
    /// heap, and at last its own spans with too few free slots to look for.
    fn next_span(self, bin: &Spans, class: u8) -> Option<SpanRef> {
        if let Some(span) = bin.partial.pop() {
            return Some(span);
        }
        let queue = &self.state.owner.queue;
        if self.state.untidy.load(Ordering::Relaxed) {
            self.tidy_slow();
        }
        if !queue.is_empty() {
            self.drain();
            if let Some(span) = bin.partial.pop() {
                return Some(span);
            }
        }
        self.acquire(class).or_else(|| self.find_hidden(bin))
    }

    /// Rehomes every full span that has free slots worth looking for.
    #[cold]
    #[inline(never)]
    fn tidy_slow(self) {
        self.state.untidy.store(false, Ordering::Relaxed);
        for (_, bin) in self.state.used_bins() {
            let mut next = bin.spans().full.first();
            while let Some(span) = next {
                next = bin.spans().full.after(span);
                if span.used() <= most_used(span) {
                    self.rehome_slow(span);
                }
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn find_hidden(self, bin: &Spans) -> Option<SpanRef> {
        let mut next = bin.full.first();
        while let Some(span) = next {
            if span.used() < span.slots() {
                bin.full.remove(span);
                return Some(span);
            }
            next = bin.full.after(span);
        }
        None
    }

    /// Puts the exhausted current span aside until it has a useful number of free slots.
    fn retire(self, bin: &Spans, span: SpanRef) {
        span.set_place(Place::Full);
        span.set_notify(most_used(span));
        bin.full.push(span);
        bin.set_current(None);
    }

    /// Moves a span whose number of used slots fell to where it belongs now.
    #[cold]
    #[inline(never)]
    pub(crate) fn rehome_slow(self, span: SpanRef) {
        let bin = self.state.bin(span.class()).spans();
        let empty = span.used() == 0;
        match span.place() {
            Place::Full => bin.full.remove(span),
            Place::Partial if empty => bin.partial.remove(span),
            _ => return,
        }
        if empty {
            return self.keep_empty(span);
        }
        bin.partial.push(span);
        span.set_place(Place::Partial);
        span.set_notify(0);
    }

    /// The span and the slot of an object of `class`; ends the process if there is none.
    #[inline(always)]
    pub(crate) fn locate(
        central: &C,
        class: u8,
        facts: &Class,
        address: usize,
    ) -> (SpanRef, usize) {
        let Some(span) = central.span_at(address) else {
            central.die(central.foreign(address), address, 0);
        };
        if span.class() != class {
            central.die(Misuse::SizeMismatch, address, class_bytes(span));
        }
        let Some(slot) = span.slot_at(address) else {
            central.die(Misuse::NotAnObjectStart, address, facts.bytes as usize);
        };
        (span, slot)
    }

    /// Does what a mark in another thread's span asks for.
    pub(crate) fn announce(central: &C, span: SpanRef, marked: Marked, address: usize) {
        match marked {
            Marked::Done => {}
            // SAFETY: the mark gave this thread the token.
            Marked::Token => unsafe { central.deliver(span) },
            Marked::Twice => central.die(Misuse::DoubleFree, address, span.bytes()),
        }
    }

    /// Frees an object as a thread that has no cache: into its span, whoever owns that.
    ///
    /// # Safety
    /// As for [`free`](Self::free).
    #[cold]
    #[inline(never)]
    pub unsafe fn free_uncached(central: &C, object: *mut u8, layout: Layout) {
        let address = object.addr();
        match Self::path(layout) {
            // SAFETY: the caller's promise is passed on.
            Path::Large => unsafe {
                let span = Self::large_span(central, address);
                if P::WIPES {
                    if !span.end_large(address) {
                        central.die(Misuse::DoubleFree, address, 0);
                    }
                    Self::wipe_large(central, span);
                    central.discard_large(span, None);
                } else {
                    central.free_large(span, address);
                }
            },
            Path::Tiny => {
                let (span, slot) = Self::locate_tiny(central, address);
                // SAFETY: nobody uses the object (contract), and its span is tiny.
                Self::announce(central, span, unsafe { span.mark_tiny(slot) }, address);
            }
            Path::Small(class) => {
                let (span, slot) =
                    Self::locate(central, class, class_facts::<C::Table>(class), address);
                // SAFETY: nobody uses the object (contract), and its span is not tiny.
                let marked = unsafe {
                    let ended = Self::end_slot_if_live(central, span, slot, address);
                    if ended { span.mark(slot) } else { Marked::Twice }
                };
                Self::announce(central, span, marked, address);
            }
        }
    }

    /// Takes in what other threads freed into this thread's spans.
    pub(crate) fn drain(self) {
        for span in self.state.owner.queue.drain() {
            // SAFETY: only spans are queued.
            self.take_in(unsafe { SpanRef::from_descriptor(span) });
        }
    }

    /// Folds a span whose token this thread has.
    pub(crate) fn take_in(self, span: SpanRef) {
        let queue = &self.state.owner.queue;
        if !span.ownership().is(queue) {
            // SAFETY: the token came off the queue with the span.
            return unsafe { self.central.deliver(span) };
        }
        // SAFETY: this thread owns the span and has its token.
        if let Some(slot) = unsafe { span.fold() } {
            self.central.die(Misuse::DoubleFree, span.address_of(slot), span.bytes());
        }
        let freed = match span.place() {
            Place::Full => span.used() <= most_used(span),
            _ => span.used() == 0,
        };
        if freed {
            self.rehome_slow(span);
        }
    }

    /// Gives everything that no object lives in back to the heap, of this cache and of those that were
    /// [parked](Self::park), so that another class may use it. For when memory is short.
    #[cold]
    #[inline(never)]
    pub fn reclaim(self) {
        self.reclaim_own();
        Self::close_parked(self.central);
    }

    /// Gives back what this cache keeps.
    pub(crate) fn reclaim_own(self) {
        self.give_back_kept();
        self.rest();
    }

    /// As [`reclaim_own`](Self::reclaim_own), but for the memory of the bins themselves.
    pub(crate) fn give_back_kept(self) {
        self.flush_recent();
        self.drain();
        self.tidy_slow();
        for (class, bin) in self.state.used_bins() {
            P::Bin::flush(self, class);
            let bin = bin.spans();
            if let Some(span) = bin.current() {
                self.retire(bin, span);
                if span.used() <= most_used(span) {
                    self.rehome_slow(span);
                }
            }
            let mut next = bin.partial.first();
            while let Some(span) = next {
                next = bin.partial.after(span);
                if span.used() == 0 {
                    self.rehome_slow(span);
                }
            }
        }
        self.trim(0);
        // SAFETY: this thread is the only user of its stash.
        unsafe { self.central.flush(&self.state.stash) };
    }
}

/// The most used slots with which a full span is worth taking from again: an eighth of the slots is
/// free, or 64 of them, and at least one.
fn most_used(span: SpanRef) -> usize {
    span.slots() - (span.slots() / 8).clamp(1, USEFUL_SLOTS)
}

/// Bytes of the span's size class; 0 if it has none.
pub(crate) fn class_bytes(span: SpanRef) -> usize {
    if span.class() == LARGE { 0 } else { span.bytes() }
}
