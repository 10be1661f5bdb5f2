//! The heap, as numbers that can be sent from one process to another.

use serde::{Deserialize, Serialize};
use spanalloc::stats::{ClassStats, Snapshot};

/// Bytes of a page.
pub(crate) use spanalloc::stats::PAGE_BYTES;

/// What a heap holds; bytes unless named otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeapView {
    pub(crate) arenas: usize,
    pub(crate) reserved: usize,
    pub(crate) committed: usize,
    pub(crate) pages_in_use: usize,
    pub(crate) metadata_in_use: usize,
    pub(crate) metadata_committed: usize,
    pub(crate) live_objects: usize,
    pub(crate) large_objects: usize,
    pub(crate) large_bytes: usize,
    pub(crate) page_caches: usize,
    pub(crate) caches: usize,
    /// How often locks were taken: those of the page heap, and those of the central lists.
    pub(crate) heap_locks: usize,
    pub(crate) central_locks: usize,
    /// Whether the allocator's own sums agree.
    pub(crate) adds_up: bool,
    /// Size classes that have spans, tiny objects first, then by size.
    pub(crate) rows: Vec<SpanRow>,
}

/// The spans of one size class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpanRow {
    /// Whether several objects share a slot.
    pub(crate) tiny: bool,
    pub(crate) slot_bytes: usize,
    pub(crate) spans: usize,
    pub(crate) bytes: usize,
    pub(crate) slots: usize,
    /// Slots in which objects live.
    pub(crate) live: usize,
    /// Free slots in the caches of threads.
    pub(crate) cached: usize,
    /// Free slots in spans, also those that another thread freed and the owner has not seen yet.
    pub(crate) free: usize,
    pub(crate) objects: usize,
}

impl SpanRow {
    fn new(tiny: bool, stats: &ClassStats) -> Self {
        Self {
            tiny,
            slot_bytes: stats.slot_bytes,
            spans: stats.spans,
            bytes: stats.pages * PAGE_BYTES,
            slots: stats.slots,
            live: stats.live,
            cached: stats.cached,
            free: stats.free + stats.freed,
            objects: stats.objects,
        }
    }

    /// Bytes of its spans behind the last slot.
    pub(crate) fn wasted(&self) -> usize {
        self.bytes.saturating_sub(self.slots * self.slot_bytes)
    }
}

/// Where every reserved byte is. The parts sum up to `HeapView::reserved`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Slots and pages in which objects live, what requests were rounded up by included.
    pub(crate) live: usize,
    /// Free slots in the caches of threads.
    pub(crate) cached: usize,
    /// Free slots in spans.
    pub(crate) free_slots: usize,
    /// Ends of spans too short for a slot.
    pub(crate) wasted: usize,
    /// Pages that threads keep: in their page caches, and of large objects that ended.
    pub(crate) page_caches: usize,
    /// Free pages that have memory.
    pub(crate) free_pages: usize,
    /// Pages that are address space only.
    pub(crate) untouched: usize,
}

impl HeapView {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let tiny = std::iter::once(SpanRow::new(true, &snapshot.tiny));
        let classes = snapshot.classes.iter().map(|stats| SpanRow::new(false, stats));
        Self {
            arenas: snapshot.pages.arenas,
            reserved: snapshot.pages.reserved,
            committed: snapshot.pages.committed,
            pages_in_use: snapshot.pages.pages_in_use,
            metadata_in_use: snapshot.pages.metadata_in_use,
            metadata_committed: snapshot.pages.metadata_committed,
            live_objects: snapshot.live_objects(),
            large_objects: snapshot.large_objects,
            large_bytes: snapshot.large_pages * PAGE_BYTES,
            page_caches: snapshot.cached_pages * PAGE_BYTES,
            caches: snapshot.caches,
            heap_locks: snapshot.pages.heap_locks,
            central_locks: snapshot.central_locks,
            adds_up: snapshot.adds_up(),
            rows: tiny.chain(classes).filter(|row| row.spans > 0).collect(),
        }
    }

    pub(crate) fn parts(&self) -> Parts {
        let sum = |bytes: fn(&SpanRow) -> usize| self.rows.iter().map(bytes).sum::<usize>();
        let in_use = self.pages_in_use * PAGE_BYTES;
        Parts {
            live: sum(|row| row.live * row.slot_bytes) + self.large_bytes,
            cached: sum(|row| row.cached * row.slot_bytes),
            free_slots: sum(|row| row.free * row.slot_bytes),
            wasted: sum(SpanRow::wasted),
            page_caches: self.page_caches,
            free_pages: self.committed.saturating_sub(in_use),
            untouched: self.reserved.saturating_sub(self.committed.max(in_use)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_real_heap_sum_up() {
        // The tests run on the system's allocator: this heap is the test's alone.
        use std::alloc::{GlobalAlloc, Layout};
        let layouts = [3, 16, 24, 100, 1000, 5000, 40_000, 3 << 20];
        let layouts = layouts.map(|size| Layout::from_size_align(size, 1).unwrap());
        // SAFETY: no layout is of size 0.
        let objects = layouts.map(|layout| unsafe { spanalloc::Spanalloc.alloc(layout) });
        let view = HeapView::new(&spanalloc::stats::snapshot());
        for (object, layout) in objects.into_iter().zip(layouts) {
            // SAFETY: the object was made with this layout and is freed once.
            unsafe { spanalloc::Spanalloc.dealloc(object, layout) };
        }
        assert!(view.adds_up);
        assert_eq!(view.live_objects, objects.len());
        assert_eq!(view.large_objects, 2);
        let parts = view.parts();
        assert!(parts.live >= layouts.iter().map(Layout::size).sum::<usize>());
        let small = parts.live + parts.cached + parts.free_slots + parts.wasted;
        let pages = parts.page_caches + parts.free_pages + parts.untouched;
        assert_eq!(small + pages, view.reserved);
    }
}
