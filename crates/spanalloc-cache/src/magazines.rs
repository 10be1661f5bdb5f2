//! The bin of caches that trust the program.

use core::cell::UnsafeCell;
use core::ptr;

use spanalloc_central::{Central, SpanRef, class_facts};
use spanalloc_pages::Pages;
use spanalloc_sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crate::bin::{Bin, Keep, Load, Spans};
use crate::cache::Cache;
use crate::depot::Depot;
use crate::give_back::give_back;
use crate::policy::Policy;

/// The most objects a magazine holds.
pub const MAGAZINE: usize = 128;
/// The most bytes of one class that a magazine holds, beyond [`LEAST`] objects.
const MAGAZINE_BYTES: usize = 64 << 10;
/// The least objects that a magazine of any class may come to hold.
const LEAST: usize = 4;
/// The most objects that a magazine holds at first.
const FIRST: usize = 8;
/// The most bytes of one class that a magazine holds at first, beyond [`LEAST`] objects.
const FIRST_BYTES: usize = 8 << 10;

/// A place in a bin's array of objects. An atomic only because statistics read it.
#[derive(Debug)]
struct Index(AtomicU32);

impl Index {
    const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    #[inline(always)]
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed) as usize
    }

    #[inline(always)]
    fn set(&self, index: usize) {
        self.0.store(index as u32, Ordering::Relaxed);
    }
}

/// A bin of two magazines: a freed object is only kept, and looked up when its magazine is emptied.
///
/// Objects are handed out from the *loaded* magazine and freed into the *freed* one, so that the
/// two sides of a loop that allocates and frees do not wait for each other's stores. Each magazine
/// is a stack in one half of `objects`; when the loaded one is empty they change places, without a
/// copy. They hold few objects at first, and twice as many whenever they were too small, as long as the
/// thread's magazines may grow. When they can hold no more, the freed one is put away in the depot.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Magazines {
    /// One past the newest loaded object.
    loaded_top: Index,
    /// The oldest loaded object: 0 or `MAGAZINE`.
    loaded_base: Index,
    /// One past the newest freed object.
    freed_top: Index,
    /// Where the freed magazine is full.
    freed_end: Index,
    /// The most objects that each magazine holds now; 0 until the bin is first used.
    limit: Index,
    /// Whether every loaded object is known to hold zeros.
    zeroed: AtomicBool,
    spans: Spans,
    depot: Depot,
    objects: [UnsafeCell<*mut u8>; 2 * MAGAZINE],
}

// SAFETY: the objects are used by the bin's thread only (contract of the unsafe methods that reach
// them); everything that others read is atomic.
unsafe impl Sync for Magazines {}

impl Magazines {
    const fn new() -> Self {
        Self {
            loaded_top: Index::new(),
            loaded_base: Index::new(),
            freed_top: Index::new(),
            freed_end: Index::new(),
            limit: Index::new(),
            zeroed: AtomicBool::new(false),
            spans: Spans::new(),
            depot: Depot::new(),
            objects: [const { UnsafeCell::new(ptr::null_mut()) }; 2 * MAGAZINE],
        }
    }

    #[inline(always)]
    fn object(&self, index: usize) -> *mut *mut u8 {
        debug_assert!(index < 2 * MAGAZINE);
        UnsafeCell::raw_get(self.objects.as_ptr().wrapping_add(index))
    }

    /// Keeps a freed object, if there is room.
    ///
    /// # Safety
    /// The caller is the bin's thread; the object is of this bin's class and unused.
    #[inline(always)]
    unsafe fn keep(&self, object: *mut u8) -> bool {
        let top = self.freed_top.get();
        if top >= self.freed_end.get() {
            return false;
        }
        // SAFETY: below the end, so in bounds; only the bin's thread uses the objects (contract).
        unsafe { self.object(top).write(object) };
        self.freed_top.set(top + 1);
        true
    }

    /// Objects in the loaded magazine.
    fn loaded(&self) -> usize {
        self.loaded_top.get().saturating_sub(self.loaded_base.get())
    }

    /// Objects in the freed magazine.
    fn freed(&self) -> usize {
        (self.freed_top.get() + self.limit.get()).saturating_sub(self.freed_end.get())
    }

    /// Doubles the most objects that the magazines hold, if the thread's magazines may still grow that
    /// much.
    fn grow(&self, bytes: usize, bin_bytes: &AtomicUsize, most: usize) -> bool {
        let limit = self.limit.get();
        let more = limit.min((MAGAZINE_BYTES / bytes).clamp(LEAST, MAGAZINE).saturating_sub(limit));
        let grown = bin_bytes.load(Ordering::Relaxed) + 2 * more * bytes;
        if more == 0 || grown > most {
            return false;
        }
        bin_bytes.store(grown, Ordering::Relaxed);
        self.limit.set(limit + more);
        self.freed_end.set(self.freed_end.get() + more);
        true
    }

    /// Puts the freed magazine away. False if it is small, the thread's magazines may not grow that much,
    /// or there is no memory.
    fn put_away<P: Pages>(
        &self,
        heap: &P,
        bytes: usize,
        bin_bytes: &AtomicUsize,
        most: usize,
    ) -> bool {
        if self.freed() < MAGAZINE {
            return false;
        }
        if self.depot.is_full() {
            let grown = bin_bytes.load(Ordering::Relaxed) + MAGAZINE * bytes;
            if grown > most || !self.depot.deepen() {
                return false;
            }
            bin_bytes.store(grown, Ordering::Relaxed);
        }
        // SAFETY: the freed magazine has so many objects; the caller is the bin's thread.
        let done = unsafe { self.depot.push(heap, self.freed_objects()) };
        if done {
            self.clear_freed();
        }
        done
    }

    /// Loads the magazine that was put away last, if there is one. The loaded one is empty.
    fn fetch(&self) -> bool {
        // SAFETY: the loaded magazine has room for so many; the caller is the bin's thread.
        let some = unsafe { self.depot.pop(self.loaded_objects()) };
        if some {
            self.set_loaded(MAGAZINE, false);
        }
        some
    }

    /// The loaded objects, the oldest first.
    fn loaded_objects(&self) -> *mut *mut u8 {
        self.object(self.loaded_base.get())
    }

    /// The freed objects, the oldest first.
    fn freed_objects(&self) -> *mut *mut u8 {
        self.object(MAGAZINE - self.loaded_base.get())
    }

    /// Says that the first `count` places of the loaded magazine hold objects, and whether all of
    /// them hold zeros.
    fn set_loaded(&self, count: usize, zeroed: bool) {
        self.loaded_top.set(self.loaded_base.get() + count);
        self.zeroed.store(zeroed, Ordering::Relaxed);
    }

    /// Empties the freed magazine: its objects are elsewhere now.
    fn clear_freed(&self) {
        self.freed_top.set(MAGAZINE - self.loaded_base.get());
    }

    /// Makes the freed magazine the loaded one. The loaded one is empty.
    fn swap(&self) {
        let (empty, freed) = (self.loaded_base.get(), self.freed());
        self.loaded_base.set(MAGAZINE - empty);
        self.set_loaded(freed, false);
        self.freed_top.set(empty);
        self.freed_end.set(empty + self.limit.get());
    }
}

/// How many objects of `bytes` a magazine holds at first.
fn first_limit(bytes: usize) -> usize {
    (FIRST_BYTES / bytes.max(1)).clamp(LEAST, FIRST)
}

impl Bin for Magazines {}

impl Keep for Magazines {
    const EMPTY: Self = Self::new();

    const KNOWS_LIVE: bool = false;

    fn spans(&self) -> &Spans {
        &self.spans
    }

    fn begin(&self, bytes: usize, room: usize) -> usize {
        if self.is_in_use() {
            return 0;
        }
        let first = first_limit(bytes);
        let limit = if 2 * first * bytes > room { 1 } else { first };
        self.limit.set(limit);
        self.freed_top.set(MAGAZINE);
        self.freed_end.set(MAGAZINE + limit);
        2 * limit * bytes
    }

    fn holds(&self, bytes: usize) -> (usize, usize) {
        let most = 2 * self.limit.get() + self.depot.room();
        (most * bytes, 2 * first_limit(bytes) * bytes)
    }

    fn is_in_use(&self) -> bool {
        self.limit.get() > 0
    }

    fn end(&self) {
        debug_assert!(self.cached() == 0);
        for index in [&self.loaded_top, &self.loaded_base, &self.freed_top, &self.freed_end] {
            index.set(0);
        }
        self.limit.set(0);
        self.depot.end();
    }

    #[inline(always)]
    unsafe fn pop<P: Policy>(&self) -> Option<*mut u8> {
        let top = self.loaded_top.get();
        if top == self.loaded_base.get() {
            return None;
        }
        self.loaded_top.set(top - 1);
        // SAFETY: below a top, so in bounds; only the bin's thread uses the objects (contract).
        Some(unsafe { self.object(top - 1).read() })
    }

    /// Of large slots a magazine holds so few that it is often empty while the other one is full.
    #[inline]
    unsafe fn pop_or_load<P: Policy>(&self) -> Option<*mut u8> {
        let top = self.freed_top.get();
        if self.loaded() == 0 && top == self.freed_end.get() && top > 0 && self.limit.get() <= LEAST
        {
            self.swap();
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.pop::<P>() }
    }

    #[inline]
    fn zeroed(&self) -> bool {
        self.zeroed.load(Ordering::Relaxed)
    }

    fn cached(&self) -> usize {
        self.loaded() + self.freed() + self.depot.objects()
    }

    fn recover<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) -> bool {
        let bin = cache.state.bin(class);
        if bin.freed() == 0 && bin.fetch() {
            return true;
        }
        let some = bin.freed() > 0;
        if some {
            bin.swap();
        }
        if let Some(span) = bin.spans.current() {
            if cache.grow(bin, class) && some {
                // As many objects as the magazines now hold shall take turns.
                // SAFETY: this thread owns its current span, which is of this class.
                unsafe { bin.load(span) };
            }
        }
        some
    }

    unsafe fn load(&self, span: SpanRef) -> Load {
        let loaded = self.loaded();
        let end = self.object(self.loaded_base.get() + loaded);
        // SAFETY: this thread owns the span (contract); the magazine has room for the limit.
        let taken = unsafe { span.take(end, self.limit.get().saturating_sub(loaded)) };
        if taken.count == 0 {
            return Load::Exhausted;
        }
        self.set_loaded(loaded + taken.count, taken.zeroed && loaded == 0);
        Load::Loaded
    }

    #[inline(always)]
    unsafe fn push<C: Central, P: Policy<Bin = Self>>(
        cache: Cache<'_, C, P>,
        class: u8,
        object: *mut u8,
    ) -> bool {
        // SAFETY: this thread is the bin's, and the object unused (contract).
        unsafe { cache.state.bin(class).keep(object) }
    }

    /// Makes room in a freed magazine that is full or was never used.
    unsafe fn push_slow<C: Central, P: Policy<Bin = Self>>(
        cache: Cache<'_, C, P>,
        class: u8,
        object: *mut u8,
    ) {
        let bin = cache.prepare(class);
        // What a thread that never allocates frees is not for itself.
        if cache.grow(bin, class) {
            // That made room.
        } else if bin.loaded() == 0 && bin.spans.current().is_some() {
            bin.swap();
        } else if !cache.put_away(bin, class) {
            // SAFETY: this thread is the bin's; the magazine holds objects of this class.
            unsafe { give_back(cache, class, bin.freed_objects(), bin.freed()) };
            bin.clear_freed();
        }
        // SAFETY: this thread is the bin's, and just made room.
        unsafe { bin.keep(object) };
        cache.heed();
    }

    fn settle<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) {
        let bin = cache.state.bin(class);
        // SAFETY: this thread is the bin's (contract of `Cache::new`); the magazine holds objects of this
        // class.
        unsafe {
            give_back(cache, class, bin.freed_objects(), bin.freed());
            bin.clear_freed();
            while bin.depot.pop(bin.freed_objects()) {
                give_back(cache, class, bin.freed_objects(), MAGAZINE);
            }
        }
    }

    fn flush<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) {
        Self::settle(cache, class);
        let bin = cache.state.bin(class);
        // SAFETY: as in `settle`.
        unsafe { give_back(cache, class, bin.loaded_objects(), bin.loaded()) };
        bin.set_loaded(0, false);
    }
}

impl<C: Central, P: Policy<Bin = Magazines>> Cache<'_, C, P> {
    /// Doubles what the magazines of a class hold, as far as the thread may keep that much.
    fn grow(self, bin: &Magazines, class: u8) -> bool {
        let bytes = class_facts::<C::Table>(class).bytes as usize;
        bin.grow(bytes, &self.state.bin_bytes, self.most_grown())
    }

    /// Puts the freed magazine of a class away, as far as the thread may keep that much.
    fn put_away(self, bin: &Magazines, class: u8) -> bool {
        let bytes = class_facts::<C::Table>(class).bytes as usize;
        bin.put_away(self.central.heap(), bytes, &self.state.bin_bytes, self.most_grown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Fast;

    #[test]
    fn an_unused_bin_gives_nothing_and_takes_nothing() {
        let bin = Magazines::new();
        let mut object = 0u64;
        // SAFETY: this thread is the bin's.
        unsafe {
            assert_eq!(bin.pop::<Fast>(), None);
            assert!(!bin.keep((&raw mut object).cast()));
        }
        assert_eq!((bin.loaded(), bin.freed(), bin.limit.get()), (0, 0, 0));
    }

    #[test]
    fn a_bin_takes_up_to_its_limit_and_gives_the_newest_first_after_a_swap() {
        let bin = Magazines::new();
        bin.begin(MAGAZINE_BYTES, usize::MAX);
        let mut objects = [0u64; LEAST + 1];
        let objects = objects.each_mut().map(|object| ptr::from_mut(object).cast::<u8>());
        let (kept, one_more) = (&objects[..LEAST], objects[LEAST]);
        // Each turn the magazines have changed places once more.
        for _ in 0..3 {
            // SAFETY: this thread is the bin's.
            unsafe {
                assert!(kept.iter().all(|object| bin.keep(*object)) && !bin.keep(one_more));
                assert_eq!(
                    bin.pop::<Fast>(),
                    None,
                    "freed objects are not handed out before a swap"
                );
                assert_eq!((bin.loaded(), bin.freed()), (0, LEAST));
                bin.swap();
                assert_eq!((bin.loaded(), bin.freed(), bin.zeroed()), (LEAST, 0, false));
                assert!(bin.keep(one_more));
                assert!(kept.iter().rev().all(|object| bin.pop::<Fast>() == Some(*object)));
                assert_eq!(bin.pop::<Fast>(), None);
                bin.clear_freed();
            }
        }
        bin.end();
        assert_eq!(bin.limit.get(), 0);
    }

    #[test]
    fn magazines_grow_by_doubling_until_a_bound_or_what_the_thread_may_keep() {
        let grown = AtomicUsize::new(0);
        let bin = Magazines::new();
        bin.begin(64, usize::MAX);
        let mut limits = std::vec![bin.limit.get()];
        while bin.grow(64, &grown, usize::MAX) {
            limits.push(bin.limit.get());
        }
        assert_eq!(limits, [FIRST, 16, 32, 64, MAGAZINE]);
        assert_eq!(grown.load(Ordering::Relaxed), 2 * (MAGAZINE - FIRST) * 64);
        assert_eq!((bin.freed(), bin.freed_end.get()), (0, 2 * MAGAZINE));
        let large = Magazines::new();
        large.begin(MAGAZINE_BYTES, usize::MAX);
        assert!(
            !large.grow(MAGAZINE_BYTES, &grown, usize::MAX),
            "there is room for the least only"
        );
        let late = Magazines::new();
        late.begin(64, 2 * FIRST * 64);
        let most = grown.load(Ordering::Relaxed) + 2 * FIRST * 64;
        assert!(
            late.grow(64, &grown, most) && !late.grow(64, &grown, most),
            "the thread keeps enough"
        );
        assert_eq!(late.limit.get(), 2 * FIRST);
        let narrow = Magazines::new();
        assert_eq!(narrow.begin(64, 2 * FIRST * 64 - 1), 2 * 64, "no room for more");
        assert_eq!((narrow.limit.get(), narrow.holds(64)), (1, (2 * 64, 2 * FIRST * 64)));
    }

    #[test]
    fn a_load_is_known_to_be_zero_until_the_next_one() {
        let bin = Magazines::new();
        bin.begin(8, usize::MAX);
        // SAFETY: the magazine has room for MAGAZINE objects.
        unsafe { bin.loaded_objects().write(ptr::null_mut()) };
        bin.set_loaded(1, true);
        // SAFETY: this thread is the bin's.
        assert_eq!(unsafe { bin.pop::<Fast>() }, Some(ptr::null_mut()));
        assert!(bin.zeroed(), "the object popped last is one of that load");
        bin.swap();
        assert!(!bin.zeroed());
    }
}
