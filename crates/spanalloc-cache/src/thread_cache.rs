use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::NonNull;

use spanalloc_central::Central;

use crate::cache::Cache;
use crate::policy::{Fast, Policy};
use crate::state::CacheState;
use crate::stats::Snapshot;

/// A thread's allocator, as a value: no locks on the fast path; dropped, it gives back its spans.
///
/// It may be sent to another thread but not be shared. `C` is the central lists, owned or (as a
/// rule) borrowed, so that several caches share them.
#[derive(Debug)]
pub struct ThreadCache<C: Central, P: Policy = Fast> {
    central: C,
    /// Null until the first use, so that making a cache cannot fail.
    state: Option<NonNull<CacheState<P::Bin>>>,
    policy: PhantomData<fn() -> P>,
}

// SAFETY: the state is used through this value only, whichever thread has it.
unsafe impl<C: Central + Send, P: Policy> Send for ThreadCache<C, P> {}

impl<C: Central> ThreadCache<C> {
    /// A cache over `central` that trusts the layouts it is given.
    pub const fn new(central: C) -> Self {
        Self::with_policy(central)
    }
}

impl<C: Central, P: Policy> ThreadCache<C, P> {
    /// A cache over `central` with the policy `P`.
    pub const fn with_policy(central: C) -> Self {
        Self { central, state: None, policy: PhantomData }
    }

    /// The lists below.
    pub fn central(&self) -> &C {
        &self.central
    }

    /// The cache itself, made now if this is its first use; None if there is no memory for it. It does what
    /// this value does, but delivers no [`Notice`](spanalloc_pages::Notice).
    #[inline(always)]
    pub fn cache(&mut self) -> Option<Cache<'_, C, P>> {
        match self.state {
            // SAFETY: the state was registered with these lists, is never unmapped and used through
            // this value only.
            Some(state) => Some(unsafe { Cache::new(state.as_ref(), &self.central) }),
            None => self.open_slow(),
        }
    }

    #[cold]
    #[inline(never)]
    fn open_slow(&mut self) -> Option<Cache<'_, C, P>> {
        let cache = Cache::open(&self.central)?;
        self.state = Some(NonNull::from(cache.state()));
        Some(cache)
    }

    /// What the allocator below and all its caches hold; None if there is no memory for this
    /// cache's state.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        self.cache().map(Cache::snapshot)
    }

    /// Memory for `layout`; None if there is no more. A size of 0 is served as 1.
    ///
    /// If the heap has a [`Listener`](spanalloc_pages::Listener), that may be called before this returns, here
    /// and in the functions below. It must not use this cache.
    #[inline]
    pub fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let cache = self.cache()?;
        match cache.try_alloc(layout) {
            Some(object) => NonNull::new(object),
            None => Self::alloc_any(cache, layout),
        }
    }

    #[inline(never)]
    fn alloc_any(cache: Cache<'_, C, P>, layout: Layout) -> Option<NonNull<u8>> {
        let object = cache.try_alloc_any(layout).unwrap_or_else(|| {
            let object = cache.alloc_slow(layout);
            deliver(cache);
            object
        });
        NonNull::new(object)
    }

    /// As [`alloc`](Self::alloc), and every byte is zero.
    #[inline]
    pub fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let cache = self.cache()?;
        let object = cache.alloc_zeroed(layout);
        deliver(cache);
        NonNull::new(object)
    }

    /// Frees an object.
    ///
    /// # Safety
    /// The object came from a cache over the same central lists with the same policy, with this
    /// layout, and nobody uses it any more.
    #[inline]
    pub unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            match self.cache() {
                Some(cache) => cache.free(object.as_ptr(), layout),
                None => {
                    Cache::<C, P>::free_uncached(&self.central, object.as_ptr(), layout);
                }
            }
        }
    }

    /// Gives an object a new size and keeps its contents; None leaves it as it was.
    ///
    /// # Safety
    /// As for [`free`](Self::free). A `new_size` that makes no Layout is refused with None.
    #[inline]
    pub unsafe fn realloc(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        let cache = self.cache()?;
        // SAFETY: the caller's promise is passed on.
        let moved = unsafe { cache.realloc(object.as_ptr(), layout, new_size) };
        deliver(cache);
        NonNull::new(moved)
    }
}

/// Tells whoever listens to the heap what there is to be told.
#[inline]
fn deliver<C: Central, P: Policy>(cache: Cache<'_, C, P>) {
    if let Some(notice) = cache.take_notice() {
        notice.deliver();
    }
}

impl<C: Central, P: Policy> Drop for ThreadCache<C, P> {
    fn drop(&mut self) {
        if let Some(state) = self.state {
            // SAFETY: as in `cache`; the value ends here.
            unsafe { Cache::<C, P>::new(state.as_ref(), &self.central).close() };
        }
    }
}
