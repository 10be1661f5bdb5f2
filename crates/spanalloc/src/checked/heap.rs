//! The heap of [`Checked`](super::Checked): its statics, and what it has in common with others that check.

use spanalloc_cache::{Checked as Policy, Policy as AnyPolicy, ThreadCache, Words};
use spanalloc_os::Mmap;
use spanalloc_sync::Lock;
use spanalloc_sync::atomic::AtomicUsize;

use super::Checked;
use super::gate::{FAST, Gate};
use crate::program::{self, CacheOf, Central, Program, Shared, Stages, State};
use crate::slot::of_checked as slot;

pub(crate) type CacheState = State<Policy>;

/// An allocator that knows of every address whether an object of its own starts there, and can be used in the
/// child of a fork and in a signal handler: what the functions of this module work for.
pub(crate) trait Checks: Program<Policy: AnyPolicy<Bin = Words>> {
    /// What keeps threads out of the heap while the process forks.
    fn gate() -> &'static Gate;
}

static CENTRAL: Central = program::central(Mmap::new());
/// The first of them is where every slot begins. All of them look entered, so that the fast paths
/// leave them alone.
pub(crate) static STAGES: Stages<Policy> = Stages::new(FAST);
static FALLBACK: Shared<Policy> = Lock::new(ThreadCache::with_policy(&CENTRAL));
static EXIT_KEY: AtomicUsize = AtomicUsize::new(0);

static GATE: Gate = Gate::new();

impl Checks for Checked {
    #[inline(always)]
    fn gate() -> &'static Gate {
        &GATE
    }
}

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

    unsafe fn close(cache: CacheOf<Self>) {
        // SAFETY: the caller's promise is passed on.
        unsafe { super::close::<Self>(cache) };
    }
}
