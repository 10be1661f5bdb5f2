//! Changing the size of an object, in place where possible.

use core::alloc::Layout;
use core::ptr;

use spanalloc_central::{Central, SpanRef};
use spanalloc_pages::PAGE_BYTES;

use crate::cache::{Cache, Path};
use crate::large::{most_pages, pages_of, usable_pages};
use crate::policy::Policy;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Whether the pages of a large object may be moved: what is left of it where it was is not wiped.
    pub(crate) const MOVES: bool = !P::WIPES;

    /// Gives an object a new size and keeps its contents, in place if the size class stays the same
    /// or the pages behind it allow. Null leaves the object as it was.
    ///
    /// # Safety
    /// As for [`free`](Self::free). A `new_size` that makes no Layout is refused with null.
    #[inline]
    #[must_use]
    pub unsafe fn realloc(self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return ptr::null_mut();
        };
        let (from, to) = (Self::path(layout), Self::path(new));
        let stays = match from {
            Path::Tiny => to == from && new_size <= layout.size(),
            Path::Small(_) => to == from,
            // SAFETY: the object is large by its Layout, and the caller's.
            Path::Large => to == from && unsafe { self.resize_large(object, new_size) },
        };
        if stays {
            return object;
        }
        // SAFETY: the caller's promise is passed on; an object is large that is so by its Layout.
        unsafe {
            if from == Path::Large && to == Path::Large {
                let span = Self::large_span(self.central, object.addr());
                if Self::MOVES && pages_of(new_size) > usable_pages(span) {
                    return self.move_large(span, new);
                }
            }
            self.move_slow(object, layout, new)
        }
    }

    /// # Safety
    /// As for `free`; both layouts are of the large path.
    unsafe fn resize_large(self, object: *mut u8, new_size: usize) -> bool {
        let span = Self::large_span(self.central, object.addr());
        let pages = pages_of(new_size);
        // SAFETY: the span is large, and its object the caller's; what is cut off is unused.
        (pages..=most_pages(pages)).contains(&usable_pages(span))
            || unsafe { self.resize_to(span, new_size) }
    }

    /// Gives a large object the pages of `bytes`, in place. False if that cannot be, or it would have
    /// to win or lose a guard.
    ///
    /// # Safety
    /// The span is large and the caller owns the object; what is cut off is unused.
    pub(crate) unsafe fn resize_to(self, span: SpanRef, bytes: usize) -> bool {
        let pages = pages_of(bytes);
        if P::WIPES && pages < usable_pages(span) {
            // What is cut off would go back as it is.
            return false;
        }
        let (was, is) = (span.is_guarded(), Self::is_guarded(bytes));
        // An object that could not have a guard does without one.
        let stays = was == is || is && Self::is_guarded(usable_pages(span) * PAGE_BYTES);
        let pages = pages + usize::from(was);
        // SAFETY: the caller's promise is passed on.
        let resized = stays
            && unsafe { self.central.resize_large(span, pages) }.is_some()
            && span.is_guarded() == was;
        self.heed();
        resized
    }

    /// # Safety
    /// As for `free`.
    #[cold]
    #[inline(never)]
    unsafe fn move_slow(self, object: *mut u8, layout: Layout, new: Layout) -> *mut u8 {
        let moved = self.alloc(new);
        if !moved.is_null() {
            // SAFETY: both objects hold the smaller of the two sizes and do not overlap; the old
            // one is the caller's to free.
            unsafe {
                ptr::copy_nonoverlapping(object, moved, layout.size().min(new.size()));
                self.free(object, layout);
            }
        }
        moved
    }
}
