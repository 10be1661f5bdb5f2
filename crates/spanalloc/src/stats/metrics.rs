//! The names of the figures.

use super::Figures;

/// A figure that has a name for other programs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// The name, with the unit behind the colon. What the Go runtime has too is called as in
    /// its `runtime/metrics`; what it has not begins with `/spanalloc`.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Whether it never falls.
    pub counts: bool,
    value: fn(&Figures) -> usize,
}

impl Metric {
    const fn new(name: &'static str, help: &'static str, value: fn(&Figures) -> usize) -> Self {
        Self { name, help, counts: false, value }
    }

    const fn counter(name: &'static str, help: &'static str, value: fn(&Figures) -> usize) -> Self {
        Self { name, help, counts: true, value }
    }

    /// The figure.
    #[must_use]
    pub fn of(&self, figures: &Figures) -> usize {
        (self.value)(figures)
    }
}

/// All figures that JSON, Prometheus and XML tell, in this order.
///
/// The first six are `/memory/classes/total:bytes`, of which all but `released` are
/// `/spanalloc/resident:bytes`.
pub const METRICS: &[Metric] = &[
    Metric::new(
        "/memory/classes/heap/objects:bytes",
        "Slots and pages in which objects live.",
        Figures::live,
    ),
    Metric::new(
        "/memory/classes/heap/unused:bytes",
        "Free slots, and ends of spans: what is fragmented inside of spans.",
        Figures::unused,
    ),
    Metric::new(
        "/memory/classes/heap/free:bytes",
        "Free pages that have memory and could be given back.",
        Figures::idle,
    ),
    Metric::new(
        "/memory/classes/heap/released:bytes",
        "Address space of the heap without memory: given back, never used, or guards.",
        |figures| figures.returned + figures.guards,
    ),
    Metric::new("/memory/classes/metadata/inuse:bytes", "Tables of the allocator.", |figures| {
        figures.metadata_in_use
    }),
    Metric::new(
        "/memory/classes/metadata/free:bytes",
        "Memory for more tables of the allocator.",
        |figures| figures.metadata - figures.metadata_in_use,
    ),
    Metric::new(
        "/memory/classes/total:bytes",
        "All that is mapped, or reserved in order to be.",
        Figures::total,
    ),
    Metric::new("/gc/heap/objects:objects", "Live objects.", |figures| figures.objects),
    Metric::new(
        "/spanalloc/resident:bytes",
        "The total without what is released: what is in memory if the program touched it.",
        Figures::resident,
    ),
    Metric::new("/spanalloc/heap/reserved:bytes", "Address space for objects.", |figures| {
        figures.reserved
    }),
    Metric::new(
        "/spanalloc/heap/ready:bytes",
        "The part of the reserved address space that has memory.",
        |figures| figures.ready,
    ),
    Metric::new(
        "/spanalloc/heap/metadata:bytes",
        "The part of the heap that became tables of the allocator; counted there.",
        |figures| figures.metadata_pages,
    ),
    Metric::new(
        "/spanalloc/heap/guards:bytes",
        "Guards behind large objects, which have no memory.",
        |figures| figures.guards,
    ),
    Metric::new(
        "/spanalloc/objects/small:bytes",
        "The part of the objects that lies in slots.",
        |figures| figures.live_small,
    ),
    Metric::new(
        "/spanalloc/objects/large:bytes",
        "The part of the objects that has pages of its own.",
        |figures| figures.live_large,
    ),
    Metric::new(
        "/spanalloc/objects/large:objects",
        "Live objects that have pages of their own.",
        |figures| figures.large_objects,
    ),
    Metric::new(
        "/spanalloc/unused/cached:bytes",
        "The unused slots that threads have at hand.",
        |figures| figures.cached,
    ),
    Metric::new(
        "/spanalloc/unused/slots:bytes",
        "The unused slots that lie in their spans.",
        |figures| figures.free,
    ),
    Metric::new(
        "/spanalloc/unused/tails:bytes",
        "The ends of spans that are too short for a slot.",
        |figures| figures.tails,
    ),
    Metric::new("/spanalloc/free/cached:bytes", "The free pages that threads keep.", |figures| {
        figures.kept_pages
    }),
    Metric::new("/spanalloc/free/pages:bytes", "The free pages of the heap.", |figures| {
        figures.free_pages
    }),
    Metric::new("/spanalloc/arenas:arenas", "Arenas.", |figures| figures.arenas),
    Metric::new("/spanalloc/spans:spans", "Spans of small objects.", |figures| figures.spans),
    Metric::new("/spanalloc/caches:threads", "Threads that have a cache.", |figures| {
        figures.threads
    }),
    Metric::counter(
        "/spanalloc/returned:bytes",
        "What was given back to the system so far, however often.",
        |figures| usize::try_from(figures.returned_in_all).unwrap_or(usize::MAX),
    ),
    Metric::counter(
        "/spanalloc/locks/heap:acquisitions",
        "How often locks of the page heap were taken.",
        |figures| figures.heap_locks,
    ),
    Metric::counter(
        "/spanalloc/locks/central:acquisitions",
        "How often locks of the central lists were taken.",
        |figures| figures.central_locks,
    ),
];

#[cfg(test)]
mod tests {
    use super::super::figures::tests::busy;
    use super::*;

    #[test]
    fn the_classes_of_memory_are_the_total() {
        for mut snapshot in [busy(), super::super::Snapshot::EMPTY] {
            for pages in [1, 100] {
                // Pages that became metadata are metadata, and in no other class.
                snapshot.pages.metadata_pages = pages;
                let figures = Figures::of(&snapshot);
                let value = |name| METRICS.iter().find(|it| it.name == name).unwrap().of(&figures);
                let sum: usize = METRICS.iter().take(6).map(|metric| metric.of(&figures)).sum();
                assert_eq!(sum, value("/memory/classes/total:bytes"));
                let released = value("/memory/classes/heap/released:bytes");
                assert_eq!(sum - released, value("/spanalloc/resident:bytes"));
            }
        }
    }

    #[test]
    fn names_are_unique_and_have_a_unit() {
        for (at, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..at].iter().all(|other| other.name != metric.name), "{metric:?}");
            let (path, unit) = metric.name.split_once(':').unwrap();
            assert!(path.starts_with('/') && !unit.is_empty(), "{metric:?}");
            assert!(metric.name.bytes().all(|it| it.is_ascii_lowercase() || b"/:".contains(&it)));
        }
    }
}
