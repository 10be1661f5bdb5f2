//! The floor of the comparison: an allocator that adds to a pointer, and frees nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// What the allocator takes from the system at once.
const CHUNK_BYTES: usize = 1 << 20;
/// The memory that pair loops go round in, at most.
const RING_BYTES: usize = 64 << 10;
/// The part of it that small objects go round in: it fits the processor's first cache.
const SMALL_RING_BYTES: usize = 4 << 10;
/// The alignment of chunks.
const CHUNK_ALIGN: usize = 64;

/// Hands out one piece of memory behind the other, for each thread by itself.
#[derive(Debug)]
pub struct Bump;

thread_local! {
    /// Where the free part of the thread's chunk begins, and the address where it ends.
    static NEXT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
    static END: Cell<usize> = const { Cell::new(0) };
    /// The thread's ring while it is in one; null before its first allocation there.
    static RING: Cell<Option<*mut u8>> = const { Cell::new(None) };
}

/// Runs a loop none of whose objects outlives the next one: if the global allocator is [`Bump`],
/// it uses the same few pages of memory over and over, as if they had no end.
pub(crate) fn in_ring(pairs: impl FnOnce()) {
    let outside = (NEXT.replace(ptr::null_mut()), END.replace(0));
    RING.set(Some(ptr::null_mut()));
    pairs();
    RING.set(None);
    NEXT.set(outside.0);
    END.set(outside.1);
}

// SAFETY: pieces of a chunk do not overlap, are within it and aligned; each thread has its own
// chunks, and they are never given back. In a ring the caller of `in_ring` answers for the rest.
unsafe impl GlobalAlloc for Bump {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout).unwrap_or_else(|| refill(layout))
    }

    #[inline]
    unsafe fn dealloc(&self, _object: *mut u8, _layout: Layout) {}
}

/// Allocates from the thread's chunk.
#[inline]
fn take(layout: Layout) -> Option<*mut u8> {
    let next = NEXT.get();
    let skip = next.addr().wrapping_neg() & (layout.align() - 1);
    let bytes = skip.checked_add(layout.size())?;
    if bytes > END.get() - next.addr() {
        return None;
    }
    NEXT.set(next.wrapping_add(bytes));
    Some(next.wrapping_add(skip))
}

/// Allocates from a new chunk, or from the ring's beginning.
#[cold]
#[inline(never)]
fn refill(layout: Layout) -> *mut u8 {
    let (chunk, bytes) = match RING.get() {
        None => (new_chunk(CHUNK_BYTES), CHUNK_BYTES),
        Some(ring) => {
            let ring = if ring.is_null() { new_chunk(RING_BYTES) } else { ring };
            RING.set(Some(ring));
            (ring, (4 * layout.size()).clamp(SMALL_RING_BYTES, RING_BYTES))
        }
    };
    if chunk.is_null() {
        return chunk;
    }
    NEXT.set(chunk);
    END.set(chunk.addr() + bytes);
    // SAFETY: the size is not 0, as it does not fit a chunk.
    take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
}

fn new_chunk(bytes: usize) -> *mut u8 {
    match Layout::from_size_align(bytes, CHUNK_ALIGN) {
        // SAFETY: chunks are not empty.
        Ok(layout) => unsafe { System.alloc(layout) },
        Err(_) => ptr::null_mut(),
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};

    use super::{Bump, CHUNK_BYTES, RING_BYTES, in_ring};

    fn allocate(size: usize, align: usize) -> usize {
        let layout = Layout::from_size_align(size, align).expect("a layout");
        // SAFETY: the size is not 0. The bytes written lie in the object.
        unsafe {
            let object = Bump.alloc(layout);
            object.write_bytes(1, size);
            object.addr()
        }
    }

    #[test]
    fn objects_are_aligned_and_do_not_overlap() {
        let mut objects = Vec::new();
        for index in 0..2 * CHUNK_BYTES / 100 {
            let (size, align) = (1 + index % 200, 1 << (index % 9));
            let start = allocate(size, align);
            assert_eq!(start % align, 0);
            objects.push((start, start + size));
        }
        let large = allocate(CHUNK_BYTES + 1, 64);
        objects.push((large, large + CHUNK_BYTES + 1));
        objects.sort_unstable();
        assert!(objects.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }

    #[test]
    fn a_ring_uses_its_memory_again_and_leaves_the_chunk_alone() {
        let before = allocate(8, 8);
        in_ring(|| {
            let first = allocate(64, 8);
            let used = |_| allocate(64, 8).wrapping_sub(first);
            assert!((0..4 * RING_BYTES / 64).map(used).all(|offset| offset < RING_BYTES));
        });
        assert_eq!(allocate(8, 8), before + 8);
    }
}
