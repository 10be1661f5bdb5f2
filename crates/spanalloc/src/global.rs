use core::alloc::{GlobalAlloc, Layout};

use crate::fallback;
use crate::limits::tell;
use crate::program::{CacheOf, Program};
use crate::thread;

/// spanalloc as the allocator of a Rust program.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: spanalloc::Spanalloc = spanalloc::Spanalloc;
///
/// let words: Vec<String> = "one line is all it takes".split(' ').map(String::from).collect();
/// assert_eq!(words.len(), 6);
/// ```
///
/// All values of this type are the same allocator. It works before `main`, in destructors of
/// thread locals, and in threads that only free. A Layout of size 0 is served like one of size 1;
/// any alignment is served if there is address space for it. When memory is exhausted the methods
/// return null, and work again once something is freed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spanalloc;

// SAFETY: every cache over the one heap hands out memory that nobody else has, of at least the
// layout's size and alignment (contract of `Central`); nothing unwinds.
unsafe impl GlobalAlloc for Spanalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match thread::slot::<Self>().try_alloc(layout) {
            Some(object) => object,
            None => alloc_any(layout),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            if !thread::slot::<Self>().try_free(object, layout) {
                free_any(object, layout);
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match thread::slot::<Self>().try_alloc_known(layout) {
            Some((object, zeroed)) => {
                if !zeroed {
                    let central = Self::central();
                    // SAFETY: the object has at least this size.
                    unsafe { CacheOf::<Self>::fill_with_zeros(central, object, layout.size()) };
                }
                object
            }
            None => alloc_zeroed_slow(layout),
        }
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        let moved = unsafe {
            match thread::enter::<Self>() {
                Some(inside) => inside.cache().realloc(object, layout, new_size),
                None => fallback::realloc_slow(object, layout, new_size),
            }
        };
        if moved != object {
            tell::<Self>();
        }
        moved
    }
}

/// No call in it returns, so that it saves no registers.
#[inline(never)]
fn alloc_any(layout: Layout) -> *mut u8 {
    match CacheOf::<Spanalloc>::small_class(layout) {
        Some(class) => match thread::slot::<Spanalloc>().try_alloc_of(class) {
            Some(object) => object,
            None => alloc_more(layout),
        },
        None => alloc_more(layout),
    }
}

#[inline(never)]
fn alloc_more(layout: Layout) -> *mut u8 {
    match thread::slot::<Spanalloc>().try_alloc_any(layout) {
        Some(object) => object,
        None => alloc_slow(layout),
    }
}

/// No call in it returns, either.
///
/// # Safety
/// As for `GlobalAlloc::dealloc`.
#[inline(never)]
unsafe fn free_any(object: *mut u8, layout: Layout) {
    // SAFETY: the caller's promise is passed on; that is the object's class.
    unsafe {
        match CacheOf::<Spanalloc>::small_class(layout) {
            Some(class) if thread::slot::<Spanalloc>().try_free_of(class, object) => {}
            Some(_) => free_slow(object, layout),
            None => free_more(object, layout),
        }
    }
}

/// # Safety
/// As for `GlobalAlloc::dealloc`; the layout is not small.
#[inline(never)]
unsafe fn free_more(object: *mut u8, layout: Layout) {
    // SAFETY: the caller's promise is passed on. This allocator packs nothing, so the object is large.
    unsafe {
        if !thread::slot::<Spanalloc>().try_free_recent(object) {
            free_slow(object, layout);
        }
    }
}

#[cold]
#[inline(never)]
fn alloc_slow(layout: Layout) -> *mut u8 {
    let object = match thread::enter::<Spanalloc>() {
        Some(inside) => inside.cache().alloc_slow(layout),
        None => fallback::alloc_slow(layout),
    };
    tell::<Spanalloc>();
    object
}

#[cold]
#[inline(never)]
fn alloc_zeroed_slow(layout: Layout) -> *mut u8 {
    let object = match thread::enter::<Spanalloc>() {
        Some(inside) => inside.cache().alloc_zeroed(layout),
        None => fallback::alloc_zeroed_slow(layout),
    };
    tell::<Spanalloc>();
    object
}

/// # Safety
/// As for `GlobalAlloc::dealloc`.
#[cold]
#[inline(never)]
unsafe fn free_slow(object: *mut u8, layout: Layout) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match thread::enter::<Spanalloc>() {
            Some(inside) => inside.cache().free_slow(object, layout),
            None => CacheOf::<Spanalloc>::free_uncached(Spanalloc::central(), object, layout),
        }
    }
}
