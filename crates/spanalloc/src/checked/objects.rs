//! Objects: how they are allocated and freed.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use spanalloc_cache::Freed;
use spanalloc_central::{Central as _, SpanRef};
use spanalloc_os::Report;
use spanalloc_sync::atomic::Ordering;

use super::entry::{Entry, Fast, is_early, is_inside};
use super::heap::Checks;
use super::{TRUSTED, early, shelter};
use crate::program::CacheOf;
use crate::thread;

/// Memory of at least `size` bytes whose address is a multiple of `align`, a power of two. Null if there
/// is none, or no memory is that large. A size of 0 is served as 1.
#[inline(always)]
#[must_use]
pub(crate) fn alloc<G: Checks>(size: usize, align: usize) -> *mut u8 {
    match at_hand::<G>(size, align) {
        Some(object) => object,
        None => alloc_any::<G>(size, align),
    }
}

/// As [`alloc`], for most objects if the thread has one at hand. `None` says nothing: whoever gets it
/// calls [`alloc`].
#[inline(always)]
#[must_use]
pub(crate) fn at_hand<G: Checks>(size: usize, align: usize) -> Option<*mut u8> {
    let class = CacheOf::<G>::common_class(size, align)?;
    let fast = Fast::<G>::enter()?;
    let object = fast.0.try_alloc_of(class);
    fast.leave();
    object
}

#[inline(never)]
fn alloc_known_any<G: Checks>(size: usize, align: usize) -> (*mut u8, bool) {
    match Layout::from_size_align(size, align) {
        Ok(layout) => alloc_slow::<G>(layout),
        Err(_) => (ptr::null_mut(), true),
    }
}

#[inline(never)]
fn alloc_any<G: Checks>(size: usize, align: usize) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(size, align) else { return ptr::null_mut() };
    let at_hand = Fast::<G>::enter().and_then(|fast| {
        let object = fast.0.try_alloc_any(layout);
        fast.leave();
        object
    });
    at_hand.unwrap_or_else(|| {
        let (object, fresh) = alloc_slow::<G>(layout);
        if fresh {
            CacheOf::<G>::expect_filled(G::central(), object, size);
        }
        object
    })
}

/// As [`alloc`], and every byte is zero.
#[inline]
#[must_use]
pub(crate) fn alloc_zeroed<G: Checks>(size: usize, align: usize) -> *mut u8 {
    let at_hand = CacheOf::<G>::common_class(size, align).and_then(|class| {
        let fast = Fast::<G>::enter()?;
        let object = fast.0.try_alloc_known_of(class);
        fast.leave();
        object
    });
    let (object, zeroed) = at_hand.unwrap_or_else(|| alloc_known_any::<G>(size, align));
    if !zeroed && !object.is_null() {
        // SAFETY: the object has at least this size and is this caller's.
        unsafe { CacheOf::<G>::fill_with_zeros(G::central(), object, size) };
    }
    object
}

/// Memory for `layout` or null, and whether it is known to be zero.
#[cold]
#[inline(never)]
fn alloc_slow<G: Checks>(layout: Layout) -> (*mut u8, bool) {
    if is_early::<G>() {
        return (early::alloc(layout.size(), layout.align()), true);
    }
    let (object, notice) = match Entry::<G>::find() {
        Entry::Own(cache, _inside) => {
            G::central().catch_up();
            (cache.alloc_known(layout), cache.take_notice())
        }
        Entry::Outsider(_outsider) => ((alloc_shared::<G>(layout), false), None),
        Entry::Shelter => {
            let object = shelter::alloc(layout).map(NonNull::as_ptr);
            ((object.unwrap_or_else(|| alloc_at_last::<G>(layout)), false), None)
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
fn alloc_shared<G: Checks>(layout: Layout) -> *mut u8 {
    G::fallback().lock().cache().map_or(ptr::null_mut(), |cache| cache.alloc(layout))
}

/// Memory from the heap for a thread for which the shelter had none, as soon as it may enter.
fn alloc_at_last<G: Checks>(layout: Layout) -> *mut u8 {
    let entered = if is_inside::<G>() { None } else { G::gate().wait_as_outsider() };
    entered.map_or(ptr::null_mut(), |_outsider| alloc_shared::<G>(layout))
}

/// Frees an object. Ends the process if no live object starts at this address.
///
/// # Safety
/// If it is an object of this allocator, nobody uses it any more.
#[inline(always)]
pub(crate) unsafe fn free<G: Checks>(object: *mut u8) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if !free_fast::<G>(|cache| cache.try_free_unsized(object)) {
            free_any::<G>(object);
        }
    }
}

/// Frees what is not of the calling thread's spans, or what others may have freed into as well.
///
/// # Safety
/// As for [`free`].
#[inline(never)]
unsafe fn free_any<G: Checks>(object: *mut u8) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if !free_fast::<G>(|cache| cache.try_free_anywhere(object, None)) {
            free_slow::<G>(object);
        }
    }
}

/// Whether the thread's own cache could free an object.
#[inline(always)]
fn free_fast<G: Checks>(try_free: impl FnOnce(CacheOf<G>) -> Freed) -> bool {
    let Some(fast) = Fast::<G>::enter() else { return false };
    let freed = try_free(fast.0);
    fast.leave();
    match freed {
        Freed::Done => true,
        Freed::Not => false,
        Freed::Rehome(span) => {
            rehome_slow::<G>(span);
            true
        }
    }
}

/// Finds the place of a span whose number of used slots fell. If that cannot be now, the cache will.
#[cold]
#[inline(never)]
fn rehome_slow<G: Checks>(span: SpanRef) {
    if let Entry::Own(cache, _inside) = Entry::<G>::find() {
        G::central().catch_up();
        cache.rehome(span);
    } else {
        thread::slot::<G>().rehome_later();
    }
}

/// # Safety
/// As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_slow<G: Checks>(object: *mut u8) {
    if is_early::<G>() {
        return;
    }
    // SAFETY: the caller's promise is passed on.
    let freed = unsafe {
        match Entry::<G>::find() {
            Entry::Own(cache, _inside) => {
                G::central().catch_up();
                cache.free_unsized_slow(object)
            }
            Entry::Outsider(_outsider) => {
                CacheOf::<G>::free_unsized_uncached(G::central(), object, false)
            }
            Entry::Shelter => CacheOf::<G>::free_unsized_uncached(G::central(), object, true),
        }
    };
    if let Err(report) = freed {
        // SAFETY: the caller's promise is passed on.
        unsafe { free_elsewhere::<G>(object, report) };
    }
}

/// Frees what the heap does not know: an object of the shelter or of the early room, or nothing.
///
/// # Safety
/// As for [`free`].
unsafe fn free_elsewhere<G: Checks>(object: *mut u8, report: Report) {
    if early::bytes(object).is_some() {
        return;
    }
    if shelter::owns(object.addr()) {
        // SAFETY: the caller's promise is passed on.
        if let Err(report) = unsafe { shelter::free(object) } {
            misuse::<G>(report);
        }
        return;
    }
    misuse::<G>(report);
}

/// Ends the process, or returns if the program is trusted.
#[cold]
#[inline(never)]
pub(super) fn misuse<G: Checks>(report: Report) {
    if !TRUSTED.load(Ordering::Relaxed) {
        CacheOf::<G>::die(G::central(), report);
    }
}

/// As [`free`], and ends the process unless this size and alignment would be served like the object.
///
/// # Safety
/// As for [`free`].
#[inline(always)]
pub(crate) unsafe fn free_sized<G: Checks>(object: *mut u8, size: usize, align: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match CacheOf::<G>::common_class(size, align) {
            Some(class) => free_as::<G>(object, class, size, align),
            None => free_sized_any::<G>(object, size, align),
        }
    }
}

/// # Safety
/// As for [`free`].
#[inline(never)]
unsafe fn free_sized_any<G: Checks>(object: *mut u8, size: usize, align: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match Layout::from_size_align(size, align).ok().and_then(CacheOf::<G>::class_of) {
            Some(class) => free_as::<G>(object, class, size, align),
            None => free_checked_slow::<G>(object, size, align),
        }
    }
}

/// Frees an object of this class, to which that size and alignment belong.
///
/// # Safety
/// As for [`free`].
#[inline(always)]
unsafe fn free_as<G: Checks>(object: *mut u8, class: u8, size: usize, align: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if !free_fast::<G>(|cache| cache.try_free_as(object, class)) {
            free_as_any::<G>(object, class, size, align);
        }
    }
}

/// # Safety
/// As for [`free`].
#[inline(never)]
unsafe fn free_as_any<G: Checks>(object: *mut u8, class: u8, size: usize, align: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if !free_fast::<G>(|cache| cache.try_free_anywhere(object, Some(class))) {
            free_checked_slow::<G>(object, size, align);
        }
    }
}

/// # Safety
/// As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_checked_slow<G: Checks>(object: *mut u8, size: usize, align: usize) {
    check_layout::<G>(object, size, align);
    // SAFETY: the caller's promise is passed on.
    unsafe { free_slow::<G>(object) };
}

#[cold]
#[inline(never)]
pub(crate) fn check_layout<G: Checks>(object: *mut u8, size: usize, align: usize) {
    if is_early::<G>() {
        return;
    }
    let checked = match Layout::from_size_align(size, align) {
        Ok(layout) => thread::slot::<G>().check_layout(object.addr(), layout),
        Err(_) => thread::slot::<G>().find_mismatch(object.addr()),
    };
    if let Err(report) = checked {
        if early::bytes(object).is_none() && !shelter::owns(object.addr()) {
            misuse::<G>(report);
        }
    }
}
