//! An object of the global allocator, and how large objects are.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::RangeInclusive;
use std::ptr::NonNull;

use crate::random::Random;

/// The alignment of every object.
const ALIGN: usize = 8;
/// Objects of this size and more get their last byte written too.
const TOUCH_END: usize = 64;

/// Allocates an object whose size is not 0, and writes its first and its last byte. The compiler
/// keeps an allocation that is written to like this, even if it sees it freed.
#[inline]
pub(super) fn allocate(layout: Layout) -> NonNull<u8> {
    debug_assert!(layout.size() != 0);
    // SAFETY: the size is not 0.
    let Some(address) = NonNull::new(unsafe { alloc(layout) }) else {
        handle_alloc_error(layout);
    };
    // SAFETY: both bytes lie in the object.
    unsafe {
        address.write_volatile(1);
        if layout.size() >= TOUCH_END {
            address.add(layout.size() - 1).write_volatile(1);
        }
    }
    address
}

/// Owns so many bytes, which were written to as a user would.
pub(super) struct Object {
    address: NonNull<u8>,
    size: usize,
}

// SAFETY: an object is plain memory that it alone owns.
unsafe impl Send for Object {}

impl Object {
    /// An object of a size that is not 0.
    #[inline]
    pub(super) fn new(size: usize) -> Self {
        Self { address: allocate(layout(size)), size }
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Object {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nothing refers to it any more.
        unsafe { dealloc(self.address.as_ptr(), layout(self.size)) }
    }
}

#[inline]
fn layout(size: usize) -> Layout {
    debug_assert!(size < isize::MAX as usize - ALIGN);
    // SAFETY: the alignment is a power of two, and no workload asks for half the address space.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

/// How large the objects of a workload are.
#[derive(Clone, Debug)]
pub(super) enum Sizes {
    /// All alike.
    One(usize),
    /// Each size as often as any other.
    Even(RangeInclusive<u32>),
    /// So many doublings of the least size, each as often as any other: most objects are small.
    Doublings {
        /// The least size.
        least: usize,
        /// How often it is doubled at most.
        times: u32,
    },
}

impl Sizes {
    /// The next size.
    #[inline]
    pub(super) fn draw(&self, random: &mut Random) -> usize {
        match *self {
            Self::One(size) => size,
            Self::Even(ref sizes) => {
                (sizes.start() + random.below(sizes.end() - sizes.start() + 1)) as usize
            }
            Self::Doublings { least, times } => {
                let least = least << random.below(times);
                least + random.below(least as u32) as usize
            }
        }
    }
}
