use spanalloc_central::{Central, LARGE, Owner, TINY, TINY_BYTES};
use spanalloc_classes::{ClassTable, MAX_CLASSES};
use spanalloc_pages::{PAGE_BYTES, PageStats, Pages};

use crate::bin::Bin;
use crate::cache::{Cache, SHARED};
use crate::policy::Policy;
use crate::state::CacheState;

/// What one size class holds. `slots == live + cached + freed + free`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of a slot; 0 where the table has no such class.
    pub slot_bytes: usize,
    /// Spans of the class.
    pub spans: usize,
    /// Pages of those spans, of 8 KB.
    pub pages: usize,
    /// Slots of those spans.
    pub slots: usize,
    /// Slots in which objects of the program live.
    pub live: usize,
    /// Free slots in the magazines of threads.
    pub cached: usize,
    /// Slots that a thread freed into another's span and that no fold has taken yet.
    pub freed: usize,
    /// Slots that lie free in their span.
    pub free: usize,
    /// Objects of the program: `live`, but for tiny objects, several of which share a slot.
    pub objects: usize,
}

/// What a whole allocator holds.
///
/// Exact while no other thread is inside the allocator. `pages.pages_in_use` is the sum of the
/// pages of all classes, of the large objects, of those that threads keep and of `pages.metadata_pages`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The page heap.
    pub pages: PageStats,
    /// Slots that tiny objects share.
    pub tiny: ClassStats,
    /// The size classes, by number; row 0 is not used.
    pub classes: [ClassStats; MAX_CLASSES],
    /// Large objects.
    pub large_objects: usize,
    /// Pages of large objects.
    pub large_pages: usize,
    /// Pages that threads keep: in their page caches, and of large objects that ended.
    pub cached_pages: usize,
    /// Pages of spans without live slots that threads keep. They are among those of their classes.
    pub empty_pages: usize,
    /// Caches in use by a thread.
    pub caches: usize,
    /// How often the locks of the central lists were taken; `pages.heap_locks` are the heap's.
    pub central_locks: usize,
}

impl ClassStats {
    const EMPTY: Self = Self {
        slot_bytes: 0,
        spans: 0,
        pages: 0,
        slots: 0,
        live: 0,
        cached: 0,
        freed: 0,
        free: 0,
        objects: 0,
    };
}

impl Snapshot {
    /// Of nothing at all: a place for another one.
    pub const EMPTY: Self = Self {
        pages: PageStats::EMPTY,
        tiny: ClassStats::EMPTY,
        classes: [ClassStats::EMPTY; MAX_CLASSES],
        large_objects: 0,
        large_pages: 0,
        cached_pages: 0,
        empty_pages: 0,
        caches: 0,
        central_locks: 0,
    };

    /// The rows of all classes that have spans, the tiny slots first.
    pub fn rows(&self) -> impl Iterator<Item = &ClassStats> {
        core::iter::once(&self.tiny).chain(&self.classes).filter(|row| row.spans > 0)
    }

    /// Objects of the program, tiny, small and large.
    #[must_use]
    pub fn live_objects(&self) -> usize {
        self.rows().map(|row| row.objects).sum::<usize>() + self.large_objects
    }

    /// Free slots in magazines.
    #[must_use]
    pub fn cached_objects(&self) -> usize {
        self.rows().map(|row| row.cached).sum()
    }

    /// Bytes of the slots and pages in which objects of the program live.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        let small: usize = self.rows().map(|row| row.live * row.slot_bytes).sum();
        small + self.large_pages * PAGE_BYTES
    }

    /// Whether everything adds up: the slots of each class, and the pages of the heap. True
    /// whenever no other thread was inside the allocator.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let slots = |row: &ClassStats| row.live + row.cached + row.freed + row.free == row.slots;
        let spans: usize = self.rows().map(|row| row.pages).sum();
        let pages = &self.pages;
        self.rows().all(slots)
            && spans + self.large_pages + self.cached_pages + pages.metadata_pages
                == pages.pages_in_use
            && (pages.pages_in_use + pages.pages_free) * PAGE_BYTES == pages.reserved
            && pages.committed <= pages.reserved
            && pages.metadata_in_use <= pages.metadata_committed
            && pages.metadata_committed <= pages.metadata_reserved
    }
}

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// What the allocator below and all its caches hold.
    #[must_use]
    pub fn snapshot(self) -> Snapshot {
        let mut snapshot = Snapshot::EMPTY;
        self.snapshot_into(&mut snapshot);
        snapshot
    }

    /// As [`snapshot`](Self::snapshot), written over what was in the place: for threads with a small
    /// stack, where a place of 9 KB is all there is.
    pub fn snapshot_into(self, snapshot: &mut Snapshot) {
        snapshot.pages = self.central.heap().stats();
        snapshot.tiny = ClassStats { slot_bytes: TINY_BYTES, ..ClassStats::EMPTY };
        snapshot.classes.fill(ClassStats::EMPTY);
        (snapshot.large_objects, snapshot.large_pages) = (0, 0);
        (snapshot.cached_pages, snapshot.empty_pages, snapshot.caches) = (0, 0, 0);
        snapshot.central_locks = self.central.locks();
        for (class, row) in (0..=C::Table::CLASSES.count() as u8).zip(&mut snapshot.classes) {
            row.slot_bytes = C::Table::CLASSES.class(class).bytes as usize;
        }
        self.count_spans(snapshot);
        self.central.for_each_owner(|owner| {
            // SAFETY: every owner registered with these lists begins a `CacheState` (contract of
            // `Cache::new`), and none is ever unmapped.
            let state = unsafe { owner.cast::<CacheState<P::Bin>>().as_ref() };
            count_cache(snapshot, state);
        });
    }

    fn count_spans(self, snapshot: &mut Snapshot) {
        self.central.for_each_span(|span| {
            if span.class() == LARGE {
                if !span.is_large_live() {
                    // Ended, and kept by a thread.
                    snapshot.cached_pages += span.pages();
                    return;
                }
                snapshot.large_objects += 1;
                snapshot.large_pages += span.pages();
                return;
            }
            let tiny = span.class() == TINY;
            let row = match snapshot.classes.get_mut(usize::from(span.class())) {
                Some(row) if !tiny => row,
                _ => &mut snapshot.tiny,
            };
            // Each number is read once: other threads may change it, and the span, meanwhile.
            let slots = span.slots();
            let used = span.used().min(slots);
            let freed = if tiny { 0 } else { span.unfolded().min(used) };
            row.spans += 1;
            row.pages += span.pages();
            row.slots += slots;
            row.live += used - freed;
            row.free += slots - used;
            row.freed += freed;
            row.objects += if tiny { span.tiny_objects() } else { used - freed };
        });
    }
}

/// Takes what a cache holds out of what counts as live so far.
fn count_cache<B: Bin>(snapshot: &mut Snapshot, state: &CacheState<B>) {
    snapshot.caches += usize::from(Owner::is_active(&state.owner));
    snapshot.cached_pages += state.stash.free_pages();
    snapshot.empty_pages += state.empties.bytes() / PAGE_BYTES;
    for (class, bin) in state.used_bins() {
        let (cached, reserved) = (bin.cached(), bin.reserved());
        let row = match snapshot.classes.get_mut(usize::from(class)) {
            Some(row) if class != SHARED => {
                row.objects = row.objects.saturating_sub(cached + reserved);
                row
            }
            _ => &mut snapshot.tiny,
        };
        row.cached += cached;
        row.free += reserved;
        row.live = row.live.saturating_sub(cached + reserved);
    }
    let open = state.open.credit();
    snapshot.tiny.objects = snapshot.tiny.objects.saturating_sub(open);
}
