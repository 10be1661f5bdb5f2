//! What caches do that keep their objects in [`Words`]: they know of every address whether a live object
//! starts there, need no Layout to free it, and find every misuse at the call that makes it.

use core::alloc::Layout;
use core::ptr;

use spanalloc_central::remote::Marked;
use spanalloc_central::{Central, LARGE, Put, SpanRef};
use spanalloc_os::{Misuse, Report};
use spanalloc_pages::{PAGE_BYTES, Pages};
use spanalloc_sync::atomic::Ordering;

use crate::cache::{Cache, Path};
use crate::large::{most_pages, pages_of, usable_pages};
use crate::policy::Policy;
use crate::small::class_bytes;
use crate::words::Words;

/// What freeing an object without a lock came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Freed {
    /// It is free.
    Done,
    /// It is free, and its span has to be [rehomed](Cache::rehome).
    Rehome(SpanRef),
    /// Nothing was done: it is not live, not of such a span, or not of the class.
    Not,
}

/// What it takes to give an object another layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Nothing: it has the class or the pages of that layout.
    Fits,
    /// To move it: it is a live small object with this many bytes.
    Moves(usize),
    /// It is large, or not live.
    Other,
}

fn report(misuse: Misuse, address: usize, span: SpanRef) -> Report {
    Report { misuse, address, class_bytes: class_bytes(span) }
}

/// The report of an object that is not of the class it is freed as.
pub(crate) fn mismatch(span: SpanRef, address: usize) -> Report {
    report(Misuse::SizeMismatch, address, span)
}

impl<'a, C: Central, P: Policy<Bin = Words>> Cache<'a, C, P> {
    /// The span that `address` lies in, if this thread owns it.
    #[inline(always)]
    pub(crate) fn own_span(self, address: usize) -> Option<SpanRef> {
        let span = self.central.span_at(address)?;
        span.ownership().is(&self.state.owner.queue).then_some(span)
    }

    /// Frees the slot at `address` into a span of this thread.
    ///
    /// # Safety
    /// This thread owns the span, which is of this class and of which no slot may be marked; nobody uses the
    /// object.
    #[inline(always)]
    unsafe fn put(self, span: SpanRef, class: u8, address: usize) -> Freed {
        let Some(slot) = span.slot_or_tail_at(address) else {
            return Freed::Not;
        };
        // SAFETY: this thread owns the span (contract), and with it the bin of its class.
        unsafe {
            if !span.set_free(slot, || Self::end_slot(self.central, span, address)) {
                return Freed::Not;
            }
            if !P::SHUFFLES
                && self
                    .state
                    .bin(class)
                    .keep(ptr::with_exposed_provenance_mut(address), span.slot(slot))
            {
                return Freed::Done;
            }
            match span.count_free(1) {
                Put::Notify => Freed::Rehome(span),
                _ => Freed::Done,
            }
        }
    }

    /// Frees an object of this thread's spans whose Layout need not be known. Takes no lock.
    ///
    /// # Safety
    /// Whatever object starts at this address came from a cache over the same central lists, and
    /// nobody uses it any more. Any other address is harmless.
    #[inline(always)]
    pub unsafe fn try_free_unsized(self, object: *mut u8) -> Freed {
        let Some(span) = self.own_span(object.addr()) else { return Freed::Not };
        match span.unmarked_class() {
            // SAFETY: this thread owns the span, of which that is the class; nobody uses the object (contract).
            Some(class) => unsafe { self.put(span, class, object.addr()) },
            None => Freed::Not,
        }
    }

    /// As [`try_free_unsized`](Self::try_free_unsized), if the object is of this class.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn try_free_as(self, object: *mut u8, class: u8) -> Freed {
        match self.own_span(object.addr()) {
            // SAFETY: this thread owns the span, of which that is the class; nobody uses the object (contract).
            Some(span) if span.is_unmarked(class) => unsafe {
                self.put(span, class, object.addr())
            },
            _ => Freed::Not,
        }
    }

    /// The class of objects of this layout, if it is one of those that most objects have; by a few
    /// instructions.
    #[inline(always)]
    #[must_use]
    pub fn common_class(size: usize, align: usize) -> Option<u8> {
        Self::common(size, align)
    }

    /// The class of objects of this layout; None if they are large.
    #[inline]
    #[must_use]
    pub fn class_of(layout: Layout) -> Option<u8> {
        match Self::path(layout) {
            Path::Small(class) => Some(class),
            _ => None,
        }
    }

    /// Frees a small object, whoever owns its span; if `class` is given, only one of this class. Takes no lock.
    ///
    /// # Safety
    /// As for [`try_free_unsized`](Self::try_free_unsized).
    #[inline]
    pub unsafe fn try_free_anywhere(self, object: *mut u8, class: Option<u8>) -> Freed {
        let address = object.addr();
        let Some(span) = self.central.span_at(address) else { return Freed::Not };
        let class = class.unwrap_or(span.class());
        if span.ownership().is(&self.state.owner.queue) {
            if !span.is_unmarked(class) {
                return Freed::Not;
            }
            // SAFETY: this thread owns the span, of which that is the class; nobody uses the object (contract).
            return unsafe { self.put(span, class, address) };
        }
        // A large object's span has no slots.
        let slot = if span.class() == class { span.slot_at(address) } else { None };
        let Some(slot) = slot else {
            // SAFETY: nobody uses the object any more (contract).
            let kept = class == LARGE && unsafe { self.try_keep(span, address) };
            return if kept { Freed::Done } else { Freed::Not };
        };
        // SAFETY: nobody uses the slot (contract), and spans of this policy are not tiny.
        let marked = unsafe { Self::mark_if_live(self.central, span, slot, address) };
        match marked {
            Marked::Done => Freed::Done,
            // SAFETY: the mark gave this thread the token.
            Marked::Token => unsafe {
                self.central.deliver_or_defer(span);
                Freed::Done
            },
            Marked::Twice => Freed::Not,
        }
    }

    /// Finds the place of a span of this thread whose number of used slots fell.
    pub fn rehome(self, span: SpanRef) {
        if span.ownership().is(&self.state.owner.queue) {
            self.rehome_slow(span);
            self.heed();
        }
    }

    /// Leaves it to the next allocation that needs a span to find the place of those whose number of
    /// used slots fell.
    pub fn rehome_later(self) {
        self.state.untidy.store(true, Ordering::Relaxed);
    }

    /// Frees an object whose Layout need not be known.
    ///
    /// # Errors
    /// The misuse, if no live object starts at this address; nothing is changed then.
    ///
    /// # Safety
    /// As for [`try_free_unsized`](Self::try_free_unsized).
    #[cold]
    #[inline(never)]
    pub unsafe fn free_unsized_slow(self, object: *mut u8) -> Result<(), Report> {
        let address = object.addr();
        let (span, slot) = self.find_live(address)?;
        if span.class() != LARGE && span.ownership().is(&self.state.owner.queue) {
            // SAFETY: this thread owns the span; nobody uses the object (contract).
            let put = unsafe {
                let ended = Self::end_slot_if_live(self.central, span, slot, address);
                if ended { span.put_once(slot) } else { Put::Twice }
            };
            match put {
                Put::Done => {}
                Put::Notify => self.rehome_slow(span),
                Put::Twice => return Err(report(Misuse::DoubleFree, address, span)),
            }
            // The next frees need not come here.
            let queue = &self.state.owner.queue;
            if !queue.is_empty() {
                self.drain();
            }
            if span.may_be_marked() && span.ownership().is(queue) {
                // SAFETY: this thread owns the span.
                unsafe { span.look_for_marks() };
            }
            return Ok(());
        }
        if span.class() == LARGE && span.end_large(address) {
            // SAFETY: the object was ended just now.
            unsafe {
                Self::wipe_large(self.central, span);
                self.keep_large(span);
            }
            self.heed();
            return Ok(());
        }
        // SAFETY: the span and the slot were found at this address; the caller's promise.
        unsafe { Self::free_found(self.central, span, slot, address, false) }
    }

    /// Frees an object as a thread that has no cache, or may not use it now. If `lock_free`, no lock
    /// is taken: what needs one is left to [`Central::catch_up`].
    ///
    /// # Errors
    /// As [`free_unsized_slow`](Self::free_unsized_slow).
    ///
    /// # Safety
    /// As for [`try_free_unsized`](Self::try_free_unsized).
    #[cold]
    #[inline(never)]
    pub unsafe fn free_unsized_uncached(
        central: &C,
        object: *mut u8,
        lock_free: bool,
    ) -> Result<(), Report> {
        let (span, slot) = Self::find(central, object.addr())?;
        if !span.is_live(slot) {
            return Err(report(Misuse::DoubleFree, object.addr(), span));
        }
        // SAFETY: the span and the slot were found at this address; the caller's promise.
        unsafe { Self::free_found(central, span, slot, object.addr(), lock_free) }
    }

    /// # Safety
    /// `slot` of `span` is at `address`; nobody uses the object.
    unsafe fn free_found(
        central: &C,
        span: SpanRef,
        slot: usize,
        address: usize,
        lock_free: bool,
    ) -> Result<(), Report> {
        if span.class() == LARGE {
            if !span.end_large(address) {
                return Err(report(Misuse::DoubleFree, address, span));
            }
            // SAFETY: the object ended just now, so the span is this thread's.
            unsafe {
                Self::wipe_large(central, span);
                if lock_free { central.defer(span) } else { central.discard_large(span, None) }
            };
            return Ok(());
        }
        // SAFETY: nobody uses the slot (contract), and spans of this policy are not tiny.
        let marked = unsafe { Self::mark_if_live(central, span, slot, address) };
        match marked {
            Marked::Done => {}
            // SAFETY: the mark gave this thread the token.
            Marked::Token => unsafe {
                if lock_free { central.deliver_or_defer(span) } else { central.deliver(span) }
            },
            Marked::Twice => return Err(report(Misuse::DoubleFree, address, span)),
        }
        Ok(())
    }

    /// Marks a slot of a span that another thread may own, if it is live.
    ///
    /// # Safety
    /// `slot` of `span` is at `address` and not tiny; nobody uses the object.
    #[inline(always)]
    unsafe fn mark_if_live(central: &C, span: SpanRef, slot: usize, address: usize) -> Marked {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            let ended = Self::end_slot_if_live(central, span, slot, address);
            if ended { span.mark(slot) } else { Marked::Twice }
        }
    }

    /// Ends the process because of a misuse, in words that are as exact as can be.
    pub fn die(central: &C, mut report: Report) -> ! {
        if report.misuse == Misuse::ForeignPointer {
            report.misuse = central.foreign(report.address);
        }
        central.heap().die(report)
    }

    /// The span and the slot that starts at `address`, be it live or not.
    pub(crate) fn find(central: &C, address: usize) -> Result<(SpanRef, usize), Report> {
        let Some(span) = central.span_at(address) else {
            return Err(Report { misuse: Misuse::ForeignPointer, address, class_bytes: 0 });
        };
        let slot = if span.class() == LARGE {
            (span.base() == address).then_some(0)
        } else {
            span.slot_at(address)
        };
        match slot {
            Some(slot) => Ok((span, slot)),
            None => Err(report(Misuse::NotAnObjectStart, address, span)),
        }
    }

    /// The span and the slot of the live object that starts at `address`.
    ///
    /// # Errors
    /// The misuse that it is to free anything else.
    #[inline]
    pub fn find_live(self, address: usize) -> Result<(SpanRef, usize), Report> {
        let (span, slot) = Self::find(self.central, address)?;
        if span.is_live(slot) {
            return Ok((span, slot));
        }
        let never = slot >= span.handed_out_below() || self.is_next(span, slot);
        let misuse = if never { Misuse::NotAnObjectStart } else { Misuse::DoubleFree };
        Err(report(misuse, address, span))
    }

    /// Whether the slot is reserved by this thread and was never handed out before.
    fn is_next(self, span: SpanRef, slot: usize) -> bool {
        span.class() != LARGE && self.state.bin(span.class()).is_next(span, slot)
    }

    /// Bytes of the slot or the pages of a live object.
    ///
    /// # Errors
    /// The misuse, if no live object starts at this address.
    #[inline]
    pub fn usable_bytes(self, address: usize) -> Result<usize, Report> {
        let (span, _) = self.find_live(address)?;
        Ok(Self::usable(span))
    }

    /// Whether the live object at `address` is one that this layout would get.
    ///
    /// # Errors
    /// The misuse, if it is not, or if there is none.
    pub fn check_layout(self, address: usize, layout: Layout) -> Result<(), Report> {
        let (span, _) = self.find_live(address)?;
        if Self::fits(span, layout) { Ok(()) } else { Err(mismatch(span, address)) }
    }

    /// Whether objects of this layout live in such spans.
    #[inline]
    fn fits(span: SpanRef, layout: Layout) -> bool {
        match Self::path(layout) {
            Path::Small(class) => span.class() == class,
            _ => {
                let (pages, bytes) = (pages_of(layout.size()), layout.size());
                // A guard that could not be had may have left its page to the object.
                let more = usize::from(Self::is_guarded(bytes) && !span.is_guarded());
                span.class() == LARGE
                    && (pages..=most_pages(pages) + more).contains(&usable_pages(span))
                    && span.base() % layout.align() == 0
            }
        }
    }

    /// The report of a live object whose size and alignment no object could have.
    ///
    /// # Errors
    /// Always.
    pub fn find_mismatch(self, address: usize) -> Result<(), Report> {
        Err(mismatch(self.find_live(address)?.0, address))
    }

    /// What it takes to give the object at `address` the layout `new`.
    #[inline]
    pub fn size_now(self, address: usize, new: Layout) -> Size {
        match Self::find(self.central, address) {
            Ok((span, slot)) if span.is_live(slot) => {
                if Self::fits(span, new) {
                    Size::Fits
                } else if span.class() != LARGE {
                    Size::Moves(Self::usable(span))
                } else {
                    Size::Other
                }
            }
            _ => Size::Other,
        }
    }

    /// Gives an object a new layout and keeps its contents, in place if it stays in its class or the
    /// pages behind it allow. Null leaves the object as it was: there is no memory.
    ///
    /// # Errors
    /// The misuse, if no live object starts at this address; nothing is changed then.
    ///
    /// # Safety
    /// As for [`try_free_unsized`](Self::try_free_unsized), but the object is the caller's to use.
    pub unsafe fn realloc_unsized(self, object: *mut u8, new: Layout) -> Result<*mut u8, Report> {
        let (span, _) = self.find_live(object.addr())?;
        let large = span.class() == LARGE && Self::path(new) == Path::Large;
        let aligned = object.addr() % new.align() == 0;
        // SAFETY: the span is large, and its object the caller's; what is cut off is unused.
        let resize = || large && aligned && unsafe { self.resize_to(span, new.size()) };
        if Self::fits(span, new) || resize() || Self::fits(span, new) {
            return Ok(object);
        }
        if large && Self::MOVES && pages_of(new.size()) > usable_pages(span) {
            // SAFETY: the object is large and the caller's, and to be larger.
            return Ok(unsafe { self.move_large(span, new) });
        }
        let moved = self.alloc(new);
        if !moved.is_null() {
            // SAFETY: both objects hold the smaller of the two sizes and do not overlap; the old
            // one is the caller's to free.
            unsafe {
                ptr::copy_nonoverlapping(object, moved, Self::usable(span).min(new.size()));
                self.free_unsized_slow(object)?;
            }
        }
        Ok(moved)
    }

    /// Bytes of an object of this span that the program may use.
    #[inline]
    fn usable(span: SpanRef) -> usize {
        if span.class() == LARGE {
            usable_pages(span) * PAGE_BYTES
        } else {
            span.bytes() - Self::CANARY_BYTES
        }
    }
}
