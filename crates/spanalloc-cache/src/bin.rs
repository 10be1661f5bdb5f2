//! What a thread keeps of one size class: the kinds of bins, and what all of them share.

use core::fmt;
use core::ptr;

use spanalloc_central::{Central, Span, SpanList, SpanRef};
use spanalloc_sync::atomic::{AtomicPtr, Ordering};

use crate::cache::Cache;
use crate::policy::Policy;
use crate::state::CacheState;

/// How a thread keeps the objects of one size class: [`Magazines`](crate::Magazines) or
/// [`Words`](crate::Words). Sealed: what a bin does is known to the paths of the cache.
pub trait Bin: Keep {}

/// The spans of one class that a thread owns.
#[derive(Debug)]
pub struct Spans {
    /// The span that objects are taken from.
    current: AtomicPtr<Span>,
    /// The other spans that have free slots.
    pub(crate) partial: SpanList,
    /// The spans without free slots worth looking for.
    pub(crate) full: SpanList,
}

impl Spans {
    pub(crate) const fn new() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            partial: SpanList::new(),
            full: SpanList::new(),
        }
    }

    pub(crate) fn current(&self) -> Option<SpanRef> {
        let descriptor = ptr::NonNull::new(self.current.load(Ordering::Relaxed))?;
        // SAFETY: only descriptors are stored here.
        Some(unsafe { SpanRef::from_descriptor(descriptor) })
    }

    /// Whether there are none.
    pub(crate) fn is_none(&self) -> bool {
        self.current().is_none() && self.partial.first().is_none() && self.full.first().is_none()
    }

    pub(crate) fn set_current(&self, span: Option<SpanRef>) {
        let raw = span.map_or(ptr::null_mut(), |span| span.as_ptr().as_ptr());
        self.current.store(raw, Ordering::Relaxed);
    }
}

/// What loading a bin from a span came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// There are objects to hand out now.
    Loaded,
    /// The span has no free slot.
    Exhausted,
    /// This slot of the span is free and was freed by another thread, too.
    Twice(usize),
}

/// The work of a bin. The all-zero bin is empty and takes no object, so that its first use comes to
/// the slow path.
pub trait Keep: Sized + fmt::Debug + 'static {
    /// The all-zero bin.
    const EMPTY: Self;

    /// Whether it is known of every slot at any time whether it is live.
    const KNOWS_LIVE: bool;

    /// The spans behind the bin.
    fn spans(&self) -> &Spans;

    /// Puts a bin that is not in use to use, for objects of `bytes`; does nothing to one in use. Returns how many
    /// bytes it may hold: if that would be more than `room`, two objects.
    fn begin(&self, bytes: usize, room: usize) -> usize;

    /// How many bytes a bin of objects of `bytes` may hold now, and how many it begins with as a rule.
    fn holds(&self, bytes: usize) -> (usize, usize);

    /// Whether the bin is in use.
    fn is_in_use(&self) -> bool;

    /// Makes an emptied bin all zero again, but for its spans. What room it has elsewhere is for others.
    fn end<C: Central>(&self, central: &C);

    /// Takes an object, if one is at hand.
    ///
    /// # Safety
    /// The caller is the bin's thread.
    unsafe fn pop<P: Policy>(&self) -> Option<*mut u8>;

    /// As [`pop`](Self::pop); if there is none, one from the span at hand, if that needs no more than a
    /// look at its bitmap.
    ///
    /// # Safety
    /// As for [`pop`](Self::pop).
    #[inline(always)]
    unsafe fn pop_or_load<P: Policy>(&self, _state: &CacheState<Self>) -> Option<*mut u8> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.pop::<P>() }
    }

    /// Whether the next object to be popped is known to hold zeros.
    fn zeroed(&self) -> bool;

    /// Free objects that the bin keeps from their spans.
    fn cached(&self) -> usize;

    /// Free slots of the current span that count as used there, as those that the bin keeps do, but were never taken from
    /// it.
    fn reserved(&self) -> usize {
        0
    }

    /// Brings objects to hand that were freed into the bin, if [`pop`](Self::pop) may have one then;
    /// gives them back to their spans otherwise. False if there are none at hand.
    fn recover<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) -> bool;

    /// Brings objects of `span` to hand. The bin has none.
    ///
    /// # Safety
    /// The caller is the bin's thread and owns the span, which is of the bin's class.
    unsafe fn load(&self, span: SpanRef) -> Load;

    /// Makes it harder to foresee which object comes next, by a number that nobody can. For bins that
    /// choose at random.
    fn stir(&self, _random: u32) {}

    /// Takes an object of `class` back if that needs no slow path.
    ///
    /// # Safety
    /// The caller is the cache's thread; nobody uses the object any more.
    unsafe fn push<C: Central, P: Policy<Bin = Self>>(
        cache: Cache<'_, C, P>,
        class: u8,
        object: *mut u8,
    ) -> bool;

    /// Takes an object of `class` back.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    unsafe fn push_slow<C: Central, P: Policy<Bin = Self>>(
        cache: Cache<'_, C, P>,
        class: u8,
        object: *mut u8,
    );

    /// Gives back to its span what the bin should not keep while no thread has it: at least what was freed
    /// into it and was not looked up yet.
    fn settle<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8);

    /// Gives every object that the bin keeps back to its span.
    fn flush<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8);

    /// Makes every use of the bin come to a slow path. For who has [seized](crate::idle) the cache, and needs that
    /// of this kind of bin.
    fn shut(&self) {}

    /// Finds out what is in a shut bin, once every thread has passed a fence since. It may be [flushed](Self::flush)
    /// then by who shut it.
    fn find_ends(&self) {}

    /// Opens a bin that was shut. For its thread, if nobody has seized it.
    fn reopen(&self) {}
}
