use core::cell::UnsafeCell;
use core::ptr;

use spanalloc_central::{Span, SpanList, SpanRef};
use spanalloc_sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// The most objects a magazine holds.
pub const MAGAZINE: usize = 64;

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

/// What a thread keeps of one size class: two magazines, and the spans it owns.
///
/// Objects are handed out from the *loaded* magazine and freed into the *freed* one, so that the
/// two sides of a loop that allocates and frees do not wait for each other's stores. Each magazine
/// is a stack in one half of `objects`; when the loaded one is empty they change places, without a
/// copy. The all-zero bin is empty and takes no object, so that its first use comes to the slow
/// path.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Bin {
    /// One past the newest loaded object.
    loaded_top: Index,
    /// The oldest loaded object: 0 or `MAGAZINE`.
    loaded_base: Index,
    /// One past the newest freed object.
    freed_top: Index,
    /// Where the freed magazine is full.
    freed_end: Index,
    /// The most objects a magazine of this class holds; 0 until the bin is first used.
    limit: Index,
    /// Whether every loaded object is known to hold zeros.
    zeroed: AtomicBool,
    /// The span that objects are taken from.
    current: AtomicPtr<Span>,
    /// The other spans of this thread that have free slots.
    pub(crate) partial: SpanList,
    /// The spans of this thread without free slots worth looking for.
    pub(crate) full: SpanList,
    objects: [UnsafeCell<*mut u8>; 2 * MAGAZINE],
}

impl Bin {
    pub(crate) const fn new() -> Self {
        Self {
            loaded_top: Index::new(),
            loaded_base: Index::new(),
            freed_top: Index::new(),
            freed_end: Index::new(),
            limit: Index::new(),
            zeroed: AtomicBool::new(false),
            current: AtomicPtr::new(ptr::null_mut()),
            partial: SpanList::new(),
            full: SpanList::new(),
            objects: [const { UnsafeCell::new(ptr::null_mut()) }; 2 * MAGAZINE],
        }
    }

    #[inline(always)]
    fn object(&self, index: usize) -> *mut *mut u8 {
        debug_assert!(index < 2 * MAGAZINE);
        UnsafeCell::raw_get(self.objects.as_ptr().wrapping_add(index))
    }

    /// Takes the newest loaded object, if there is one.
    ///
    /// # Safety
    /// The caller is the bin's thread.
    #[inline(always)]
    pub(crate) unsafe fn pop(&self) -> Option<*mut u8> {
        let top = self.loaded_top.get();
        if top == self.loaded_base.get() {
            return None;
        }
        self.loaded_top.set(top - 1);
        // SAFETY: below a top, so in bounds; only the bin's thread uses the objects (contract).
        Some(unsafe { self.object(top - 1).read() })
    }

    /// Keeps a freed object, if there is room.
    ///
    /// # Safety
    /// The caller is the bin's thread; the object is of this bin's class and unused.
    #[inline(always)]
    pub(crate) unsafe fn push(&self, object: *mut u8) -> bool {
        let top = self.freed_top.get();
        if top >= self.freed_end.get() {
            return false;
        }
        // SAFETY: below the end, so in bounds; only the bin's thread uses the objects (contract).
        unsafe { self.object(top).write(object) };
        self.freed_top.set(top + 1);
        true
    }

    /// The most objects a magazine holds; 0 if the bin is not in use.
    pub(crate) fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Puts an all-zero bin to use.
    pub(crate) fn begin(&self, limit: usize) {
        debug_assert!(limit <= MAGAZINE);
        self.limit.set(limit);
        self.freed_top.set(MAGAZINE);
        self.freed_end.set(MAGAZINE + limit);
    }

    /// Makes an emptied bin all zero again.
    pub(crate) fn end(&self) {
        debug_assert!(self.cached() == 0);
        for index in [&self.loaded_top, &self.loaded_base, &self.freed_top, &self.freed_end] {
            index.set(0);
        }
        self.limit.set(0);
    }

    /// Objects in the loaded magazine.
    pub(crate) fn loaded(&self) -> usize {
        self.loaded_top.get().saturating_sub(self.loaded_base.get())
    }

    /// Objects in the freed magazine.
    pub(crate) fn freed(&self) -> usize {
        (self.freed_top.get() + self.limit.get()).saturating_sub(self.freed_end.get())
    }

    /// Objects in both magazines.
    pub(crate) fn cached(&self) -> usize {
        self.loaded() + self.freed()
    }

    /// The loaded objects, the oldest first.
    pub(crate) fn loaded_objects(&self) -> *mut *mut u8 {
        self.object(self.loaded_base.get())
    }

    /// The freed objects, the oldest first.
    pub(crate) fn freed_objects(&self) -> *mut *mut u8 {
        self.object(MAGAZINE - self.loaded_base.get())
    }

    /// Says that the first `count` places of the loaded magazine hold objects, and whether all of
    /// them hold zeros.
    pub(crate) fn set_loaded(&self, count: usize, zeroed: bool) {
        self.loaded_top.set(self.loaded_base.get() + count);
        self.zeroed.store(zeroed, Ordering::Relaxed);
    }

    /// Whether the loaded objects, and the one popped last, are known to hold zeros.
    #[inline]
    pub(crate) fn zeroed(&self) -> bool {
        self.zeroed.load(Ordering::Relaxed)
    }

    /// Empties the freed magazine: its objects are elsewhere now.
    pub(crate) fn clear_freed(&self) {
        self.freed_top.set(MAGAZINE - self.loaded_base.get());
    }

    /// Makes the freed magazine the loaded one. The loaded one is empty.
    pub(crate) fn swap(&self) {
        let (empty, freed) = (self.loaded_base.get(), self.freed());
        self.loaded_base.set(MAGAZINE - empty);
        self.set_loaded(freed, false);
        self.freed_top.set(empty);
        self.freed_end.set(empty + self.limit.get());
    }

    pub(crate) fn current(&self) -> Option<SpanRef> {
        let descriptor = ptr::NonNull::new(self.current.load(Ordering::Relaxed))?;
        // SAFETY: only descriptors are stored here.
        Some(unsafe { SpanRef::from_descriptor(descriptor) })
    }

    pub(crate) fn set_current(&self, span: Option<SpanRef>) {
        let raw = span.map_or(ptr::null_mut(), |span| span.as_ptr().as_ptr());
        self.current.store(raw, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unused_bin_gives_nothing_and_takes_nothing() {
        let bin = Bin::new();
        let mut object = 0u64;
        // SAFETY: this thread is the bin's.
        unsafe {
            assert_eq!(bin.pop(), None);
            assert!(!bin.push((&raw mut object).cast()));
        }
        assert_eq!((bin.loaded(), bin.freed(), bin.limit()), (0, 0, 0));
    }

    #[test]
    fn a_bin_takes_up_to_its_limit_and_gives_the_newest_first_after_a_swap() {
        let bin = Bin::new();
        bin.begin(2);
        let mut objects = [0u64; 3];
        let [a, b, c] = objects.each_mut().map(|object| ptr::from_mut(object).cast::<u8>());
        // Each turn the magazines have changed places once more.
        for _ in 0..3 {
            // SAFETY: this thread is the bin's.
            unsafe {
                assert!(bin.push(a) && bin.push(b) && !bin.push(c));
                assert_eq!(bin.pop(), None, "freed objects are not handed out before a swap");
                assert_eq!((bin.loaded(), bin.freed()), (0, 2));
                bin.swap();
                assert_eq!((bin.loaded(), bin.freed(), bin.zeroed()), (2, 0, false));
                assert!(bin.push(c));
                assert_eq!((bin.pop(), bin.pop(), bin.pop()), (Some(b), Some(a), None));
                bin.clear_freed();
            }
        }
        bin.end();
        assert_eq!(bin.limit(), 0);
    }

    #[test]
    fn a_load_is_known_to_be_zero_until_the_next_one() {
        let bin = Bin::new();
        bin.begin(MAGAZINE);
        // SAFETY: the magazine has room for MAGAZINE objects.
        unsafe { bin.loaded_objects().write(ptr::null_mut()) };
        bin.set_loaded(1, true);
        // SAFETY: this thread is the bin's.
        assert_eq!(unsafe { bin.pop() }, Some(ptr::null_mut()));
        assert!(bin.zeroed(), "the object popped last is one of that load");
        bin.swap();
        assert!(!bin.zeroed());
    }
}
