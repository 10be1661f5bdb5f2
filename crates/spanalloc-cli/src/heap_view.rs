//! The heap, as numbers that can be sent from one process to another.

use serde::{Deserialize, Serialize};
use spanalloc::stats::{ClassFigures, Figures, Report, Snapshot};

/// Bytes of a page.
pub(crate) use spanalloc::stats::PAGE_BYTES;

/// What a heap holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeapView {
    pub(crate) figures: Figures,
    /// Whether the allocator's own sums agree.
    pub(crate) adds_up: bool,
    /// Size classes that have spans, tiny objects first, then by size.
    pub(crate) rows: Vec<ClassFigures>,
}

impl HeapView {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let report = Report::of(snapshot);
        Self {
            figures: *report.figures(),
            adds_up: snapshot.adds_up(),
            rows: report.classes().collect(),
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
        let figures = &view.figures;
        assert_eq!(figures.objects, objects.len());
        assert_eq!(figures.large_objects, 2);
        assert!(figures.live() >= layouts.iter().map(Layout::size).sum::<usize>());
        let spans: usize = view.rows.iter().map(|row| row.bytes).sum();
        assert_eq!(spans, figures.live_small + figures.unused());
    }
}
