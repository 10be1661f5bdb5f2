use crate::bitmap::{Bits, CHUNK_PAGE_BITS};
use crate::tree::Node;

/// What is known of 512 neighbouring pages. Guarded by the heap's lock; zeroed memory is a chunk
/// that holds no page of this heap.
///
/// The states of a page, by its bits:
///
/// | `ours` | `free` | `ready` | `zero` | the page                                                |
/// |--------|--------|---------|--------|---------------------------------------------------------|
/// | 0      | 0      | 0       | 0      | is not this heap's                                      |
/// | 1      | 1      | 0       | 1      | free, Reserved or Decommitted: to be committed first    |
/// | 1      | 1      | 1       | 1      | free, Ready, never written since it became Ready        |
/// | 1      | 1      | 1       | 0      | free, Ready, dirty                                      |
/// | 1      | 0      | 1       | 0      | handed out, in a page cache, or being decommitted       |
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Chunk {
    /// Pages that may be handed out.
    pub(crate) free: Bits,
    /// Free pages known to read as zero.
    pub(crate) zero: Bits,
    /// Pages whose memory is Ready.
    pub(crate) ready: Bits,
    /// Pages of this heap.
    pub(crate) ours: Bits,
    /// The tree node that holds this chunk's summary; null while no page is ours.
    pub(crate) leaf: *mut Node,
}

/// A piece of a run that lies in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Index of the chunk in the address space.
    pub(crate) chunk: u64,
    /// First page, counted from the chunk's first.
    pub(crate) from: usize,
    /// How many pages.
    pub(crate) count: usize,
}

/// The pieces of the `pages` pages from `page`, chunk by chunk.
#[inline]
pub(crate) fn segments(page: u64, pages: u64) -> impl Iterator<Item = Segment> {
    let mut at = page;
    let end = page.saturating_add(pages);
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let chunk = at >> CHUNK_PAGE_BITS;
        let next = ((chunk + 1) << CHUNK_PAGE_BITS).min(end);
        let from = (at - (chunk << CHUNK_PAGE_BITS)) as usize;
        let count = (next - at) as usize;
        at = next;
        Some(Segment { chunk, from, count })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::vec::Vec;

    #[test]
    fn a_run_is_cut_at_chunk_borders() {
        let pieces: Vec<_> = segments(510, 2 + 512 + 3).collect();
        assert_eq!(
            pieces,
            [
                Segment { chunk: 0, from: 510, count: 2 },
                Segment { chunk: 1, from: 0, count: 512 },
                Segment { chunk: 2, from: 0, count: 3 },
            ]
        );
        assert_eq!(segments(5, 0).count(), 0);
    }
}
