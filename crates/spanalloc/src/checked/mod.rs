//! The checked allocator without Layouts: what the C library is made of.
//!
//! Every function works at any time: before `main`, in destructors, in threads that end, in the child
//! of a fork, in a signal handler that interrupted another one of them. None changes `errno`. What
//! describes the heap says nothing in such a signal handler.

mod background;
mod early;
mod fork;
mod gate;
mod global;
pub(crate) mod heap;
mod limits;
mod map;
mod resize;
mod shelter;
pub(crate) mod system;

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::compiler_fence;

use spanalloc_cache::{Freed, Snapshot};
use spanalloc_central::{Central as _, SpanRef};
use spanalloc_os::Report;
use spanalloc_pages::HugePages;
use spanalloc_sync::atomic::{AtomicBool, Ordering};

pub use self::background::{release, start_background};
use self::gate::{FAST, Inside, OUTSIDE, Outsider};
use self::heap::{Cache, GATE};
pub use self::limits::{Listener, set_hard_limit, set_listener, set_soft_limit};
pub use self::map::{Use, for_each_run};
pub use self::resize::{realloc, usable_size};
use crate::program::Program;
use crate::thread::{self, Stage};

/// spanalloc as the allocator of a Rust program that is not trusted.
///
/// Freeing something twice, something that is no object, or something with the Layout of another
/// size class ends the process at that call with one line. The child of a fork can allocate, whatever
/// the other threads were doing, and so can a signal handler.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: spanalloc::Checked = spanalloc::Checked;
///
/// let words: Vec<String> = "one line is all it takes".split(' ').map(String::from).collect();
/// assert_eq!(words.len(), 6);
/// ```
///
/// All values of this type are the same allocator, and another one than
/// [`Spanalloc`](crate::Spanalloc).
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked;

/// Whether the program is trusted: misuse is ignored instead of ending the process.
static TRUSTED: AtomicBool = AtomicBool::new(false);

/// Trusts the program from now on: what cannot be freed is left alone instead of ending the process.
/// What comes to light only later, when what other threads freed is taken in, still ends it.
pub fn trust_program() {
    TRUSTED.store(true, Ordering::Relaxed);
}

/// As [`set_thread_cache`](crate::set_thread_cache), for [`Checked`] alone.
pub fn set_thread_cache(bytes: usize) {
    Checked::central().set_thread_cache(bytes);
}

/// As [`set_huge_pages`](crate::set_huge_pages), for [`Checked`] alone.
pub fn set_huge_pages(huge: HugePages) {
    Checked::central().heap().set_huge_pages(huge);
}

/// The cache of the calling thread on a fast path, from which a signal handler is kept out.
struct Fast(Cache);

impl Fast {
    /// None if the thread has no cache, or is inside already.
    #[inline(always)]
    fn enter() -> Option<Self> {
        if is_early() {
            return None;
        }
        let cache = thread::slot::<Checked>();
        let inside = cache.state().inside();
        if inside.load(Ordering::Relaxed) != OUTSIDE {
            return None;
        }
        inside.store(FAST, Ordering::Relaxed);
        // A signal handler on this thread sees the store before anything that follows.
        compiler_fence(Ordering::SeqCst);
        Some(Self(cache))
    }

    #[inline(always)]
    fn leave(self) {
        compiler_fence(Ordering::SeqCst);
        self.0.state().inside().store(OUTSIDE, Ordering::Relaxed);
    }
}

/// Where a thread on a slow path may go.
enum Entry {
    /// Into the heap, with the thread's own cache.
    Own(Cache, #[allow(dead_code, reason = "held until it is dropped")] Inside<'static>),
    /// Into the heap, without a cache.
    Outsider(#[allow(dead_code, reason = "held until it is dropped")] Outsider<'static>),
    /// Not into the heap.
    Shelter,
}

/// Whether the library is not relocated yet: then nothing may be called that is not part of it, not even
/// what copies memory.
#[inline(always)]
fn is_early() -> bool {
    Checked::slot().is_null()
}

impl Entry {
    /// Where the calling thread may go, now or in a moment.
    fn find() -> Self {
        let entry = Self::find_now();
        if matches!(entry, Self::Shelter) && !is_inside() && GATE.wait_a_moment() {
            return Self::find_now();
        }
        entry
    }

    fn find_now() -> Self {
        let stage = match thread::stage::<Checked>() {
            Stage::Unset => Self::start(),
            other => other,
        };
        match stage {
            Stage::Live(cache) => Self::own(cache),
            Stage::Ended => GATE.enter_as_outsider().map_or(Self::Shelter, Self::Outsider),
            Stage::Unset | Stage::Starting => Self::Shelter,
        }
    }

    fn own(cache: Cache) -> Self {
        let inside = cache.state().inside();
        if inside.load(Ordering::Relaxed) != OUTSIDE {
            return Self::Shelter;
        }
        match GATE.enter(inside) {
            Some(guard) => Self::Own(cache, guard),
            None => Self::Shelter,
        }
    }

    /// Makes the cache of a thread that has none yet, if the gate is open and there is memory.
    fn start() -> Stage<Checked> {
        // A signal handler that came first may have made it.
        let _signals = system::Signals::block();
        match thread::stage::<Checked>() {
            Stage::Unset => Checked::set_slot(&Checked::stages().starting),
            other => return other,
        }
        fork::watch();
        let cache = match GATE.enter_as_outsider() {
            Some(_outsider) => Cache::open(Checked::central()),
            None => None,
        };
        if let Some(cache) = cache {
            // The last thread with this state may have ended in a signal handler.
            cache.state().inside().store(OUTSIDE, Ordering::Relaxed);
        }
        thread::start::<Checked>(cache);
        thread::stage::<Checked>()
    }
}

/// Memory of at least `size` bytes whose address is a multiple of `align`, a power of two. Null if there
/// is none, or no memory is that large. A size of 0 is served as 1.
#[inline(always)]
#[must_use]
pub fn alloc(size: usize, align: usize) -> *mut u8 {
    match at_hand(size, align) {
        Some(object) => object,
        None => alloc_any(size, align),
    }
}

/// As [`alloc`], for most objects if the thread has one at hand. `None` says nothing: whoever gets it
/// calls [`alloc`].
#[inline(always)]
#[must_use]
pub fn at_hand(size: usize, align: usize) -> Option<*mut u8> {
    let class = Cache::common_class(size, align)?;
    let fast = Fast::enter()?;
    let object = fast.0.try_alloc_of(class);
    fast.leave();
    object
}

#[inline(never)]
fn alloc_known_any(size: usize, align: usize) -> (*mut u8, bool) {
    match Layout::from_size_align(size, align) {
        Ok(layout) => alloc_slow(layout),
        Err(_) => (ptr::null_mut(), true),
    }
}

#[inline(never)]
fn alloc_any(size: usize, align: usize) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(size, align) else { return ptr::null_mut() };
    let at_hand = Fast::enter().and_then(|fast| {
        let object = fast.0.try_alloc_any(layout);
        fast.leave();
        object
    });
    at_hand.unwrap_or_else(|| alloc_slow(layout).0)
}

/// As [`alloc`], and every byte is zero.
#[inline]
#[must_use]
pub fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    let at_hand = Cache::common_class(size, align).and_then(|class| {
        let fast = Fast::enter()?;
        let object = fast.0.try_alloc_known_of(class);
        fast.leave();
        object
    });
    let (object, zeroed) = at_hand.unwrap_or_else(|| alloc_known_any(size, align));
    if !zeroed && !object.is_null() {
        // SAFETY: the object has at least this size and is this caller's.
        unsafe { Cache::fill_with_zeros(Checked::central(), object, size) };
    }
    object
}

/// Memory for `layout` or null, and whether it is known to be zero.
#[cold]
#[inline(never)]
fn alloc_slow(layout: Layout) -> (*mut u8, bool) {
    if is_early() {
        return (early::alloc(layout.size(), layout.align()), true);
    }
    let (object, notice) = match Entry::find() {
        Entry::Own(cache, _inside) => {
            Checked::central().catch_up();
            (cache.alloc_known(layout), cache.take_notice())
        }
        Entry::Outsider(_outsider) => ((alloc_shared(layout), false), None),
        Entry::Shelter => {
            let object = shelter::alloc(layout).map(NonNull::as_ptr);
            ((object.unwrap_or_else(|| alloc_at_last(layout)), false), None)
        }
    };
    // Outside of the gate: who listens may allocate and free.
    if let Some(notice) = notice {
        notice.deliver();
    }
    object
}

/// Memory from the cache of the threads that have none. If there is something to be told, it waits for the
/// next thread that has one.
fn alloc_shared(layout: Layout) -> *mut u8 {
    Checked::fallback().lock().cache().map_or(ptr::null_mut(), |cache| cache.alloc(layout))
}

/// Memory from the heap for a thread for which the shelter had none, as soon as it may enter.
fn alloc_at_last(layout: Layout) -> *mut u8 {
    let entered = if is_inside() { None } else { GATE.wait_as_outsider() };
    entered.map_or(ptr::null_mut(), |_outsider| alloc_shared(layout))
}

/// Whether this is a signal handler that interrupted the calling thread in the heap.
fn is_inside() -> bool {
    match thread::stage::<Checked>() {
        Stage::Live(cache) => cache.state().inside().load(Ordering::Relaxed) != OUTSIDE,
        Stage::Starting => true,
        Stage::Unset | Stage::Ended => false,
    }
}

/// Frees an object. Ends the process if no live object starts at this address.
///
/// # Safety
/// If it is an object of this allocator, nobody uses it any more.
#[inline(always)]
pub unsafe fn free(object: *mut u8) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if !free_fast(|cache| cache.try_free_unsized(object)) {
            free_slow(object);
        }
    }
}

/// Whether the thread's own cache could free an object.
#[inline(always)]
fn free_fast(try_free: impl FnOnce(Cache) -> Freed) -> bool {
    let Some(fast) = Fast::enter() else { return false };
    let freed = try_free(fast.0);
    fast.leave();
    match freed {
        Freed::Done => true,
        Freed::Not => false,
        Freed::Rehome(span) => {
            rehome_slow(span);
            true
        }
    }
}

/// Finds the place of a span whose number of used slots fell. If that cannot be now, the cache will.
#[cold]
#[inline(never)]
fn rehome_slow(span: SpanRef) {
    if let Entry::Own(cache, _inside) = Entry::find() {
        Checked::central().catch_up();
        cache.rehome(span);
    } else {
        thread::slot::<Checked>().rehome_later();
    }
}

/// # Safety
/// As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_slow(object: *mut u8) {
    if is_early() {
        return;
    }
    // SAFETY: the caller's promise is passed on.
    let freed = unsafe {
        if free_fast(|cache| cache.try_free_elsewhere(object)) {
            return;
        }
        match Entry::find() {
            Entry::Own(cache, _inside) => {
                Checked::central().catch_up();
                cache.free_unsized_slow(object)
            }
            Entry::Outsider(_outsider) => {
                Cache::free_unsized_uncached(Checked::central(), object, false)
            }
            Entry::Shelter => Cache::free_unsized_uncached(Checked::central(), object, true),
        }
    };
    if let Err(report) = freed {
        // SAFETY: the caller's promise is passed on.
        unsafe { free_elsewhere(object, report) };
    }
}

/// Frees what the heap does not know: an object of the shelter or of the early room, or nothing.
///
/// # Safety
/// As for [`free`].
unsafe fn free_elsewhere(object: *mut u8, report: Report) {
    if early::bytes(object).is_some() {
        return;
    }
    if shelter::owns(object.addr()) {
        // SAFETY: the caller's promise is passed on.
        if let Err(report) = unsafe { shelter::free(object) } {
            misuse(report);
        }
        return;
    }
    misuse(report);
}

/// Ends the process, or returns if the program is trusted.
#[cold]
#[inline(never)]
fn misuse(report: Report) {
    if !TRUSTED.load(Ordering::Relaxed) {
        Cache::die(Checked::central(), report);
    }
}

/// As [`free`], and ends the process unless this size and alignment would be served like the object.
///
/// # Safety
/// As for [`free`].
#[inline(always)]
pub unsafe fn free_sized(object: *mut u8, size: usize, align: usize) {
    let class = Cache::common_class(size, align);
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if !class.is_some_and(|class| free_fast(|cache| cache.try_free_as(object, class))) {
            free_sized_any(object, size, align);
        }
    }
}

/// # Safety
/// As for [`free`].
#[inline(never)]
unsafe fn free_sized_any(object: *mut u8, size: usize, align: usize) {
    let class = Layout::from_size_align(size, align).ok().and_then(Cache::class_of);
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if !class.is_some_and(|class| free_fast(|cache| cache.try_free_as(object, class))) {
            check_layout(object, size, align);
            free_slow(object);
        }
    }
}

#[cold]
#[inline(never)]
fn check_layout(object: *mut u8, size: usize, align: usize) {
    if is_early() {
        return;
    }
    let checked = match Layout::from_size_align(size, align) {
        Ok(layout) => thread::slot::<Checked>().check_layout(object.addr(), layout),
        Err(_) => thread::slot::<Checked>().find_mismatch(object.addr()),
    };
    if let Err(report) = checked {
        if early::bytes(object).is_none() && !shelter::owns(object.addr()) {
            misuse(report);
        }
    }
}

/// What the heap of [`Checked`] holds now. Allocates nothing.
///
/// Exact while no other thread is inside the allocator; otherwise each number is one that was true
/// at some moment during the call. Of nothing in the child of a fork that came while a thread was inside
/// the allocator and could not get out, and in a signal handler that interrupted the allocator.
#[must_use]
pub fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::EMPTY;
    snapshot_into(&mut snapshot);
    snapshot
}

/// As [`snapshot`], written over what was in the place: for threads with a small stack.
pub fn snapshot_into(snapshot: &mut Snapshot) {
    // Counting takes the heap's lock.
    let entered = if is_inside() { None } else { GATE.wait_as_outsider() };
    match entered {
        Some(_outsider) => thread::slot::<Checked>().snapshot_into(snapshot),
        None => *snapshot = Snapshot::EMPTY,
    }
}
