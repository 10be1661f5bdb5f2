//! The descriptor of a span: a run of pages cut into slots of one size.
//!
//! ```text
//!  +0    base, owner, reciprocal, class and mark, slots, left, remote_at
//!  +32   free[words]             one bit a slot: set while the slot lies free in the span
//!  ----  next cache line: written by other threads --------------------------------------
//!  +r-48 bytes, pages, link, next, prev, balance, fresh, notify, words, place, zeroed, stranded
//!  +r    remote[words]           one bit a slot: freed by another thread, not folded yet
//!        (a tiny span: one byte a slot, counting such frees, and then one byte a slot that
//!        counts the live objects in it)
//! ```
//!
//! `words` is the capacity of the descriptor, the same for all descriptors of a pool, so that every
//! field stays where it is when a descriptor is reused. `remote_at` says where r is, and a bit beside the class whether
//! there may be something: so a free by the owner needs one line only. Spans of up to 128 slots have their whole
//! owner side in one cache line and 128 bytes in all.
//! Descriptors come from pools and are never unmapped: a stale pointer may always be read.
//!
//! Who may touch what: the *holder* of a span is the cache that owns it or, while it has no owner,
//! whoever holds the lock of its class. The holder alone uses the first part and the list links.
//! Plain loads and stores are relaxed atomics here because statistics read them at any time.

use core::mem::{align_of, offset_of, size_of};
use core::ptr::NonNull;

use spanalloc_classes::MAX_SLOTS;
use spanalloc_pages::{Pooled, Run};
use spanalloc_sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use crate::handover::{Owned, Ownership, Stranded};
use crate::queue::Linked;
use crate::remote::Balance;

#[cfg(test)]
mod tests;

/// The class of tiny spans: 16-byte slots that several objects share.
pub const TINY: u8 = 0;
/// The class of spans that are one large object.
pub const LARGE: u8 = u8::MAX;
/// Bytes of a slot that tiny objects share.
pub const TINY_BYTES: usize = 16;

/// Where a span is.
///
/// | place   | listed in                 | leaves it by                                    |
/// |---------|---------------------------|-------------------------------------------------|
/// | Pool    | the pool of descriptors   | cut -> Current or Large                         |
/// | Current | nothing: a bin takes from it | exhausted -> Full; its owner exits -> Partial or Full |
/// | Partial | the holder's partial list | refill -> Current; no slot used -> Empty or Pool |
/// | Full    | the holder's full list    | enough slots freed -> Partial                   |
/// | Empty   | the owner's empty spans   | refill -> Current; no room for it -> Pool       |
/// | Large   | nothing                   | free -> Pool, or kept by a thread for the next object |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// Not in use.
    Pool = 0,
    /// The span its owner's bin takes slots from.
    Current = 1,
    /// On its holder's partial list: it may have free slots.
    Partial = 2,
    /// On its holder's full list: it has none worth looking for.
    Full = 3,
    /// One large object.
    Large = 4,
    /// Among its owner's empty spans: kept although no slot is used.
    Empty = 5,
}

/// The fixed first part of a descriptor.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Span {
    pub(crate) base: AtomicUsize,
    ownership: Ownership<Span>,
    /// See [`reciprocal`]; 0 for a large object.
    pub(crate) reciprocal: AtomicU32,
    /// The class, and [`MARKED`] if some slot may be marked in the remote words: a free by the holder asks for both
    /// at once. See `span_remote`.
    pub(crate) class: AtomicU16,
    pub(crate) slots: AtomicU16,
    /// Used slots less `notify`, as a signed number: at 0 and below frees tell. 1 for a large object
    /// as long as it lives.
    pub(crate) left: AtomicU16,
    /// Where the remote words are, in [`STEP`]s; 0 before the descriptor's first use.
    remote_at: AtomicU8,
}

/// The bit beside a span's class that says that some slot may be marked.
pub(crate) const MARKED: u16 = 1 << u8::BITS;

/// The part of a descriptor that other threads write.
#[repr(C)]
pub(crate) struct Shared {
    pub(crate) bytes: AtomicU32,
    pub(crate) pages: AtomicU32,
    link: AtomicPtr<Span>,
    pub(crate) next: AtomicPtr<Span>,
    pub(crate) prev: AtomicPtr<Span>,
    pub(crate) balance: Balance,
    pub(crate) fresh: AtomicU16,
    /// How few used slots make frees tell. 1 for a large object with a guard.
    pub(crate) notify: AtomicU16,
    words: AtomicU8,
    place: AtomicU8,
    pub(crate) zeroed: AtomicBool,
    stranded: Stranded,
}

const LINE: usize = 64;
/// Bytes of a word of slots. All offsets follow from the sizes of the atomics, which are those of
/// the integers except in a model.
const WORD: usize = size_of::<AtomicU64>();
/// Slots counted in one remote word of a tiny span: a byte each.
const LANES: usize = 8;

/// Offset of the free bitmap: behind the last field of [`Span`].
const FREE_OFFSET: usize =
    (offset_of!(Span, remote_at) + size_of::<AtomicU8>()).next_multiple_of(align_of::<AtomicU64>());
/// What offsets in a descriptor are multiples of.
const STEP: usize = 8;
/// Bytes from the shared part to the remote words.
const SHARED_BYTES: usize = size_of::<Shared>().next_multiple_of(align_of::<AtomicU64>());

const fn shared_offset(words: usize) -> usize {
    (FREE_OFFSET + words * WORD).next_multiple_of(LINE)
}

const fn remote_offset(words: usize) -> usize {
    shared_offset(words) + SHARED_BYTES
}

/// Remote words of a descriptor whose free bitmap has `words` words.
const fn remote_count(words: usize, tiny: bool) -> usize {
    if tiny { words * (64 / LANES) } else { words }
}

/// Offset of the counts of live objects in a tiny descriptor.
const fn live_offset(words: usize) -> usize {
    remote_offset(words) + remote_count(words, true) * WORD
}

/// Bytes of the descriptor of a span whose free bitmap has `words` words.
#[must_use]
pub const fn descriptor_bytes(words: usize, tiny: bool) -> usize {
    let end = if tiny {
        live_offset(words) + words * 64 * size_of::<AtomicU8>()
    } else {
        remote_offset(words) + remote_count(words, false) * WORD
    };
    end.next_multiple_of(LINE)
}

const _: () = assert!(align_of::<Shared>() <= LINE && align_of::<Span>() == LINE);
// `words` and the counts of slots fit their fields.
const _: () = assert!(MAX_SLOTS / 64 < u8::MAX as usize && MAX_SLOTS <= u16::MAX as usize);
const _: () = assert!(align_of::<AtomicU64>() % STEP == 0 || STEP % align_of::<AtomicU64>() == 0);
const _: () = assert!(LINE % STEP == 0 && SHARED_BYTES % STEP == 0);
const _: () = assert!(remote_offset(MAX_SLOTS / 64 + 1) / STEP <= u8::MAX as usize);
// What the drawing above says of 64-bit systems.
const _: () = assert!(
    size_of::<usize>() != 8
        || WORD != 8
        || (FREE_OFFSET == 32
            && shared_offset(4) == LINE
            && remote_offset(4) == LINE + 48
            && descriptor_bytes(2, false) == 2 * LINE
            && descriptor_bytes(4, false) == 3 * LINE)
);

/// A span, by its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct SpanRef(NonNull<Span>);

// SAFETY: a descriptor is made of atomics; who may use which is said at each method.
unsafe impl Send for SpanRef {}

impl SpanRef {
    /// The span with this descriptor.
    ///
    /// # Safety
    /// `descriptor` came from [`SpanRef::as_ptr`] or is a pooled descriptor of
    /// [`descriptor_bytes`] bytes of memory that is never unmapped.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn from_descriptor(descriptor: NonNull<Span>) -> Self {
        Self(descriptor)
    }

    /// The descriptor.
    #[inline(always)]
    #[must_use]
    pub const fn as_ptr(self) -> NonNull<Span> {
        self.0
    }

    #[inline(always)]
    pub(crate) fn head<'a>(self) -> &'a Span {
        // SAFETY: descriptors are mapped for ever and made of atomics (`from_descriptor`).
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn shared<'a>(self) -> &'a Shared {
        // Before its first use a descriptor reads as one of no words, and all zero.
        let offset = self.remote_at().max(remote_offset(0)) - SHARED_BYTES;
        // SAFETY: the descriptor holds `Shared` there, for ever; its fields are atomics.
        unsafe { self.0.cast::<u8>().add(offset).cast::<Shared>().as_ref() }
    }

    #[inline(always)]
    fn remote_at(self) -> usize {
        usize::from(self.head().remote_at.load(Ordering::Relaxed)) * STEP
    }

    #[inline(always)]
    pub(crate) fn free_word<'a>(self, word: usize) -> &'a AtomicU64 {
        debug_assert!(word < self.words());
        // SAFETY: callers pass word < words, and the descriptor has that many words.
        unsafe { self.0.cast::<u8>().add(FREE_OFFSET).cast::<AtomicU64>().add(word).as_ref() }
    }

    /// One of the remote words.
    ///
    /// # Safety
    /// The span is not tiny, and `word` is below [`words`](Self::words).
    #[inline(always)]
    pub(crate) unsafe fn remote_word<'a>(self, word: usize) -> &'a AtomicU64 {
        debug_assert!(word < self.words());
        // SAFETY: the descriptor has this word there (`descriptor_bytes`), for ever.
        unsafe { self.0.cast::<u8>().add(self.remote_at()).cast::<AtomicU64>().add(word).as_ref() }
    }

    #[inline]
    pub(crate) fn remote_words<'a>(self) -> &'a [AtomicU64] {
        let words = self.words();
        let count = remote_count(words, self.class() == TINY);
        // SAFETY: the descriptor has this many words there (`descriptor_bytes`), for ever.
        unsafe {
            let first = self.0.cast::<u8>().add(self.remote_at()).cast::<AtomicU64>();
            core::slice::from_raw_parts(first.as_ptr(), count)
        }
    }

    /// The count of live objects of each slot of a tiny span.
    #[inline(always)]
    pub(crate) fn live_count<'a>(self, slot: usize) -> &'a AtomicU8 {
        let words = self.words();
        debug_assert!(self.class() == TINY && slot < words * 64);
        // SAFETY: tiny descriptors have words * 64 counters there.
        unsafe { self.0.cast::<u8>().add(live_offset(words)).cast::<AtomicU8>().add(slot).as_ref() }
    }

    /// Address of the first slot.
    #[inline(always)]
    pub fn base(self) -> usize {
        self.head().base.load(Ordering::Relaxed)
    }

    /// Bytes of a slot; 0 for a large object of 4 GB or more.
    #[inline(always)]
    pub fn bytes(self) -> usize {
        self.shared().bytes.load(Ordering::Relaxed) as usize
    }

    /// Pages of the span.
    #[inline(always)]
    pub fn pages(self) -> usize {
        self.shared().pages.load(Ordering::Relaxed) as usize
    }

    /// Slots of the span.
    #[inline(always)]
    pub fn slots(self) -> usize {
        self.head().slots.load(Ordering::Relaxed).into()
    }

    /// Slots that do not lie free in the span: live, in a magazine, or freed by another thread and
    /// not folded yet.
    #[inline(always)]
    pub fn used(self) -> usize {
        let notify = self.shared().notify.load(Ordering::Relaxed);
        self.head().left.load(Ordering::Relaxed).wrapping_add(notify).into()
    }

    /// The size class; [`TINY`] or [`LARGE`] for spans without one.
    #[inline(always)]
    pub fn class(self) -> u8 {
        self.head().class.load(Ordering::Relaxed) as u8
    }

    /// The size class of a span of which no slot [may be marked](Self::may_be_marked).
    #[inline(always)]
    pub fn unmarked_class(self) -> Option<u8> {
        u8::try_from(self.head().class.load(Ordering::Relaxed)).ok()
    }

    /// Whether the span has this class and no slot [may be marked](Self::may_be_marked).
    #[inline(always)]
    pub fn is_unmarked(self, class: u8) -> bool {
        self.head().class.load(Ordering::Relaxed) == u16::from(class)
    }

    /// Words of the free bitmap for which the descriptor has room.
    #[inline(always)]
    pub fn words(self) -> usize {
        self.shared().words.load(Ordering::Relaxed).into()
    }

    /// Where the span is.
    #[inline(always)]
    pub fn place(self) -> Place {
        // Acquire pairs with the Release in `set_place`: whoever meets the span in the pool's list
        // of all descriptors sees the fields that were set before its place.
        match self.shared().place.load(Ordering::Acquire) {
            1 => Place::Current,
            2 => Place::Partial,
            3 => Place::Full,
            4 => Place::Large,
            5 => Place::Empty,
            _ => Place::Pool,
        }
    }

    /// Says where the span is. Holder only.
    #[inline]
    pub fn set_place(self, place: Place) {
        // Release pairs with the Acquire in `place`.
        self.shared().place.store(place as u8, Ordering::Release);
    }

    /// Sets how few used slots make [`put`](Self::put) say [`Put::Notify`](crate::Put::Notify). Holder only.
    #[inline]
    pub fn set_notify(self, used: usize) {
        let now = self.used();
        self.shared().notify.store(used as u16, Ordering::Relaxed);
        self.set_used(now);
    }

    /// Sets the number of used slots. Holder only.
    #[inline]
    pub(crate) fn set_used(self, used: usize) {
        let notify = self.shared().notify.load(Ordering::Relaxed);
        self.head().left.store((used as u16).wrapping_sub(notify), Ordering::Relaxed);
    }

    /// No slot from this one on was ever handed out, nor taken to be handed out.
    #[inline]
    pub fn handed_out_below(self) -> usize {
        self.shared().fresh.load(Ordering::Relaxed).into()
    }

    #[inline]
    pub(crate) fn set_handed_out_below(self, slot: usize) {
        self.shared().fresh.store(slot as u16, Ordering::Relaxed);
    }

    /// Whether every byte of the span was zero when it was cut.
    #[inline]
    pub fn zeroed(self) -> bool {
        self.shared().zeroed.load(Ordering::Relaxed)
    }

    /// Who owns the span.
    #[inline(always)]
    pub fn ownership<'a>(self) -> &'a Ownership<Span> {
        &self.head().ownership
    }

    /// Where the span's token waits if it found no folder.
    #[inline]
    pub fn stranded<'a>(self) -> &'a Stranded {
        &self.shared().stranded
    }

    /// What all spans begin with: nothing used yet.
    pub(crate) fn begin(self, words: usize, class: u8, slots: usize, run: Run) {
        let head = self.head();
        // First, for the place of all other fields follows from it.
        head.remote_at.store((remote_offset(words) / STEP) as u8, Ordering::Relaxed);
        head.base.store(run.address, Ordering::Relaxed);
        head.slots.store(slots as u16, Ordering::Relaxed);
        head.left.store(0, Ordering::Relaxed);
        // No store: a thread that is late to say that a slot of the last span is marked does so before or after.
        head.class.swap(class.into(), Ordering::Relaxed);
        self.shared().notify.store(0, Ordering::Relaxed);
        self.shared().words.store(words as u8, Ordering::Relaxed);
        self.shared().zeroed.store(run.zeroed, Ordering::Relaxed);
    }
}

// SAFETY: the link is one field of the descriptor, which is never unmapped.
unsafe impl Linked for Span {
    unsafe fn link<'a>(entry: NonNull<Self>) -> &'a AtomicPtr<Self> {
        &SpanRef(entry).shared().link
    }
}

// SAFETY: the ownership is one field of the descriptor, which is never unmapped.
unsafe impl Owned for Span {
    unsafe fn ownership<'a>(span: NonNull<Self>) -> &'a Ownership<Self> {
        SpanRef(span).ownership()
    }

    unsafe fn stranded<'a>(span: NonNull<Self>) -> &'a Stranded {
        SpanRef(span).stranded()
    }
}

// SAFETY: zero is a valid descriptor, at `Place::Pool`; the list link is one of its fields, and a
// span in the pool is on no list.
unsafe impl Pooled for Span {
    unsafe fn next<'a>(descriptor: NonNull<Self>) -> &'a AtomicPtr<Self> {
        &SpanRef(descriptor).shared().next
    }
}
