//! The spans without used slots that a thread keeps.
//!
//! They serve the thread's next spans: of their own class as they are, of others that have as many pages
//! cut anew. Only when there is none does the thread ask the heap for a window of pages, and before
//! that it gives as many of the empty spans back as that takes, unless they are few. So a thread whose
//! objects come and go takes no lock, and one that goes over to other sizes has little memory of the old
//! ones beside that of the new.
//!
//! They are the one thing that is taken from a thread that is idle, by another (see [`idle`](crate::idle)).
//! Whoever is at them says so in one flag, and nobody waits for it: the thread itself does as if it had none
//! then.
//!
//! | `taken` | lists and counts               | leaves it by                |
//! |---------|--------------------------------|-----------------------------|
//! | false   | are used by nobody             | [`Empties::hold`] -> true   |
//! | true    | are used by who set it, alone  | end of its [`Held`] -> false |
//!
//! How many are kept follows from use. A round is over when several times as much has been emptied as is
//! kept; of each class, half of what was there through all of the round goes back then. There are
//! never more than the thread may keep beside what its bins hold: see [`bounds`](crate::bounds).

use spanalloc_central::{Central, Place, SpanList, SpanRef, Stash, class_facts};
use spanalloc_classes::MAX_CLASSES;
use spanalloc_pages::{PAGE_BYTES, WINDOW_BYTES};
use spanalloc_sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use spanalloc_sync::spin_pause;

use crate::cache::Cache;
use crate::policy::Policy;
use crate::state::CacheState;

/// So many bytes may be kept without being needed,
const SPARE_BYTES: usize = WINDOW_BYTES;
/// and, while the heap is asked for more pages, so small a part of what the thread's other spans have.
const SPARE_PART: usize = 8;
/// So many times as much as is kept is emptied before it is asked what is needed.
const ROUNDS: usize = 4;

/// A set of size classes.
#[derive(Debug)]
pub(crate) struct Classes([AtomicU64; MAX_CLASSES / 64]);

impl Classes {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; MAX_CLASSES / 64])
    }

    /// Puts a class in or takes it out.
    pub(crate) fn set(&self, class: u8, there: bool) {
        if let Some(word) = self.0.get(usize::from(class) / 64) {
            let (bits, mask) = (word.load(Ordering::Relaxed), 1 << (class % 64));
            word.store(if there { bits | mask } else { bits & !mask }, Ordering::Relaxed);
        }
    }

    /// The classes in the set, the lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0u8..).step_by(64).zip(&self.0).flat_map(|(first, word)| {
            let mut bits = word.load(Ordering::Relaxed);
            core::iter::from_fn(move || {
                let class = (bits != 0).then(|| first + bits.trailing_zeros() as u8)?;
                bits &= bits - 1;
                Some(class)
            })
        })
    }

    /// Takes all out.
    pub(crate) fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// The empty spans of one class.
#[derive(Debug)]
struct OfClass {
    list: SpanList,
    count: AtomicU32,
    /// The fewest there were since it was last asked what is needed.
    least: AtomicU32,
}

/// The right to use a thread's empty spans.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Empties);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `hold`: the next one sees what was done to lists and spans.
        self.0.taken.store(false, Ordering::Release);
    }
}

/// The empty spans of one thread.
#[derive(Debug)]
pub(crate) struct Empties {
    /// Whether somebody is at them.
    taken: AtomicBool,
    bytes: AtomicUsize,
    /// Bytes of the thread's other spans. Used by the thread itself only.
    others: AtomicUsize,
    /// Bytes of the spans that came since it was last asked what is needed.
    emptied: AtomicUsize,
    /// The classes of which there are some.
    classes: Classes,
    of_class: [OfClass; MAX_CLASSES],
}

fn bytes_of(span: SpanRef) -> usize {
    span.pages() * PAGE_BYTES
}

impl OfClass {
    const fn new() -> Self {
        Self { list: SpanList::new(), count: AtomicU32::new(0), least: AtomicU32::new(0) }
    }

    /// Half of the spans that were not needed since this was last asked.
    fn unneeded(&self) -> u32 {
        let least = self.least.load(Ordering::Relaxed);
        self.least.store(self.count.load(Ordering::Relaxed), Ordering::Relaxed);
        least / 2
    }
}

impl Empties {
    pub(crate) const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            emptied: AtomicUsize::new(0),
            classes: Classes::new(),
            of_class: [const { OfClass::new() }; MAX_CLASSES],
        }
    }

    /// The right to use them, if nobody has it.
    #[inline]
    pub(crate) fn hold(&self) -> Option<Held<'_>> {
        // Acquire pairs with the Release of who held them before.
        (!self.taken.swap(true, Ordering::Acquire)).then(|| Held(self))
    }

    /// How many bytes there are. Anybody may ask.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the thread's spans that are not empty.
    pub(crate) fn others(&self) -> usize {
        self.others.load(Ordering::Relaxed)
    }

    /// Bytes of all spans of the thread.
    pub(crate) fn all_bytes(&self) -> usize {
        self.bytes() + self.others.load(Ordering::Relaxed)
    }

    /// Counts a span that is this thread's now.
    fn count_in(&self, span: SpanRef) {
        self.others.store(self.others.load(Ordering::Relaxed) + bytes_of(span), Ordering::Relaxed);
    }

    /// Counts a span that is this thread's no more, or among the empty ones.
    pub(crate) fn count_out(&self, span: SpanRef) {
        self.others.store(self.others.load(Ordering::Relaxed) - bytes_of(span), Ordering::Relaxed);
    }

    /// How many bytes may be kept while the heap is asked for more pages.
    fn spare_bytes(&self) -> usize {
        SPARE_BYTES + self.others.load(Ordering::Relaxed) / SPARE_PART
    }

    fn of(&self, class: u8) -> &OfClass {
        debug_assert!(usize::from(class) < MAX_CLASSES);
        // SAFETY: classes are below MAX_CLASSES; LARGE never comes here.
        unsafe { self.of_class.get_unchecked(usize::from(class)) }
    }

    fn push(&self, span: SpanRef) {
        span.set_place(Place::Empty);
        let of_class = self.of(span.class());
        of_class.list.push(span);
        of_class.count.store(of_class.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.classes.set(span.class(), true);
        self.bytes.store(self.bytes() + bytes_of(span), Ordering::Relaxed);
    }

    fn remove(&self, span: SpanRef) {
        let of_class = self.of(span.class());
        of_class.list.remove(span);
        // Whoever looks for neighbours must not find it any more.
        span.set_place(Place::Current);
        let left = of_class.count.load(Ordering::Relaxed) - 1;
        of_class.count.store(left, Ordering::Relaxed);
        if left < of_class.least.load(Ordering::Relaxed) {
            of_class.least.store(left, Ordering::Relaxed);
        }
        if left == 0 {
            self.classes.set(span.class(), false);
        }
        self.bytes.store(self.bytes() - bytes_of(span), Ordering::Relaxed);
    }

    /// The span of `class` that was emptied last.
    fn first(&self, class: u8) -> Option<SpanRef> {
        self.of(class).list.first()
    }

    /// The span emptied last of the class that has most.
    fn first_of_most(&self) -> Option<SpanRef> {
        let bytes = |span: &SpanRef| {
            self.of(span.class()).count.load(Ordering::Relaxed) as usize * bytes_of(*span)
        };
        self.classes.iter().filter_map(|class| self.first(class)).max_by_key(bytes)
    }

    /// The span emptied last of the first class for which `suits` says so.
    fn find(&self, suits: impl FnMut(&SpanRef) -> bool) -> Option<SpanRef> {
        self.classes.iter().filter_map(|class| self.first(class)).find(suits)
    }

    /// Counts a span that came. True if it is time to ask what is needed.
    fn is_round_over(&self, came: SpanRef) -> bool {
        let emptied = self.emptied.load(Ordering::Relaxed) + bytes_of(came);
        let over = emptied > ROUNDS * self.bytes().max(SPARE_BYTES);
        self.emptied.store(if over { 0 } else { emptied }, Ordering::Relaxed);
        over
    }
}

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Keeps a span without used slots, which is on no list.
    pub(crate) fn keep_empty(self, span: SpanRef) {
        let empties = &self.state.empties;
        empties.count_out(span);
        self.stay_awake();
        let Some(held) = empties.hold() else {
            // SAFETY: this thread owns the span, which is on no list, and the stash.
            return unsafe { self.central.release(span, &self.state.stash) };
        };
        empties.push(span);
        if empties.is_round_over(span) {
            self.release_unneeded(&held);
        }
        drop(held);
        self.keep_within();
    }

    /// A span of `class` that is not among this thread's: one of its empty ones, of central, or a new one.
    pub(crate) fn acquire(self, class: u8) -> Option<SpanRef> {
        let span = self
            .take_empty(class)
            .or_else(|| self.central.take(class, &self.state.owner.queue))
            .or_else(|| self.recut_empty(class).or_else(|| self.cut(class)).map(Self::wiped))?;
        self.state.empties.count_in(span);
        Some(span)
    }

    /// An empty span of `class`.
    fn take_empty(self, class: u8) -> Option<SpanRef> {
        let empties = &self.state.empties;
        // Most often there is none.
        empties.first(class)?;
        let _held = empties.hold()?;
        let span = empties.first(class)?;
        empties.remove(span);
        Some(span)
    }

    /// A span of `class`, made from an empty one of another class.
    fn recut_empty(self, class: u8) -> Option<SpanRef> {
        let facts = class_facts::<C::Table>(class);
        let empties = &self.state.empties;
        if empties.bytes() == 0 {
            return None;
        }
        let _held = empties.hold()?;
        let span = empties.find(|span| span.pages() == facts.span_pages as usize)?;
        empties.remove(span);
        let (queue, stash) = (&self.state.owner.queue, &self.state.stash);
        // SAFETY: this thread owns the span, just taken off its list, and the stash.
        let recut = unsafe { self.central.recut(span, class, queue, stash) };
        if recut.is_none() {
            empties.push(span);
        }
        recut
    }

    /// A new span of `class`, for which the heap gets as much of the empty ones as it may have to give, and a large
    /// object that is kept.
    fn cut(self, class: u8) -> Option<SpanRef> {
        let (state, pages) = (self.state, class_facts::<C::Table>(class).span_pages as usize);
        let (bytes, spare) = (state.empties.bytes(), state.empties.spare_bytes());
        if !state.stash.has(pages) {
            if bytes > spare {
                self.trim(spare.max(bytes - WINDOW_BYTES));
            }
            self.give_oldest();
        }
        let span = self.central.cut(class, &state.owner.queue, &state.stash);
        self.keep_within();
        span
    }

    /// Gives empty spans back until no more than `most` bytes of them are left.
    /// If somebody else is at them, all of them may be left.
    #[cold]
    #[inline(never)]
    pub(crate) fn trim(self, most: usize) {
        if let Some(held) = self.state.empties.hold() {
            release_to::<C, P>(self.central, self.state, &held, &self.state.stash, most);
        }
    }

    /// Gives all empty spans back, for the end of a cache: waits for whoever is at them.
    pub(crate) fn trim_all(self) {
        while self.state.empties.bytes() > 0 {
            self.trim(0);
            spin_pause();
        }
    }

    /// Gives back half of what was not needed in the last round.
    #[cold]
    #[inline(never)]
    fn release_unneeded(self, held: &Held<'_>) {
        let (central, state) = (self.central, self.state);
        let empties = &state.empties;
        for class in empties.classes.iter() {
            let mut most = empties.of(class).unneeded();
            while most > 0 && empties.bytes() > SPARE_BYTES {
                let Some(span) = empties.first(class) else { break };
                release_window_of::<C, P>(central, state, held, &state.stash, span, |other| {
                    let one_more = other.class() == class && most > 0;
                    most -= u32::from(one_more);
                    one_more
                });
            }
        }
    }
}

/// Gives the empty spans of a state back until no more than `most` bytes of them are left. The caller is the
/// only user of `stash`.
pub(crate) fn release_to<C: Central, P: Policy>(
    central: &C,
    state: &CacheState<P::Bin>,
    held: &Held<'_>,
    stash: &Stash,
    most: usize,
) {
    while state.empties.bytes() > most {
        let Some(span) = state.empties.first_of_most() else { return };
        release_window_of::<C, P>(central, state, held, stash, span, |_| true);
    }
}

/// Gives an empty span of a state back, and with it the `others` in the same window of pages: so the heap's
/// lock is taken once for all of them. The caller is the only user of `stash`.
fn release_window_of<C: Central, P: Policy>(
    central: &C,
    state: &CacheState<P::Bin>,
    _held: &Held<'_>,
    stash: &Stash,
    span: SpanRef,
    mut others: impl FnMut(SpanRef) -> bool,
) {
    let window = span.base() & !(WINDOW_BYTES - 1);
    let end = window + WINDOW_BYTES;
    if span.base() + bytes_of(span) > end {
        state.empties.remove(span);
        others(span);
        // SAFETY: the state owns the span, just taken off its list by who holds the list; the stash is
        // the caller's.
        return unsafe { central.release(span, stash) };
    }
    let spans = SpanList::new();
    let mut address = window;
    while address < end {
        let next = address + PAGE_BYTES;
        address = match central.span_at(address) {
            // What is said of a span that is not among the empty ones may change at any time.
            Some(span) if span.ownership().is(&state.owner.queue) => {
                let after = span.base() + bytes_of(span);
                let here = span.base() >= window && after <= end;
                if here && span.place() == Place::Empty && others(span) {
                    state.empties.remove(span);
                    spans.push(span);
                }
                after.max(next)
            }
            _ => next,
        };
    }
    // SAFETY: the state owns the spans, which lie in the window; the stash is the caller's.
    unsafe { central.release_window(window, &spans, stash) };
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let classes = Classes::new();
        assert_eq!(classes.iter().count(), 0);
        for class in [64, 0, 127, 63] {
            classes.set(class, true);
        }
        assert_eq!(classes.iter().collect::<Vec<_>>(), [0, 63, 64, 127]);
        classes.set(63, false);
        assert_eq!(classes.iter().collect::<Vec<_>>(), [0, 64, 127]);
        classes.clear();
        assert_eq!(classes.iter().count(), 0);
    }
}
