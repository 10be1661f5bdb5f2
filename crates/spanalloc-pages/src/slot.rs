use core::alloc::Layout;
use core::marker::PhantomData;

use spanalloc_os::Geometry;
use spanalloc_sync::atomic::{AtomicPtr, Ordering};
use spanalloc_sync::fault::{self, Fault};

use crate::bitmap::CHUNK_PAGE_BITS;
use crate::chunk::Chunk;
use crate::pages::PAGE_SHIFT;

/// log2 of the bytes of a chunk.
pub(crate) const CHUNK_SHIFT: u32 = PAGE_SHIFT + CHUNK_PAGE_BITS;

/// What the arena map points to: the span map of one arena, and its chunks behind it.
///
/// An arena slot is `G::ARENA_BYTES` of address space, aligned; a reservation may fill it, or only
/// a part of it, or parts of two. The memory is metadata and never given back:
///
/// | offset      | what                                                       | guarded by        |
/// |-------------|------------------------------------------------------------|-------------------|
/// | 0           | one `AtomicPtr<()>` a page: its span, null if nothing was set | nothing: atomic |
/// | `CHUNKS_AT` | one [`Chunk`] for each 4 MB                                | the heap's lock   |
///
/// All zeros is a slot of which nothing is ours. The type has no size of its own because arrays
/// whose length is a geometry's constant cannot be written.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slot<G> {
    geometry: PhantomData<fn() -> G>,
}

impl<G: Geometry> Slot<G> {
    /// Entries of the span map.
    const ENTRIES: usize = G::ARENA_BYTES >> PAGE_SHIFT;
    /// Chunks of the slot.
    const CHUNKS: usize = {
        assert!(G::ARENA_BYTES.is_power_of_two());
        assert!(G::ARENA_BYTES >> CHUNK_SHIFT >= 1, "an arena is at least one chunk");
        G::ARENA_BYTES >> CHUNK_SHIFT
    };
    /// Where the chunks begin, in bytes.
    const CHUNKS_AT: usize =
        (Self::ENTRIES * size_of::<AtomicPtr<()>>()).next_multiple_of(Self::ALIGN);
    /// Alignment of a slot: a cache line.
    const ALIGN: usize = 64;

    /// How much memory a slot takes: 68 KB for an arena of 64 MB.
    pub(crate) fn layout() -> Option<Layout> {
        const { assert!(align_of::<Chunk>() <= Self::ALIGN) };
        let bytes = Self::CHUNKS_AT + Self::CHUNKS * size_of::<Chunk>();
        Layout::from_size_align(bytes, Self::ALIGN).ok()
    }

    /// The span-map entry of the page that `address` lies in.
    ///
    /// # Safety
    /// `slot` was made with [`layout`](Self::layout), from zeroed memory that is never given back.
    #[inline(always)]
    pub(crate) unsafe fn entry<'a>(slot: *mut Self, address: usize) -> &'a AtomicPtr<()> {
        let index = (address & (G::ARENA_BYTES - 1)) >> PAGE_SHIFT;
        // SAFETY: the mask keeps the index below `ENTRIES`; the entries begin at offset 0 and are
        // only ever used as atomics.
        unsafe { &*slot.cast::<AtomicPtr<()>>().add(index) }
    }

    /// Makes `span` the entry of `count` pages from the one that `address` lies in.
    ///
    /// # Safety
    /// As [`entry`](Self::entry), and the pages lie in this slot.
    #[inline]
    pub(crate) unsafe fn set_entries(slot: *mut Self, address: usize, count: usize, span: *mut ()) {
        // SAFETY: the caller's promise; all entries are in the slot, one behind the other.
        let entries = unsafe { core::slice::from_raw_parts(Self::entry(slot, address), count) };
        for entry in entries {
            // Release pairs with the Acquire load in `span_of`: whoever finds the span sees what
            // was written to it before.
            entry.store(span, fault::ordering(Fault::SpanMapRelaxed, Ordering::Release));
        }
    }

    /// The chunk that `address` lies in.
    ///
    /// # Safety
    /// As [`entry`](Self::entry). The heap's lock guards what the pointer points to.
    #[inline]
    pub(crate) unsafe fn chunk(slot: *mut Self, address: usize) -> *mut Chunk {
        let index = (address & (G::ARENA_BYTES - 1)) >> CHUNK_SHIFT;
        // SAFETY: the mask keeps the index below `CHUNKS`, and the layout has that many from here.
        unsafe { slot.byte_add(Self::CHUNKS_AT).cast::<Chunk>().add(index) }
    }
}
