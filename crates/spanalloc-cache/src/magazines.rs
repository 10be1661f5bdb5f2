//! The bin of caches that trust the program.

use core::cell::UnsafeCell;
use core::ptr;

use spanalloc_central::{Central, SpanRef, class_facts};
use spanalloc_sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use spanalloc_sync::valve::{Inlet, Outlet};

use crate::bin::{Bin, Keep, Load, Spans};
use crate::cache::Cache;
use crate::depot::Depot;
use crate::give_back::give_back;
use crate::number::Number;
use crate::policy::Policy;
use crate::state::CacheState;

#[cfg(test)]
mod tests;

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

/// Magazines that could not grow change places so often before that is tried again.
const SWAPS: u8 = 16;

/// Whether another thread shut a bin, and what it did.
const OPEN: u8 = 0;
const CLOSING: u8 = 1;
const SHUT: u8 = 2;
const SETTLED: u8 = 3;
const EMPTIED: u8 = 4;

/// A bin of two magazines: a freed object is only kept, and looked up when its magazine is emptied.
///
/// Objects are handed out from the *loaded* magazine and freed into the *freed* one, so that the
/// two sides of a loop that allocates and frees do not wait for each other's stores. Each magazine
/// is a stack in one half of `objects` that grows downwards, so that the newest object has the lowest place; when
/// the loaded one is empty they change places, without a copy. They hold few objects at first, and twice as many
/// whenever they were too small, as long as the thread's magazines may grow. When they can hold no more, the freed one
/// is put away in the depot.
///
/// A thread that has seized the cache may shut a bin and take what is in it (see [`valve`](spanalloc_sync::valve)):
///
/// | `shut`    | the bin                                      | leaves it by                          |
/// |-----------|----------------------------------------------|---------------------------------------|
/// | `OPEN`    | is its thread's                              | shut -> CLOSING                       |
/// | `CLOSING` | takes and gives nothing, as soon as its thread sees that | find_ends -> SHUT; reopen -> OPEN |
/// | `SHUT`    | takes and gives nothing; `taken` and `given` say where its magazines were found | settle -> SETTLED |
/// | `SETTLED` | the same, and nothing is in the freed one    | flush -> EMPTIED                      |
/// | `EMPTIED` | the same, and nothing is in either           | reopen -> OPEN; end -> not in use     |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Magazines {
    /// The place of the newest loaded object.
    outlet: Outlet,
    /// One past the place of the next freed object.
    inlet: Inlet,
    /// The first place of the loaded half: 0 or `MAGAZINE`.
    half: Number,
    /// The most objects that each magazine holds now; 0 until the bin is first used.
    limit: Number,
    /// Whether every loaded object is known to hold zeros.
    zeroed: AtomicBool,
    /// See the table.
    shut: AtomicU8,
    /// How often the magazines may change places before it is tried to let them grow again.
    swaps: AtomicU8,
    spans: Spans,
    depot: Depot,
    /// The places at which the outlet and the inlet of a shut bin were found.
    taken: Number,
    given: Number,
    objects: [UnsafeCell<*mut u8>; 2 * MAGAZINE],
}

// SAFETY: the objects are used by the bin's thread only (contract of the unsafe methods that reach
// them), and by who has seized the bin; everything that others read is atomic.
unsafe impl Sync for Magazines {}

impl Magazines {
    const fn new() -> Self {
        Self {
            outlet: Outlet::new(),
            inlet: Inlet::new(),
            half: Number::new(),
            limit: Number::new(),
            zeroed: AtomicBool::new(false),
            shut: AtomicU8::new(OPEN),
            swaps: AtomicU8::new(0),
            spans: Spans::new(),
            depot: Depot::new(),
            taken: Number::new(),
            given: Number::new(),
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
        let Some(place) = self.inlet.room() else { return false };
        // SAFETY: a place of the inlet is in bounds; only the bin's thread uses the objects (contract).
        unsafe { self.object(place as usize).write(object) };
        self.inlet.give(place);
        true
    }

    fn state(&self) -> u8 {
        self.shut.load(Ordering::Relaxed)
    }

    /// One past the last place of the loaded half.
    fn loaded_end(&self) -> usize {
        self.half.get() + MAGAZINE
    }

    /// One past the last place of the freed half.
    fn freed_end(&self) -> usize {
        2 * MAGAZINE - self.half.get()
    }

    /// Where the loaded objects are, and how many: those that who shut the bin found, if it is shut.
    fn loaded_at(&self) -> (usize, usize) {
        let first = match self.state() {
            OPEN | CLOSING => self.outlet.next() as usize,
            SHUT | SETTLED => self.taken.get(),
            _ => self.loaded_end(),
        };
        (first, if self.is_in_use() { self.loaded_end().saturating_sub(first) } else { 0 })
    }

    /// Where the freed objects are, and how many, in the same way.
    fn freed_at(&self) -> (usize, usize) {
        let first = match self.state() {
            OPEN | CLOSING => self.inlet.next() as usize,
            SHUT => self.given.get(),
            _ => self.freed_end(),
        };
        (first, if self.is_in_use() { self.freed_end().saturating_sub(first) } else { 0 })
    }

    /// Objects in the loaded magazine.
    fn loaded(&self) -> usize {
        self.loaded_at().1
    }

    /// Objects in the freed magazine.
    fn freed(&self) -> usize {
        self.freed_at().1
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
        self.open_inlet(self.freed());
        true
    }

    /// Puts the freed magazine away. False if it is small, the thread's magazines may not grow that much,
    /// or there is no memory.
    fn put_away<C: Central>(
        &self,
        central: &C,
        bytes: usize,
        bin_bytes: &AtomicUsize,
        most: usize,
    ) -> bool {
        let (first, count) = self.freed_at();
        if count < MAGAZINE {
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
        let done = unsafe { self.depot.push(central, self.object(first)) };
        if done {
            self.clear_freed();
        }
        done
    }

    /// Loads the magazine that was put away last, if there is one. The loaded one is empty.
    fn fetch(&self) -> bool {
        // SAFETY: the loaded half has room for so many; the caller is the bin's thread.
        let some = unsafe { self.depot.pop(self.object(self.half.get())) };
        if some {
            self.set_loaded(MAGAZINE, false);
        }
        some
    }

    /// Says that there are `count` freed objects, in the last places.
    fn open_inlet(&self, count: usize) {
        let end = self.freed_end();
        self.inlet.open((end - self.limit.get()) as u32, (end - count) as u32);
    }

    /// Says that there are `count` loaded objects, in the last places, and whether all of them hold zeros.
    fn set_loaded(&self, count: usize, zeroed: bool) {
        let end = self.loaded_end();
        self.outlet.open((end - count) as u32, end as u32);
        self.zeroed.store(zeroed, Ordering::Relaxed);
    }

    /// Empties the freed magazine: its objects are elsewhere now.
    fn clear_freed(&self) {
        self.open_inlet(0);
    }

    /// Takes an object of the freed magazine, which becomes the loaded one, as long as that is not the time to let
    /// them grow.
    ///
    /// # Safety
    /// As for [`pop`](Keep::pop).
    #[inline(never)]
    unsafe fn pop_freed<P: Policy>(&self, state: &CacheState<Self>) -> Option<*mut u8> {
        // Of large slots a magazine holds so few that there is nothing to try.
        let swaps = self.swaps.load(Ordering::Relaxed);
        if self.freed() == 0 || swaps == 0 && self.limit.get() > LEAST {
            return None;
        }
        // That is more than to take an object.
        let alone = state.alone()?;
        if self.state() == OPEN && self.loaded() == 0 && self.freed() > 0 {
            self.swaps.store(swaps.saturating_sub(1), Ordering::Relaxed);
            self.swap();
        }
        drop(alone);
        // SAFETY: the caller's promise is passed on.
        unsafe { self.pop::<P>() }
    }

    /// Makes the freed magazine the loaded one. The loaded one is empty.
    fn swap(&self) {
        let freed = self.freed();
        self.half.set(MAGAZINE - self.half.get());
        self.set_loaded(freed, false);
        self.open_inlet(0);
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
        self.half.set(0);
        self.shut.store(OPEN, Ordering::Relaxed);
        self.set_loaded(0, false);
        self.open_inlet(0);
        2 * limit * bytes
    }

    fn holds(&self, bytes: usize) -> (usize, usize) {
        let most = 2 * self.limit.get() + self.depot.room();
        (most * bytes, 2 * first_limit(bytes) * bytes)
    }

    fn is_in_use(&self) -> bool {
        self.limit.get() > 0
    }

    fn end<C: Central>(&self, central: &C) {
        debug_assert!(self.cached() == 0);
        self.limit.set(0);
        self.outlet.open(0, 0);
        self.inlet.open(0, 0);
        self.shut.store(OPEN, Ordering::Relaxed);
        self.depot.end(central);
    }

    #[inline(always)]
    unsafe fn pop<P: Policy>(&self) -> Option<*mut u8> {
        let place = self.outlet.take()?;
        // SAFETY: a place of the outlet is in bounds; only the bin's thread uses the objects (contract).
        Some(unsafe { self.object(place as usize).read() })
    }

    #[inline(always)]
    unsafe fn pop_or_load<P: Policy>(&self, state: &CacheState<Self>) -> Option<*mut u8> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.pop::<P>().or_else(|| self.pop_freed::<P>(state)) }
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
            let grown = cache.grow(bin, class);
            bin.swaps.store(if grown { 0 } else { SWAPS }, Ordering::Relaxed);
            if grown && some {
                // As many objects as the magazines now hold shall take turns.
                // SAFETY: this thread owns its current span, which is of this class.
                unsafe { bin.load(span) };
            }
        }
        some
    }

    unsafe fn load(&self, span: SpanRef) -> Load {
        let (first, loaded) = self.loaded_at();
        let free = span.slots() - span.used();
        let want = self.limit.get().saturating_sub(loaded).min(free);
        if want == 0 {
            return Load::Exhausted;
        }
        // SAFETY: this thread owns the span (contract); the magazine has room for the limit.
        let taken = unsafe { span.take(self.object(first - want), want) };
        debug_assert!(taken.count == want);
        self.set_loaded(loaded + want, taken.zeroed && loaded == 0);
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
            let (first, count) = bin.freed_at();
            if count > 0 {
                // SAFETY: this thread is the bin's; the magazine holds objects of this class.
                unsafe { give_back(cache, class, bin.object(first), count) };
            }
            bin.clear_freed();
        }
        // SAFETY: this thread is the bin's, and just made room.
        unsafe { bin.keep(object) };
        cache.heed();
    }

    fn settle<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) {
        let bin = cache.state.bin(class);
        let (first, count) = bin.freed_at();
        if count > 0 {
            // SAFETY: this thread is the bin's (contract of `Cache::new`), or has seized it; the magazine holds
            // objects of this class.
            unsafe { give_back(cache, class, bin.object(first), count) };
        }
        // Not by way of the freed half: an object that is late may come to it.
        while let Some(full) = bin.depot.take() {
            // SAFETY: as above; the objects stay where they are until something else is put away.
            unsafe { give_back(cache, class, full, MAGAZINE) };
        }
        match bin.state() {
            OPEN => bin.clear_freed(),
            _ => bin.shut.store(SETTLED, Ordering::Relaxed),
        }
    }

    fn flush<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) {
        Self::settle(cache, class);
        let bin = cache.state.bin(class);
        let (first, count) = bin.loaded_at();
        if count > 0 {
            // SAFETY: as in `settle`.
            unsafe { give_back(cache, class, bin.object(first), count) };
        }
        match bin.state() {
            OPEN => bin.set_loaded(0, false),
            _ => bin.shut.store(EMPTIED, Ordering::Relaxed),
        }
    }

    fn shut(&self) {
        self.shut.store(CLOSING, Ordering::Relaxed);
        self.outlet.shut();
        self.inlet.shut();
    }

    fn find_ends(&self) {
        self.taken.set(self.outlet.next() as usize);
        self.given.set(self.inlet.next() as usize);
        self.shut.store(SHUT, Ordering::Relaxed);
    }

    fn reopen(&self) {
        match self.state() {
            OPEN => return,
            CLOSING => {
                let freed = self.freed();
                self.set_loaded(self.loaded(), self.zeroed());
                self.open_inlet(freed);
                return self.shut.store(OPEN, Ordering::Relaxed);
            }
            _ => {}
        }
        let (taken, given) = (self.taken.get(), self.given.get());
        // At most one object is there although who shut the bin did not find it.
        let late = if self.outlet.is_back(taken as u32, self.loaded_end() as u32) {
            Some(taken - 1)
        } else if self.inlet.has_one_more(given as u32) {
            Some(given - 1)
        } else {
            None
        };
        // SAFETY: the place is one of the bin's, and the caller its thread.
        let late = late.map(|place| unsafe { self.object(place).read() });
        self.shut.store(OPEN, Ordering::Relaxed);
        self.set_loaded(0, false);
        self.open_inlet(0);
        if let Some(object) = late {
            // SAFETY: the caller is the bin's thread; nobody has the object.
            unsafe { self.keep(object) };
        }
    }
}

impl<C: Central, P: Policy<Bin = Magazines>> Cache<'_, C, P> {
    /// Doubles what the magazines of a class hold, as far as the thread may keep that much.
    fn grow(self, bin: &Magazines, class: u8) -> bool {
        let bytes = class_facts::<C::Table>(class).bytes as usize;
        let grown = bin.grow(bytes, &self.state.bin_bytes, self.most_grown());
        if grown {
            self.keep_within();
        }
        grown
    }

    /// Puts the freed magazine of a class away, as far as the thread may keep that much.
    fn put_away(self, bin: &Magazines, class: u8) -> bool {
        let bytes = class_facts::<C::Table>(class).bytes as usize;
        let done = bin.put_away(self.central, bytes, &self.state.bin_bytes, self.most_grown());
        if done {
            self.keep_within();
        }
        done
    }
}
