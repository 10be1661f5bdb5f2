//! The heap of [`Spanalloc`]: its statics.

use std::cell::Cell;

use spanalloc_cache::{Fast, ThreadCache};
use spanalloc_os::Mmap;
use spanalloc_sync::Lock;
use spanalloc_sync::atomic::AtomicUsize;

use crate::global::Spanalloc;
use crate::program::{self, CacheOf, Central, Program, Shared, Stages, State};

pub(crate) type CacheState = State<Fast>;

static CENTRAL: Central = program::central(Mmap::new());
static STAGES: Stages<Fast> = Stages::new(0);
static FALLBACK: Shared<Fast> = Lock::new(ThreadCache::with_policy(&CENTRAL));
static EXIT_KEY: AtomicUsize = AtomicUsize::new(0);

std::thread_local! {
    static SLOT: Cell<*const CacheState> = const { Cell::new(&raw const STAGES.unset) };
}

impl Program for Spanalloc {
    type Policy = Fast;

    #[inline(always)]
    fn central() -> &'static Central {
        &CENTRAL
    }

    #[inline(always)]
    fn stages() -> &'static Stages<Fast> {
        &STAGES
    }

    fn fallback() -> &'static Shared<Fast> {
        &FALLBACK
    }

    fn exit_key() -> &'static AtomicUsize {
        &EXIT_KEY
    }

    #[inline(always)]
    fn slot() -> *const CacheState {
        SLOT.get()
    }

    #[inline(always)]
    fn set_slot(state: *const CacheState) {
        SLOT.set(state);
    }

    unsafe fn close(cache: CacheOf<Self>) {
        // SAFETY: the caller's promise is passed on.
        unsafe { cache.park() };
    }
}
