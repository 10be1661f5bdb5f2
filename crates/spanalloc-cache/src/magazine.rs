use core::cell::UnsafeCell;
use core::ptr;

use spanalloc_sync::atomic::{AtomicU32, Ordering};

/// The most objects a magazine holds.
pub const MAGAZINE: usize = 32;

/// A stack of free objects of one size class, used by one thread.
///
/// The all-zero magazine is empty. The length is an atomic only because statistics read it.
#[derive(Debug)]
pub(crate) struct Magazine {
    objects: [UnsafeCell<*mut u8>; MAGAZINE],
}

/// The length of a magazine, kept apart from it so that a bin's lengths share a cache line.
#[derive(Debug)]
pub(crate) struct Length(AtomicU32);

impl Length {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed) as usize
    }

    #[inline(always)]
    pub(crate) fn set(&self, length: usize) {
        self.0.store(length as u32, Ordering::Relaxed);
    }
}

impl Magazine {
    pub(crate) const fn new() -> Self {
        Self { objects: [const { UnsafeCell::new(ptr::null_mut()) }; MAGAZINE] }
    }

    /// The objects, for whoever is the magazine's thread.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut *mut u8 {
        UnsafeCell::raw_get(self.objects.as_ptr())
    }

    /// # Safety
    /// The caller is the magazine's thread and `index < MAGAZINE`.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, index: usize) -> *mut u8 {
        debug_assert!(index < MAGAZINE);
        // SAFETY: in bounds and not written by anybody else (contract).
        unsafe { self.as_ptr().add(index).read() }
    }

    /// # Safety
    /// The caller is the magazine's thread and `index < MAGAZINE`.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, index: usize, object: *mut u8) {
        debug_assert!(index < MAGAZINE);
        // SAFETY: in bounds and not used by anybody else (contract).
        unsafe { self.as_ptr().add(index).write(object) }
    }

    /// Makes the first `count` objects of this magazine those of `other`.
    ///
    /// # Safety
    /// The caller is the thread of both, `count <= MAGAZINE` and they are two.
    #[inline]
    pub(crate) unsafe fn copy_from(&self, other: &Self, count: usize) {
        debug_assert!(count <= MAGAZINE);
        // SAFETY: in bounds and not used by anybody else (contract).
        unsafe { ptr::copy_nonoverlapping(other.as_ptr(), self.as_ptr(), count) }
    }
}
