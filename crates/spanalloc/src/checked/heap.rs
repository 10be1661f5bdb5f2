//! The heap of [`Checked`](super::Checked): its statics.

use spanalloc_cache::{Checked as Policy, ThreadCache};
use spanalloc_sync::Lock;
use spanalloc_sync::atomic::AtomicUsize;

use super::Checked;
use super::gate::{FAST, Gate};
use crate::program::{self, CacheOf, Central, Program, Shared, Stages, State};
use crate::slot;

pub(crate) type CacheState = State<Policy>;
pub(super) type Cache = CacheOf<Checked>;

static CENTRAL: Central = program::central();
/// The first of them is where every slot begins. All of them look entered, so that the fast paths
/// leave them alone.
pub(crate) static STAGES: Stages<Policy> = Stages::new(FAST);
static FALLBACK: Shared<Policy> = Lock::new(ThreadCache::with_policy(&CENTRAL));
static EXIT_KEY: AtomicUsize = AtomicUsize::new(0);

/// What keeps threads out of the heap while the process forks.
pub(super) static GATE: Gate = Gate::new();

impl Program for Checked {
    type Policy = Policy;

    #[inline(always)]
    fn central() -> &'static Central {
        &CENTRAL
    }

    #[inline(always)]
    fn stages() -> &'static Stages<Policy> {
        &STAGES
    }

    fn fallback() -> &'static Shared<Policy> {
        &FALLBACK
    }

    fn exit_key() -> &'static AtomicUsize {
        &EXIT_KEY
    }

    #[inline(always)]
    fn slot() -> *const CacheState {
        slot::read()
    }

    #[inline(always)]
    fn set_slot(state: *const CacheState) {
        slot::write(state);
    }

    unsafe fn close(cache: Cache) {
        if let Some(_outsider) = GATE.wait_as_outsider() {
            // SAFETY: the caller's promise is passed on.
            unsafe { cache.park() };
        }
    }
}
