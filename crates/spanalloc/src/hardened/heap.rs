//! The heap of [`Hardened`](super::Hardened): its statics.

use spanalloc_cache::{Hardened as Policy, ThreadCache};
use spanalloc_os::Mmap;
use spanalloc_sync::Lock;
use spanalloc_sync::atomic::AtomicUsize;

use super::Hardened;
use crate::checked;
use crate::checked::any::Checks;
use crate::checked::gate::{FAST, Gate};
use crate::program::{self, CacheOf, Central, Program, Shared, Stages, State};
use crate::slot::of_hardened as slot;

static CENTRAL: Central = program::central(Mmap::scattered());
/// The first of them is where every slot begins. All of them look entered, so that the fast paths
/// leave them alone.
pub(crate) static STAGES: Stages<Policy> = Stages::new(FAST);
static FALLBACK: Shared<Policy> = Lock::new(ThreadCache::with_policy(&CENTRAL));
static EXIT_KEY: AtomicUsize = AtomicUsize::new(0);

static GATE: Gate = Gate::new();

impl Checks for Hardened {
    #[inline(always)]
    fn gate() -> &'static Gate {
        &GATE
    }
}

impl Program for Hardened {
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
    fn slot() -> *const State<Policy> {
        slot::read()
    }

    #[inline(always)]
    fn set_slot(state: *const State<Policy>) {
        slot::write(state);
    }

    unsafe fn close(cache: CacheOf<Self>) {
        // SAFETY: the caller's promise is passed on.
        unsafe { checked::close::<Self>(cache) };
    }
}
