//! The page heap, with a page cache, against one bool a page.
//!
//! The first byte chooses the arenas, of 64 MB or of 4 MB, and whether the system makes blocks of 2 MB Ready. Four
//! bytes are an operation: which, a number of pages, and what it is done to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanalloc_fuzz::{AUDIT_EVERY, ground};
use spanalloc_os::{Any64, Faulty, Geometry, Mmap, Verb, Windows64};
use spanalloc_pages::{PAGE_BYTES, PageCache, PageError, PageHeap, Pages, Run};
use spanalloc_testkit::Plot;

type Heap<'a, G> = PageHeap<Faulty<Plot<'a, Mmap>>, G>;

/// Pages that may be handed out at once: three arenas of the small ones.
const MOST: usize = 1536;

/// What is known of pages, by page number.
struct Model {
    /// The number of the first page that there can be.
    first: usize,
    /// Whether a page is handed out, from that one on.
    taken: Vec<bool>,
    /// Runs handed out: first page and length.
    runs: Vec<(usize, usize)>,
    pages: usize,
}

/// Whether a page is written to: not all are, as the first touch of a page takes long.
fn is_used(page: usize, first: usize, pages: usize) -> bool {
    page.is_multiple_of(16) || page == first || page == first + pages - 1
}

impl Model {
    /// Notes who has a page; returns whether it was handed out.
    fn set(&mut self, page: usize, taken: bool) -> bool {
        let Some(known) = page.checked_sub(self.first).and_then(|at| self.taken.get_mut(at)) else {
            panic!("page {page:#x} is nobody's");
        };
        std::mem::replace(known, taken)
    }

    fn hand_out(&mut self, run: Run, pages: usize) {
        assert_eq!((run.pages, run.address % PAGE_BYTES), (pages, 0));
        let first = run.address / PAGE_BYTES;
        for page in first..first + pages {
            assert!(!self.set(page, true), "page {page:#x} was handed out twice");
            if !is_used(page, first, pages) {
                continue;
            }
            let word: *mut u64 = std::ptr::with_exposed_provenance_mut(page * PAGE_BYTES);
            // SAFETY: the run is Ready and ours.
            unsafe {
                assert!(!run.zeroed || (word.read() == 0 && word.add(1000).read() == 0));
                word.write(page as u64);
                word.add(1000).write(!0);
            }
        }
        self.pages += pages;
    }

    fn take_back(&mut self, first: usize, pages: usize) {
        for page in first..first + pages {
            assert!(self.set(page, false));
            if !page.is_multiple_of(16) {
                continue;
            }
            let word: *const u64 = std::ptr::with_exposed_provenance(page * PAGE_BYTES);
            // SAFETY: the page was still handed out.
            assert_eq!(unsafe { word.read() }, page as u64, "somebody wrote to {page:#x}");
        }
        self.pages -= pages;
    }
}

fn step<G: Geometry>(heap: &Heap<'_, G>, cache: &PageCache, model: &mut Model, bytes: [u8; 4]) {
    let [kind, size, low, high] = bytes;
    let pages = match size {
        0..=239 => usize::from(size) % 70 + 1,
        _ => (usize::from(size) - 239) * 45,
    };
    let which = usize::from(u16::from_le_bytes([low, high]));
    let chosen = which.checked_rem(model.runs.len());
    match kind % 16 {
        0..=3 if model.pages + pages <= MOST => {
            let align = if low < 208 { 1 } else { 1 << (low % 14) };
            let Some(run) = heap.alloc(pages, align) else { return };
            assert_eq!(run.address / PAGE_BYTES % align, 0);
            model.hand_out(run, pages);
            model.runs.push((run.address / PAGE_BYTES, pages));
        }
        4..=6 => {
            // SAFETY: one thread, one heap.
            let Some(run) = (unsafe { heap.alloc_cached(cache, pages % 20 + 1) }) else { return };
            model.hand_out(run, pages % 20 + 1);
            model.runs.push((run.address / PAGE_BYTES, pages % 20 + 1));
        }
        7..=9 => {
            let Some(index) = chosen else { return };
            let (first, length) = model.runs.swap_remove(index);
            // A part of it, or all.
            let count = if size.is_multiple_of(2) { length } else { pages.min(length) };
            if count < length {
                model.runs.push((first + count, length - count));
            }
            model.take_back(first, count);
            // SAFETY: these pages were handed out and nobody uses them.
            let result = unsafe {
                match kind % 16 {
                    9 => heap.free_cached(cache, first * PAGE_BYTES, count),
                    _ => heap.free(first * PAGE_BYTES, count),
                }
            };
            assert_eq!(result, Ok(()));
            // SAFETY: a wrong free, which must be refused.
            let again = unsafe { heap.free(first * PAGE_BYTES, count) };
            let expected = PageError::AlreadyFree { address: first * PAGE_BYTES, pages: count };
            // Pages in the cache count as handed out for the heap, and are not freed again here.
            if kind % 16 != 9 {
                assert_eq!(again, Err(expected));
            } else if again.is_ok() {
                // SAFETY: what the heap holds now must not be in the cache too.
                unsafe { heap.flush(cache) };
            }
        }
        10 => {
            let Some(index) = chosen else { return };
            let (first, length) = model.runs[index];
            // SAFETY: the run is handed out.
            let more = unsafe { heap.extend(first * PAGE_BYTES, length, pages) };
            if let Some(run) = more {
                assert_eq!(run.address, (first + length) * PAGE_BYTES);
                model.hand_out(run, pages);
                model.runs[index].1 += pages;
            }
        }
        // SAFETY: one thread, one heap.
        11 => unsafe { heap.flush(cache) },
        12 => {
            // A block of 2 MB that comes last goes as a whole.
            assert!(heap.release_free(pages) < pages.max(1) + 256);
        }
        13 => {
            let verb = Verb::ALL[which % 3];
            if size.is_multiple_of(2) {
                heap.os().fail_nth(verb, usize::from(size / 16) + 1);
            } else {
                heap.os().fail_from(verb, usize::from(size / 16) + 1);
            }
        }
        14 => heap.os().heal(),
        15 => {
            // SAFETY: an address that is nobody's, with all bits in play.
            let address = which.rotate_right(u32::from(size % 64)) | 1;
            assert!(unsafe { heap.free(address, 1) }.is_err());
            assert!(heap.span_of(address).is_null());
        }
        _ => {}
    }
}

fn check<G: Geometry>(heap: &Heap<'_, G>, cache: &PageCache, model: &Model) {
    let stats = heap.stats();
    assert_eq!(stats.pages_in_use, model.pages + cache.free_pages() + stats.metadata_pages);
    assert_eq!((stats.pages_in_use + stats.pages_free) * PAGE_BYTES, stats.reserved);
}

fn run<G: Geometry>(blocks: bool, bytes: &[u8]) {
    let mut ground = ground();
    let pages = ground.addresses();
    let (first, count) = (pages.start / PAGE_BYTES, pages.len() / PAGE_BYTES);
    let mut model = Model { first, taken: vec![false; count], runs: Vec::new(), pages: 0 };
    let heap = Heap::<G>::new(Faulty::new(ground.shallow_plot().in_blocks(blocks)));
    let cache = PageCache::new();
    for (number, chunk) in bytes.chunks_exact(4).take(500).enumerate() {
        step(&heap, &cache, &mut model, [chunk[0], chunk[1], chunk[2], chunk[3]]);
        if number % AUDIT_EVERY == AUDIT_EVERY - 1 {
            check(&heap, &cache, &model);
        }
    }
    check(&heap, &cache, &model);
    heap.os().heal();
    for (first, pages) in std::mem::take(&mut model.runs) {
        model.take_back(first, pages);
        // SAFETY: these pages were handed out and nobody uses them.
        assert_eq!(unsafe { heap.free(first * PAGE_BYTES, pages) }, Ok(()));
    }
    // SAFETY: one thread, one heap.
    unsafe { heap.flush(&cache) };
    let stats = heap.stats();
    assert_eq!(stats.pages_in_use, stats.metadata_pages);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let blocks = first >= 224;
    if first % 2 == 0 { run::<Any64>(blocks, rest) } else { run::<Windows64>(blocks, rest) }
});
