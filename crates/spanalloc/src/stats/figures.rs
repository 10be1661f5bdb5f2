//! Where the bytes of a heap are.

use spanalloc_cache::{ClassStats, Snapshot};
use spanalloc_pages::PAGE_BYTES;

/// What a heap holds, in bytes unless named otherwise.
///
/// The sums hold for every snapshot, also for one that was taken while other threads were inside the allocator:
///
/// - `ready` = [`live`](Self::live) + [`unused`](Self::unused) + [`idle`](Self::idle) + `metadata_pages`
/// - `reserved` = `ready` + `returned` + `guards`
/// - [`total`](Self::total) = `reserved` + `metadata` - `metadata_pages`
/// - [`resident`](Self::resident) = `total` - `returned` - `guards`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Figures {
    /// Address space for objects.
    pub reserved: usize,
    /// The part of it that has memory.
    pub ready: usize,
    /// The part of it that has none: given back to the system, or never used.
    pub returned: usize,
    /// The part of it that has none because nobody may touch it: guards behind large objects.
    pub guards: usize,
    /// What was given back to the system so far, however often.
    pub returned_in_all: u64,
    /// Slots in which objects live, with what their sizes were rounded up by.
    pub live_small: usize,
    /// Pages of large objects, without guards.
    pub live_large: usize,
    /// Number of objects, small and large.
    pub objects: usize,
    /// Number of large objects.
    pub large_objects: usize,
    /// Free slots that threads have at hand.
    pub cached: usize,
    /// Number of those.
    pub cached_slots: usize,
    /// Free slots in spans.
    pub free: usize,
    /// Number of those.
    pub free_slots: usize,
    /// Ends of spans, too short for a slot.
    pub tails: usize,
    /// Free pages kept by threads.
    pub kept_pages: usize,
    /// Free pages of the heap that have memory.
    pub free_pages: usize,
    /// Memory of the allocator's tables, `metadata_pages` included.
    pub metadata: usize,
    /// The part of it that is in use.
    pub metadata_in_use: usize,
    /// Pages of the heap that became metadata; part of `ready`, too.
    pub metadata_pages: usize,
    /// Number of arenas.
    pub arenas: usize,
    /// Number of spans of small objects.
    pub spans: usize,
    /// Number of threads that have a cache.
    pub threads: usize,
    /// How often locks of the page heap were taken.
    pub heap_locks: usize,
    /// How often locks of the central lists were taken.
    pub central_locks: usize,
}

/// A part of the bytes of a heap.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Part {
    /// What it is called; of at most 11 characters.
    pub name: &'static str,
    /// How many they are.
    pub bytes: usize,
    /// What they are.
    pub what: &'static str,
}

/// What one size class holds, in bytes unless named otherwise.
/// `bytes == live + cached + free + tails`, for every snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ClassFigures {
    /// Whether several objects share a slot.
    pub tiny: bool,
    /// Of a slot.
    pub slot_bytes: usize,
    /// Number of spans.
    pub spans: usize,
    /// Of those spans.
    pub bytes: usize,
    /// Number of objects.
    pub objects: usize,
    /// Slots in which objects live.
    pub live: usize,
    /// Free slots that threads have at hand.
    pub cached: usize,
    /// Free slots in spans, those included that another thread freed and the owner has not seen yet.
    pub free: usize,
    /// Ends of spans, too short for a slot.
    pub tails: usize,
}

impl ClassFigures {
    pub(super) fn of(row: &ClassStats, tiny: bool) -> Self {
        // The counts were read one after the other. What a thread moved meanwhile is counted once.
        let free = (row.free + row.freed).min(row.slots);
        let cached = row.cached.min(row.slots - free);
        let live = row.slots - free - cached;
        let used = row.slots * row.slot_bytes;
        let bytes = (row.pages * PAGE_BYTES).max(used);
        Self {
            tiny,
            slot_bytes: row.slot_bytes,
            spans: row.spans,
            bytes,
            objects: row.objects,
            live: live * row.slot_bytes,
            cached: cached * row.slot_bytes,
            free: free * row.slot_bytes,
            tails: bytes - used,
        }
    }

    /// The number of slots that occupy so many bytes.
    pub(super) fn slots(&self, bytes: usize) -> usize {
        bytes.checked_div(self.slot_bytes).unwrap_or(0)
    }
}

impl Figures {
    /// Those of a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let pages = &snapshot.pages;
        let guards = pages.guard_pages.min(snapshot.large_pages);
        let mut figures = Self {
            guards: guards * PAGE_BYTES,
            live_large: (snapshot.large_pages - guards) * PAGE_BYTES,
            large_objects: snapshot.large_objects,
            objects: snapshot.live_objects(),
            kept_pages: snapshot.cached_pages * PAGE_BYTES,
            metadata_in_use: pages.metadata_in_use,
            metadata_pages: pages.metadata_pages * PAGE_BYTES,
            returned_in_all: pages.returned_in_all,
            arenas: pages.arenas,
            threads: snapshot.caches,
            heap_locks: pages.heap_locks,
            central_locks: snapshot.central_locks,
            ..Self::default()
        };
        for class in classes(snapshot) {
            figures.live_small += class.live;
            figures.cached += class.cached;
            figures.cached_slots += class.slots(class.cached);
            figures.free += class.free;
            figures.free_slots += class.slots(class.free);
            figures.tails += class.tails;
            figures.spans += class.spans;
        }
        // The heap was asked before its spans were counted: what was taken from it meanwhile counts as
        // taken, what came back as free.
        let taken = figures.live() + figures.unused() + figures.kept_pages + figures.metadata_pages;
        figures.ready = pages.committed.saturating_sub(figures.guards).max(taken);
        figures.free_pages = figures.ready - taken;
        figures.reserved = pages.reserved.max(figures.ready + figures.guards);
        figures.returned = figures.reserved - figures.ready - figures.guards;
        figures.metadata =
            pages.metadata_committed.max(figures.metadata_in_use).max(figures.metadata_pages);
        figures
    }

    /// Objects, with what their sizes were rounded up by.
    #[must_use]
    pub const fn live(&self) -> usize {
        self.live_small + self.live_large
    }

    /// What is fragmented inside of spans: free slots, and ends of spans.
    #[must_use]
    pub const fn unused(&self) -> usize {
        self.cached + self.free + self.tails
    }

    /// Free pages that have memory.
    #[must_use]
    pub const fn idle(&self) -> usize {
        self.kept_pages + self.free_pages
    }

    /// Pages of the heap that are in use.
    #[must_use]
    pub const fn in_use(&self) -> usize {
        self.ready - self.free_pages + self.guards
    }

    /// Where the `reserved` bytes are, each in one part, for people.
    #[must_use]
    pub const fn parts(&self) -> [Part; 9] {
        const fn part(name: &'static str, bytes: usize, what: &'static str) -> Part {
            Part { name, bytes, what }
        }
        [
            part("live", self.live(), "objects, with what their sizes were rounded up by"),
            part("cached", self.cached, "free slots that threads have at hand"),
            part("free slots", self.free, "in spans that hold objects, or could"),
            part("tails", self.tails, "ends of spans, too short for a slot"),
            part("page caches", self.kept_pages, "free pages kept by threads"),
            part("free pages", self.free_pages, "with memory behind them"),
            part("metadata", self.metadata_pages, "pages that became tables of the allocator"),
            part("returned", self.returned, "to the system, or never used: costs nothing"),
            part("guards", self.guards, "behind large objects: cost nothing"),
        ]
    }

    /// All that is mapped, or reserved in order to be.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.reserved + self.metadata - self.metadata_pages
    }

    /// What is in the memory of the machine once the program has touched it.
    #[must_use]
    pub const fn resident(&self) -> usize {
        self.total() - self.returned - self.guards
    }
}

/// The classes of a snapshot that have spans, the tiny slots first.
pub(super) fn classes(snapshot: &Snapshot) -> impl Iterator<Item = ClassFigures> {
    let tiny = core::iter::once(ClassFigures::of(&snapshot.tiny, true));
    let others = snapshot.classes.iter().map(|row| ClassFigures::of(row, false));
    tiny.chain(others).filter(|class| class.spans > 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A snapshot of a heap in which the numbers are these.
    pub(crate) fn busy() -> Snapshot {
        let mut snapshot = Snapshot::EMPTY;
        snapshot.pages.reserved = 64 << 20;
        snapshot.pages.committed = 2 << 20;
        snapshot.pages.metadata_committed = 64 << 10;
        snapshot.pages.metadata_in_use = 1000;
        snapshot.pages.metadata_pages = 1;
        snapshot.pages.guard_pages = 2;
        let row = &mut snapshot.classes[5];
        (row.slot_bytes, row.spans, row.pages, row.slots) = (48, 1, 1, 170);
        (row.live, row.cached, row.freed, row.free, row.objects) = (100, 20, 10, 40, 100);
        let tiny = &mut snapshot.tiny;
        (tiny.slot_bytes, tiny.spans, tiny.pages, tiny.slots) = (16, 1, 1, 512);
        (tiny.live, tiny.free, tiny.objects) = (12, 500, 30);
        (snapshot.large_objects, snapshot.large_pages) = (2, 20);
        (snapshot.cached_pages, snapshot.caches) = (3, 4);
        snapshot
    }

    fn check(snapshot: &Snapshot) -> Figures {
        let figures = Figures::of(snapshot);
        let parts: usize = figures.parts().iter().map(|part| part.bytes).sum();
        assert_eq!(parts, figures.reserved);
        let parts = figures.live() + figures.unused() + figures.idle() + figures.metadata_pages;
        assert_eq!(parts, figures.ready);
        let without = figures.returned + figures.guards;
        assert_eq!(figures.ready + without, figures.reserved);
        assert_eq!(figures.resident() + without, figures.total());
        for class in classes(snapshot) {
            let parts = class.live + class.cached + class.free + class.tails;
            assert_eq!(parts, class.bytes, "{class:?}");
        }
        figures
    }

    #[test]
    fn every_byte_is_in_one_place() {
        let figures = check(&busy());
        assert_eq!((figures.live_small, figures.live_large), (100 * 48 + 12 * 16, 18 * 8192));
        assert_eq!((figures.cached, figures.cached_slots), (20 * 48, 20));
        assert_eq!((figures.free, figures.free_slots), (50 * 48 + 500 * 16, 550));
        assert_eq!((figures.tails, figures.kept_pages), (8192 - 170 * 48, 3 * 8192));
        assert_eq!(figures.free_pages, (2 << 20) - 26 * 8192);
        assert_eq!((figures.ready, figures.guards), ((2 << 20) - 2 * 8192, 2 * 8192));
        assert_eq!((figures.objects, figures.large_objects, figures.spans), (132, 2, 2));
        assert_eq!(figures.resident(), (2 << 20) + (64 << 10) - 3 * 8192);
    }

    #[test]
    fn the_sums_hold_whatever_moved_meanwhile() {
        let change: [fn(&mut Snapshot); 8] = [
            |heap| heap.pages.committed = 0,
            |heap| heap.pages.reserved = 0,
            |heap| heap.classes[5].cached = 1000,
            |heap| heap.classes[5].free = 1000,
            |heap| heap.classes[5].live = 0,
            |heap| heap.pages.metadata_committed = 0,
            |heap| heap.pages.guard_pages = 1000,
            |heap| heap.large_pages = 1,
        ];
        for change in change {
            let mut snapshot = busy();
            change(&mut snapshot);
            check(&snapshot);
        }
        check(&Snapshot::EMPTY);
    }
}
