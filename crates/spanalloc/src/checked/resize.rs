//! Objects whose size is asked for or changed.

use core::alloc::Layout;
use core::ptr;

use spanalloc_cache::Size;
use spanalloc_central::Central as _;
use spanalloc_pages::Notice;

use super::entry::{Entry, is_early};
use super::heap::Checks;
use super::objects::{alloc, free, misuse};
use super::{early, shelter};
use crate::thread;

/// Gives an object a new size and alignment and keeps its contents. Null leaves it as it was. Ends the
/// process if no live object starts at this address.
///
/// # Safety
/// If it is an object of this allocator, the caller alone uses it, and only by the new address if
/// that is not null.
#[must_use]
pub(crate) unsafe fn realloc<G: Checks>(object: *mut u8, new_size: usize, align: usize) -> *mut u8 {
    let Ok(new) = Layout::from_size_align(new_size, align) else { return ptr::null_mut() };
    if is_early::<G>() {
        // SAFETY: the caller's promise is passed on.
        return unsafe { early::realloc(object, new) };
    }
    match thread::slot::<G>().size_now(object.addr(), new) {
        Size::Fits => return object,
        Size::Moves(bytes) => {
            let moved = alloc::<G>(new_size, align);
            if !moved.is_null() {
                // SAFETY: both objects hold the smaller size and do not overlap; the old one is the
                // caller's to free.
                unsafe {
                    ptr::copy_nonoverlapping(object, moved, bytes.min(new_size));
                    free::<G>(object);
                }
            }
            return moved;
        }
        Size::Other => {}
    }
    // SAFETY: the caller's promise is passed on.
    unsafe { realloc_slow::<G>(object, new) }
}

/// # Safety
/// As for [`realloc`].
#[cold]
#[inline(never)]
unsafe fn realloc_slow<G: Checks>(object: *mut u8, new: Layout) -> *mut u8 {
    // SAFETY: the caller's promise is passed on.
    if let Some((moved, notice)) = unsafe { realloc_inside::<G>(object, new) } {
        // Outside of the gate: who listens may allocate and free.
        if let Some(notice) = notice {
            notice.deliver();
        }
        return moved;
    }
    // SAFETY: the caller's promise is passed on.
    let bytes = unsafe { usable_size::<G>(object) };
    let moved = if bytes == 0 { ptr::null_mut() } else { alloc::<G>(new.size(), new.align()) };
    if !moved.is_null() {
        // SAFETY: both objects hold the smaller size and do not overlap; the old one is the
        // caller's to free.
        unsafe {
            ptr::copy_nonoverlapping(object, moved, bytes.min(new.size()));
            free::<G>(object);
        }
    }
    moved
}

/// What becomes of the object in the heap, if the thread may enter and the object is of there, and what is to
/// be told then.
///
/// # Safety
/// As for [`realloc`].
unsafe fn realloc_inside<G: Checks>(
    object: *mut u8,
    new: Layout,
) -> Option<(*mut u8, Option<Notice<'static>>)> {
    let Entry::Own(cache, _inside) = Entry::<G>::find() else { return None };
    G::central().catch_up();
    // SAFETY: the caller's promise is passed on.
    let moved = unsafe { cache.realloc_unsized(object, new) }.ok()?;
    Some((moved, cache.take_notice()))
}

/// How many bytes of an object the program may use. Ends the process if no live object starts at this
/// address; 0 if the program is trusted nevertheless.
///
/// # Safety
/// The object is not freed meanwhile.
#[must_use]
pub(crate) unsafe fn usable_size<G: Checks>(object: *mut u8) -> usize {
    if let Some(bytes) = early::bytes(object) {
        return bytes;
    }
    if is_early::<G>() {
        return 0;
    }
    let found = thread::slot::<G>().usable_bytes(object.addr()).or_else(|report| {
        if shelter::owns(object.addr()) { shelter::usable_bytes(object) } else { Err(report) }
    });
    found.unwrap_or_else(|report| {
        misuse::<G>(report);
        0
    })
}
