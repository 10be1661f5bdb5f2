use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use spanalloc_central::{Central, TINY, TINY_BYTES};
use spanalloc_classes::ClassTable;

use crate::bin::Keep;
use crate::policy::Policy;
use crate::state::CacheState;

/// Where a Layout's objects live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Packed into a slot with others.
    Tiny,
    /// A slot of this class.
    Small(u8),
    /// Whole pages.
    Large,
}

/// The cache of one thread, in use: its state, and the lists below.
///
/// This is what `ThreadCache` and the facade work through. It is two words and `Copy`; the state
/// decides which thread may use it.
pub struct Cache<'a, C, P: Policy> {
    pub(crate) state: &'a CacheState<P::Bin>,
    pub(crate) central: &'a C,
    policy: PhantomData<P>,
}

impl<C, P: Policy> Clone for Cache<'_, C, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, P: Policy> Copy for Cache<'_, C, P> {}

impl<C, P: Policy> core::fmt::Debug for Cache<'_, C, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cache").field("state", &ptr::from_ref(self.state)).finish_non_exhaustive()
    }
}

impl<'a, C: Central, P: Policy> Cache<'a, C, P> {
    /// The cache with this state over `central`.
    ///
    /// # Safety
    /// No other thread uses the state through a `Cache` while this one does. The state is either
    /// [`CacheState::empty`] or was registered with `central` (see [`Cache::open`]), with which no
    /// other kind of owner is registered.
    #[inline(always)]
    pub const unsafe fn new(state: &'a CacheState<P::Bin>, central: &'a C) -> Self {
        const {
            let table = C::Table::CLASSES;
            assert!(P::PACK_MAX <= TINY_BYTES, "at most 16 bytes fit the slot that is shared");
            assert!(
                P::PACK_MAX == 0 || table.class(table.class_of(TINY_BYTES)).bytes == 16,
                "a policy that packs needs a table with a class of 16 bytes"
            );
            assert!(
                !(P::CANARIES || P::WIPES || P::SHUFFLES)
                    || (P::Bin::KNOWS_LIVE && P::PACK_MAX == 0),
                "a policy that looks after slots needs a bin that knows what is live"
            );
        }
        Self { state, central, policy: PhantomData }
    }

    /// The state.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> &'a CacheState<P::Bin> {
        self.state
    }

    /// Whether objects of this layout are packed.
    #[inline(always)]
    fn is_tiny(layout: Layout) -> bool {
        layout.size() <= P::PACK_MAX && layout.align() <= TINY_BYTES && P::PACK_MAX > 0
    }

    #[inline(always)]
    pub(crate) fn path(layout: Layout) -> Path {
        if Self::is_tiny(layout) {
            return Path::Tiny;
        }
        match C::Table::CLASSES.class_for(layout.size() + Self::CANARY_BYTES, layout.align()) {
            0 => Path::Large,
            class => Path::Small(class),
        }
    }

    /// The class of the layouts that the inlined paths serve: those of most objects of a program.
    #[inline(always)]
    pub(crate) fn common(size: usize, align: usize) -> Option<u8> {
        if P::PACK_MAX > 0 && size <= P::PACK_MAX {
            return None;
        }
        C::Table::CLASSES.fine_class_for(size.saturating_add(Self::CANARY_BYTES), align)
    }

    /// Memory for a common `layout` from its bin: no lock, no call. None sends the caller to
    /// [`try_alloc_any`](Self::try_alloc_any).
    #[inline(always)]
    #[must_use]
    pub fn try_alloc(self, layout: Layout) -> Option<*mut u8> {
        // SAFETY: this thread uses the state (contract of `new`).
        Self::common(layout.size(), layout.align()).and_then(|class| unsafe { self.pop(class) })
    }

    /// The class of objects of this layout, by a few instructions. None if they are large, or packed.
    #[inline(always)]
    #[must_use]
    pub fn small_class(layout: Layout) -> Option<u8> {
        if Self::is_tiny(layout) {
            return None;
        }
        let size = layout.size() + Self::CANARY_BYTES;
        C::Table::CLASSES.class_by_rounding(size, layout.align())
    }

    /// An object of this class, if one is at hand.
    #[inline(always)]
    #[must_use]
    pub fn try_alloc_of(self, class: u8) -> Option<*mut u8> {
        // SAFETY: this thread uses the state (contract of `new`).
        unsafe { self.pop(class) }
    }

    /// Memory for any `layout` from what is at hand. None sends the caller to
    /// [`alloc_slow`](Self::alloc_slow).
    #[inline(always)]
    #[must_use]
    pub fn try_alloc_any(self, layout: Layout) -> Option<*mut u8> {
        // SAFETY: this thread uses the state (contract of `new`); tiny aligns are at most 16.
        unsafe {
            if Self::is_tiny(layout) {
                return self.state.open.pack(layout.size().max(1), tiny_align(layout));
            }
            let Some(class) = Self::small_class(layout) else {
                return self.try_alloc_recent(layout);
            };
            let object = self.state.bin(class).pop_or_load::<P>(self.state)?;
            Some(self.handed_out(class, object, false))
        }
    }

    /// Memory for `layout`, or null.
    #[cold]
    #[inline(never)]
    #[must_use]
    pub fn alloc_slow(self, layout: Layout) -> *mut u8 {
        match Self::path(layout) {
            Path::Small(class) => self.alloc_small_slow(class).0,
            Path::Tiny => self.alloc_tiny_slow(layout.size().max(1), tiny_align(layout)),
            Path::Large => {
                let (object, fresh) = self.alloc_large(layout);
                if fresh {
                    Self::expect_filled(self.central, object, layout.size());
                }
                object
            }
        }
    }

    /// Memory for `layout`, or null.
    #[inline(always)]
    #[must_use]
    pub fn alloc(self, layout: Layout) -> *mut u8 {
        match self.try_alloc(layout) {
            Some(object) => object,
            None => self.alloc_any(layout),
        }
    }

    #[inline(never)]
    fn alloc_any(self, layout: Layout) -> *mut u8 {
        match self.try_alloc_any(layout) {
            Some(object) => object,
            None => self.alloc_slow(layout),
        }
    }

    /// As [`try_alloc_any`](Self::try_alloc_any), and whether the memory is known to be zero.
    #[inline]
    #[must_use]
    pub fn try_alloc_known(self, layout: Layout) -> Option<(*mut u8, bool)> {
        match Self::path(layout) {
            Path::Small(class) => self.try_alloc_known_of(class),
            _ => Some((self.try_alloc_any(layout)?, false)),
        }
    }

    /// An object of this class, if one is at hand, and whether it is known to be zero.
    #[inline(always)]
    #[must_use]
    pub fn try_alloc_known_of(self, class: u8) -> Option<(*mut u8, bool)> {
        let zeroed = P::WIPES || self.state.bin(class).zeroed();
        // SAFETY: this thread uses the state (contract of `new`).
        Some((unsafe { self.pop(class) }?, zeroed))
    }

    /// Memory for `layout` or null, and whether it is known to be zero.
    #[inline]
    #[must_use]
    pub fn alloc_known(self, layout: Layout) -> (*mut u8, bool) {
        self.try_alloc_known(layout).unwrap_or_else(|| match Self::path(layout) {
            Path::Small(class) => self.alloc_small_slow(class),
            Path::Tiny => (self.alloc_slow(layout), false),
            Path::Large => self.alloc_large(layout),
        })
    }

    /// Memory for `layout` that holds zeros, or null. Memory known to be zero is not written.
    #[inline]
    #[must_use]
    pub fn alloc_zeroed(self, layout: Layout) -> *mut u8 {
        let (object, zeroed) = self.alloc_known(layout);
        if !zeroed && !object.is_null() {
            // SAFETY: the object has at least this size.
            unsafe { Self::fill_with_zeros(self.central, object, layout.size()) };
        }
        object
    }

    /// Frees an object of a common layout into its bin. False sends the caller to
    /// [`try_free_any`](Self::try_free_any).
    ///
    /// # Safety
    /// As for [`free`](Self::free).
    #[inline(always)]
    #[must_use]
    pub unsafe fn try_free(self, object: *mut u8, layout: Layout) -> bool {
        match Self::common(layout.size(), layout.align()) {
            // SAFETY: the caller's promise is passed on.
            Some(class) => unsafe { self.try_free_of(class, object) },
            None => false,
        }
    }

    /// Frees an object of this class into its bin. False sends the caller to [`free_slow`](Self::free_slow).
    ///
    /// # Safety
    /// As for [`free`](Self::free), and `class` is the [`small_class`](Self::small_class) of the layout.
    #[inline(always)]
    #[must_use]
    pub unsafe fn try_free_of(self, class: u8, object: *mut u8) -> bool {
        // SAFETY: this thread uses the state (contract of `new`); the object is of the class.
        unsafe { P::Bin::push(self, class, object) }
    }

    /// Frees an object of any layout into what is at hand. False sends the caller to
    /// [`free_slow`](Self::free_slow).
    ///
    /// # Safety
    /// As for [`free`](Self::free).
    #[inline]
    #[must_use]
    pub unsafe fn try_free_any(self, object: *mut u8, layout: Layout) -> bool {
        if Self::is_tiny(layout) {
            // SAFETY: the object is tiny by its Layout.
            return unsafe { self.try_free_tiny(object) };
        }
        match Self::small_class(layout) {
            // SAFETY: the caller's promise is passed on.
            Some(class) => unsafe { self.try_free_of(class, object) },
            // SAFETY: nobody uses the object any more (contract).
            None => unsafe { self.try_free_recent(object) },
        }
    }

    /// Frees an object.
    ///
    /// # Safety
    /// As for [`free`](Self::free).
    #[cold]
    #[inline(never)]
    pub unsafe fn free_slow(self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            match Self::path(layout) {
                Path::Small(class) => P::Bin::push_slow(self, class, object),
                Path::Tiny => self.free_tiny_slow(object),
                Path::Large => self.free_large(object),
            }
        }
    }

    /// Frees an object.
    ///
    /// # Safety
    /// The object came from a cache over the same central lists and policy, with this layout (or
    /// was given it by [`realloc`](Self::realloc)), and nobody uses it any more.
    #[inline(always)]
    pub unsafe fn free(self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            if !self.try_free(object, layout) {
                self.free_any(object, layout);
            }
        }
    }

    /// # Safety
    /// As for [`free`](Self::free).
    #[inline(never)]
    unsafe fn free_any(self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            if !self.try_free_any(object, layout) {
                self.free_slow(object, layout);
            }
        }
    }

    /// A cache for the calling thread, or None if there is no memory for one.
    #[must_use]
    pub fn open(central: &'a C) -> Option<Self> {
        // SAFETY: the layout is always that of `CacheState`, which begins with an `Owner` and may
        // be all zero.
        let owner = unsafe { central.register(Layout::new::<CacheState<P::Bin>>()) }?;
        let state: NonNull<CacheState<P::Bin>> = owner.cast();
        // SAFETY: registered states are never unmapped, and this one is used by nobody else.
        let cache = unsafe { Self::new(state.as_ref(), central) };
        // What was freed while it was parked serves before memory that was never touched.
        if !cache.state.owner.queue.is_empty() {
            cache.drain();
        }
        Some(cache)
    }
}

/// Offsets in a shared slot are multiples of this: what the size suggests, and never less than the
/// Layout asks.
#[inline(always)]
pub(crate) fn tiny_align(layout: Layout) -> usize {
    let natural = match layout.size() {
        size if size % 8 == 0 && size > 0 => 8,
        size if size % 4 == 0 && size > 0 => 4,
        size if size % 2 == 0 && size > 0 => 2,
        _ => 1,
    };
    layout.align().max(natural)
}

/// The class of the slots that tiny objects share.
pub(crate) const SHARED: u8 = TINY;

#[cfg(test)]
mod tests {
    use spanalloc_central::CentralLists;
    use spanalloc_classes::Go67;
    use spanalloc_os::Mmap;
    use spanalloc_pages::PageHeap;

    use super::*;
    use crate::magazines::Magazines;

    struct Packing;

    impl Policy for Packing {
        type Bin = Magazines;

        const PACK_MAX: usize = 7;
    }

    type Plain<'a> = Cache<'a, CentralLists<Go67, PageHeap<Mmap>>, Packing>;

    fn path(size: usize, align: usize) -> Path {
        Plain::path(Layout::from_size_align(size, align).unwrap())
    }

    fn class(size: usize) -> Path {
        Path::Small(Go67::CLASSES.class_of(size))
    }

    #[test]
    fn the_path_follows_from_size_and_alignment() {
        assert_eq!([path(0, 1), path(7, 1), path(4, 16)], [Path::Tiny; 3]);
        assert_eq!([path(8, 1), path(8, 8)], [class(8); 2]);
        assert_eq!(path(7, 32), class(32));
        assert_eq!(path(17, 16), class(32), "a slot of 24 bytes is not aligned to 16");
        assert_eq!([path(32768, 8), path(1, 8192)], [class(32768), class(8192)]);
        assert_eq!([path(32769, 1), path(1, 16384), path(0, 1 << 29)], [Path::Large; 3]);
    }

    #[test]
    fn the_common_layouts_are_those_between_tiny_and_1024_bytes() {
        let common = |size, align| Plain::common(size, align);
        assert_eq!([common(0, 1), common(7, 1), common(1025, 8), common(64, 2048)], [None; 4]);
        for size in 8..=1024_usize {
            for align in [1, 8, 16, 64] {
                let rounded = size.next_multiple_of(align);
                let fine = (rounded <= 1024).then(|| path(size, align));
                assert_eq!(common(size, align).map(Path::Small), fine);
            }
        }
    }

    #[test]
    fn a_tiny_object_is_aligned_as_its_size_suggests_and_never_less_than_asked() {
        let align = |size, align| tiny_align(Layout::from_size_align(size, align).unwrap());
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8].map(|size| align(size, 1)), [1, 2, 1, 4, 1, 2, 1, 8]);
        assert_eq!([align(1, 8), align(8, 16), align(0, 4)], [8, 16, 4]);
    }
}
