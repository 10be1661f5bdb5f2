//! Where the bytes of the heap are.

use spanalloc::stats::{ClassStats, PAGE_BYTES, Snapshot};

use crate::snapshot::with_snapshot;

/// What a heap holds, in bytes unless named otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Address space for objects.
    pub(crate) reserved: usize,
    /// The part of it that has memory.
    pub(crate) committed: usize,
    /// Slots in which objects live, and pages of large objects.
    pub(crate) live_small: usize,
    pub(crate) live_large: usize,
    /// Objects, small and large.
    pub(crate) objects: usize,
    pub(crate) large_objects: usize,
    /// Free slots that threads have at hand, and how many they are.
    pub(crate) cached: usize,
    pub(crate) cached_slots: usize,
    /// Free slots in spans, and how many they are.
    pub(crate) free: usize,
    pub(crate) free_slots: usize,
    /// Ends of spans, too short for a slot.
    pub(crate) wasted: usize,
    /// Free pages kept by threads.
    pub(crate) kept_pages: usize,
    /// Free pages that have memory.
    pub(crate) free_pages: usize,
    /// Memory of the allocator's tables.
    pub(crate) metadata: usize,
    /// Threads that have a cache.
    pub(crate) threads: usize,
}

impl Figures {
    /// Those of the heap of this process.
    pub(crate) fn now() -> Self {
        with_snapshot(Self::of)
    }

    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let pages = &snapshot.pages;
        let mut figures = Self {
            reserved: pages.reserved,
            committed: pages.committed,
            live_large: snapshot.large_pages * PAGE_BYTES,
            large_objects: snapshot.large_objects,
            kept_pages: snapshot.cached_pages * PAGE_BYTES,
            free_pages: pages.committed.saturating_sub(pages.pages_in_use * PAGE_BYTES),
            metadata: pages.metadata_committed,
            objects: snapshot.live_objects(),
            threads: snapshot.caches,
            ..Self::default()
        };
        for row in snapshot.rows() {
            let bytes = |slots: usize| slots * row.slot_bytes;
            figures.live_small += bytes(row.live);
            figures.cached += bytes(row.cached);
            figures.cached_slots += row.cached;
            figures.free += bytes(row.free + row.freed);
            figures.free_slots += row.free + row.freed;
            figures.wasted += wasted(row);
        }
        figures
    }

    /// Objects, with what their sizes were rounded up by.
    pub(crate) fn live(&self) -> usize {
        self.live_small + self.live_large
    }

    /// Address space without memory.
    pub(crate) fn untouched(&self) -> usize {
        self.reserved.saturating_sub(self.committed)
    }
}

/// Bytes of the spans of a class behind their last slots.
pub(crate) fn wasted(row: &ClassStats) -> usize {
    (row.pages * PAGE_BYTES).saturating_sub(row.slots * row.slot_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_real_heap_is_somewhere() {
        // Other tests allocate at the same time: the sums of a moment without them are asked for.
        let snapshot =
            (0..10_000).map(|_| spanalloc::checked::snapshot()).find(Snapshot::adds_up).unwrap();
        let figures = Figures::of(&snapshot);
        let spans = figures.live() + figures.cached + figures.free + figures.wasted;
        let metadata = snapshot.pages.metadata_pages * PAGE_BYTES;
        let pages = figures.kept_pages + figures.free_pages + metadata;
        assert_eq!(spans + pages, figures.committed);
        assert_eq!(figures.committed + figures.untouched(), figures.reserved);
        assert!(figures.objects > 0 && figures.live_small > 0, "the test itself runs on it");
    }
}
