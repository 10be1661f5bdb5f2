//! The two maps from an address to what is known of it, against naive ones: arenas of every geometry, and
//! the spans of a page heap's pages. Calls to the system fail in some inputs.
//!
//! The first byte chooses the map; six bytes are an operation.
#![no_main]

use std::collections::BTreeMap;
use std::ptr::{self, NonNull};

use libfuzzer_sys::fuzz_target;
use spanalloc_fuzz::ground;
use spanalloc_os::{
    Any32, Any64, ArenaMap, Faulty, Geometry, IosArm64, Mips32, Mmap, Verb, Windows64,
};
use spanalloc_pages::{PAGE_BYTES, PageHeap, Pages};
use spanalloc_testkit::Plot;

type Source<'a> = Faulty<Plot<'a, Mmap>>;

/// Pages that may be handed out at once.
const MOST: usize = 3000;

/// A pointer to tell from others; nobody reads what it points to.
fn value(number: u8) -> *mut u64 {
    ptr::without_provenance_mut(usize::from(number) * 8 + 8)
}

/// Near each other, at the borders of arenas, beside powers of two, and anything.
fn address(shape: u8, bytes: [u8; 4]) -> usize {
    let [first, second, ..] = bytes.map(usize::from);
    let raw = u32::from_le_bytes(bytes) as usize;
    match shape % 4 {
        0 => 0x7f00_0000_0000_usize.wrapping_add((first % 64) << 26).wrapping_add(raw >> 8),
        1 => ((raw & 0x3ff) << 22).wrapping_sub(raw >> 30),
        2 => (1_usize << (first % 64)).wrapping_sub(second % 3),
        _ => raw.rotate_right(u32::from(shape / 4)),
    }
}

fn arm(os: &Source<'_>, verb: u8, after: u8) {
    let verbs = [Verb::Reserve, Verb::Commit, Verb::Release];
    os.fail_nth(verbs[usize::from(verb) % verbs.len()], 1 + usize::from(after) % 4);
}

fn arenas<G: Geometry>(os: &Source<'_>, bytes: &[u8]) {
    let map = ArenaMap::<G, u64>::new();
    let mut model = BTreeMap::new();
    let mut refusals = 0;
    for operation in bytes.chunks_exact(6).take(200) {
        let [kind, shape, number, high, middle, low] = operation[..] else { return };
        let address = address(shape, [number, high, middle, low]);
        let arena = address / G::ARENA_BYTES;
        match kind % 8 {
            0..=3 => {
                let value = NonNull::new(value(number)).expect("no value is null");
                let inside = address as u64 >> G::ADDRESS_BITS == 0;
                // SAFETY: one thread publishes, always with this source.
                let published = unsafe { map.publish(os, address, value) };
                assert!(inside || published.is_err(), "{address:#x} is nobody's");
                match published {
                    Ok(()) => drop(model.insert(arena, value)),
                    Err(_) if inside => refusals += 1,
                    Err(_) => {}
                }
                let failed = os.failures(Verb::Reserve) + os.failures(Verb::Commit);
                assert!(failed > 0 || refusals == 0, "{address:#x} was refused");
            }
            4..=6 => {}
            _ => arm(os, number, high),
        }
        assert_eq!(NonNull::new(map.get(address)), model.get(&arena).copied(), "{address:#x}");
    }
    for (arena, value) in &model {
        assert_eq!(map.get(arena * G::ARENA_BYTES), value.as_ptr());
        assert_eq!(map.get(arena * G::ARENA_BYTES + (G::ARENA_BYTES - 1)), value.as_ptr());
    }
    // It reads all between the lowest arena and the highest.
    if map.committed_bytes() < 64 << 10 {
        let mut seen = BTreeMap::new();
        map.for_each(|address, value| {
            seen.insert(address / G::ARENA_BYTES, value);
        });
        assert_eq!(seen, model);
    }
}

/// What is known of pages, by page number.
#[derive(Default)]
struct Spans {
    /// Runs handed out: first page and length.
    runs: Vec<(usize, usize)>,
    set: BTreeMap<usize, *mut ()>,
}

impl Spans {
    fn set(&mut self, heap: &PageHeap<Source<'_>>, first: usize, pages: usize, span: *mut ()) {
        // SAFETY: the pages are handed out, and this is the only thread; nobody reads a span.
        unsafe { heap.set_span(first * PAGE_BYTES, pages, span) };
        for page in first..first + pages {
            if span.is_null() {
                self.set.remove(&page);
            } else {
                self.set.insert(page, span);
            }
        }
    }

    fn free(&mut self, heap: &PageHeap<Source<'_>>, index: usize) {
        let (first, pages) = self.runs.swap_remove(index);
        self.set(heap, first, pages, ptr::null_mut());
        // SAFETY: the run was handed out, nobody uses it, and its entries are null.
        assert_eq!(unsafe { heap.free(first * PAGE_BYTES, pages) }, Ok(()));
    }

    fn check(&self, heap: &PageHeap<Source<'_>>, page: usize, within: usize) {
        let expected = self.set.get(&page).copied().unwrap_or(ptr::null_mut());
        assert_eq!(heap.span_of(page * PAGE_BYTES + within % PAGE_BYTES), expected, "{page:#x}");
    }
}

fn spans(os: Source<'_>, bytes: &[u8]) {
    let heap: PageHeap<Source<'_>> = PageHeap::new(os);
    let mut model = Spans::default();
    for operation in bytes.chunks_exact(6).take(200) {
        let [kind, shape, number, high, middle, low] = operation[..] else { return };
        let chosen = usize::from(number).checked_rem(model.runs.len());
        match (kind % 16, chosen) {
            (0..=3, _) => {
                let pages = if high < 240 { usize::from(high) % 70 + 1 } else { 600 };
                let taken: usize = model.runs.iter().map(|run| run.1).sum();
                if taken + pages > MOST {
                    continue;
                }
                let Some(run) = heap.alloc(pages, 1 << (middle % 14)) else { continue };
                let first = run.address / PAGE_BYTES;
                (first..first + pages).for_each(|page| model.check(&heap, page, low.into()));
                model.runs.push((first, pages));
            }
            // All pages of a run, or only the ends, as for a span whose inner pages are never looked up.
            (4..=9, Some(index)) => {
                let (first, pages) = model.runs[index];
                let from = usize::from(high) % pages;
                let count = usize::from(middle) % (pages - from) + 1;
                let span = if low < 32 { ptr::null_mut() } else { value(low).cast() };
                model.set(&heap, first + from, count, span);
                for page in [first, first + from, first + from + count - 1, first + pages - 1] {
                    model.check(&heap, page, usize::from(high) << 5);
                }
            }
            (10..=12, Some(index)) => model.free(&heap, index),
            (13, _) => arm(heap.os(), number, high),
            (14, _) => drop(heap.release_free(number.into())),
            _ => {}
        }
        let address = address(shape, [number, high, middle, low]);
        model.check(&heap, address / PAGE_BYTES, address % PAGE_BYTES);
    }
    heap.os().heal();
    for page in model.set.keys() {
        model.check(&heap, *page, 0);
        model.check(&heap, page.wrapping_sub(1), PAGE_BYTES - 1);
        model.check(&heap, page.wrapping_add(1), 0);
    }
    while !model.runs.is_empty() {
        model.free(&heap, 0);
    }
    let stats = heap.stats();
    assert_eq!(stats.pages_in_use, stats.metadata_pages);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let mut ground = ground();
    // A map of arenas fails only where the input says so; of the heaps one in eight has whole blocks.
    let os = Faulty::new(ground.shallow_plot().in_blocks(first % 8 < 5 || first >= 224));
    match first % 8 {
        0 => arenas::<Any64>(&os, rest),
        1 => arenas::<Windows64>(&os, rest),
        2 => arenas::<IosArm64>(&os, rest),
        3 => arenas::<Any32>(&os, rest),
        4 => arenas::<Mips32>(&os, rest),
        _ => spans(os, rest),
    }
});
