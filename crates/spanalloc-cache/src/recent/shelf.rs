//! Spans of one size that are kept, and what is noted of each.

use core::ptr::{self, NonNull};

use spanalloc_central::{Span, SpanRef};
use spanalloc_sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::LARGEST_PAGES;

/// How many spans of one size are kept at most.
const MOST: u32 = 16;

/// What is noted of a span that is kept:
///
/// | bits | say |
/// |---|---|
/// | 0 to 7 | how many of its pages count as being in memory: its weight |
/// | 8 to 15 | for how many more times that it is kept, this one included, that is taken for right; 0 if it was not counted |
/// | 16 to 23 | what that began with at the last look |
/// | 32 to 39 | how many usable pages it has |
/// | 40 to 63 | when it was kept, by the number of spans that were kept so far |
///
/// The first three hold for the next time that it is kept: a span that is in use has them in [its own
/// note](SpanRef::note).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note(u64);

const _: () = assert!(LARGEST_PAGES <= u8::MAX as usize);

const BYTE: u64 = u8::MAX as u64;
const TRUST: u32 = 8;
const TRUSTED: u32 = 16;
const PAGES: u32 = 32;
const TIME: u32 = 40;
/// What a span in use remembers.
const LASTING: u64 = (1 << 24) - 1;

impl Note {
    /// Of a span in use that has so many usable pages, if it is kept at this time.
    #[inline]
    pub(super) fn of(span: SpanRef, pages: usize, time: u32) -> Self {
        let (pages, lasting) = (pages as u64, span.note().load(Ordering::Relaxed) & LASTING);
        let weighed = lasting | pages << PAGES | u64::from(time) << TIME;
        let note = Self(weighed);
        if note.is_weighed() { note } else { Self(weighed & !BYTE | pages) }
    }

    /// Whether the weight is more than a guess.
    #[inline]
    pub(super) fn is_weighed(self) -> bool {
        self.0 & BYTE << TRUST != 0
    }

    /// Usable pages.
    #[inline]
    pub(super) fn pages(self) -> usize {
        (self.0 >> PAGES & BYTE) as usize
    }

    /// Usable pages in the high half, and the weight in the low one.
    #[inline]
    pub(super) fn sums(self) -> u64 {
        self.0 & (BYTE << PAGES | BYTE)
    }

    /// How many spans were kept since this one was, if it is time `now`, but for multiples of 2^24.
    pub(super) fn age(self, now: u32) -> u32 {
        now.wrapping_sub((self.0 >> TIME) as u32) & (u32::MAX >> 8)
    }

    /// The same with a weight that was found out, which is to hold from `least` to `most` times, and twice as often
    /// as the last one.
    pub(super) fn weighed(self, weight: usize, least: u8, most: u8) -> Self {
        let trusted = ((self.0 >> TRUSTED) as u8).saturating_mul(2).clamp(least, most);
        let lasting = weight as u64 | u64::from(trusted) << TRUST | u64::from(trusted) << TRUSTED;
        Self(self.0 & !LASTING | lasting)
    }

    /// Gives the note to the span, which was kept once more.
    #[inline]
    fn leave_to(self, span: SpanRef) {
        let spent = u64::from(self.is_weighed()) << TRUST;
        span.note().store(self.0 - spent, Ordering::Relaxed);
    }
}

/// A span that is kept, and its note.
#[derive(Debug)]
struct Place {
    span: AtomicPtr<Span>,
    note: AtomicU64,
}

/// Spans of one size, from the one that has been kept longest to the one that was kept last. The thread whose they
/// are uses it alone; the all-zero value is empty.
#[derive(Debug)]
pub(super) struct Shelf {
    /// How many spans were ever put here and not taken out as the last one, and how many went as the first one.
    end: AtomicU32,
    start: AtomicU32,
    /// Span number `i` is at `i` modulo the length.
    places: [Place; MOST as usize],
}

impl Shelf {
    pub(super) const fn new() -> Self {
        Self {
            end: AtomicU32::new(0),
            start: AtomicU32::new(0),
            places: [const { Place { span: AtomicPtr::new(ptr::null_mut()), note: AtomicU64::new(0) } };
                MOST as usize],
        }
    }

    fn start(&self) -> u32 {
        self.start.load(Ordering::Relaxed)
    }

    fn end(&self) -> u32 {
        self.end.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start() == self.end()
    }

    pub(super) fn is_full(&self) -> bool {
        self.end().wrapping_sub(self.start()) == MOST
    }

    fn place(&self, number: u32) -> &Place {
        // SAFETY: the index is below the length.
        unsafe { self.places.get_unchecked((number % MOST) as usize) }
    }

    fn span(&self, number: u32) -> Option<SpanRef> {
        let span = NonNull::new(self.place(number).span.load(Ordering::Relaxed))?;
        // SAFETY: what is kept are spans, whose descriptors are never unmapped.
        Some(unsafe { SpanRef::from_descriptor(span) })
    }

    fn note(&self, number: u32) -> Note {
        Note(self.place(number).note.load(Ordering::Relaxed))
    }

    /// Keeps a span. There is a place.
    #[inline]
    pub(super) fn push(&self, span: SpanRef, note: Note) {
        debug_assert!(!self.is_full());
        let end = self.end();
        let place = self.place(end);
        place.span.store(span.as_ptr().as_ptr(), Ordering::Relaxed);
        place.note.store(note.0, Ordering::Relaxed);
        self.end.store(end.wrapping_add(1), Ordering::Relaxed);
    }

    /// What is noted of the span that was kept last. There is one.
    #[inline]
    pub(super) fn last_note(&self) -> Note {
        self.note(self.end().wrapping_sub(1))
    }

    /// Takes the span out that was kept last, of which that is noted. There is one.
    #[inline]
    pub(super) fn pop(&self, note: Note) -> Option<SpanRef> {
        let end = self.end().wrapping_sub(1);
        self.end.store(end, Ordering::Relaxed);
        let span = self.span(end)?;
        note.leave_to(span);
        Some(span)
    }

    /// What is noted of the span that has been kept longest, if there is one.
    pub(super) fn first_note(&self) -> Option<Note> {
        (!self.is_empty()).then(|| self.note(self.start()))
    }

    /// Takes the span out that has been kept longest, if there is one.
    pub(super) fn pop_first(&self) -> Option<(SpanRef, Note)> {
        let note = self.first_note()?;
        let start = self.start();
        self.start.store(start.wrapping_add(1), Ordering::Relaxed);
        let span = self.span(start)?;
        note.leave_to(span);
        Some((span, note))
    }

    /// Changes what is noted of each span, the one that was kept last first.
    pub(super) fn change_notes(&self, mut change: impl FnMut(SpanRef, Note) -> Note) {
        let count = self.end().wrapping_sub(self.start());
        for back in 1..=count {
            let number = self.end().wrapping_sub(back);
            let Some(span) = self.span(number) else { return };
            let note = change(span, self.note(number));
            self.place(number).note.store(note.0, Ordering::Relaxed);
        }
    }
}
