//! What goes back to the system of its own accord, and what does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/mod.rs"]
mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Place, Simulated, Watched};
use spanalloc_os::{Faulty, Native, OsSource, Verb};
use spanalloc_pages::{Clock, LEAST_KEPT, PAGE_BYTES, PageHeap, Pages, Run};

type Heap = PageHeap<Faulty<Watched<Simulated>>>;

fn heap() -> Heap {
    PageHeap::new(Faulty::new(Watched::new(Simulated::new::<Native>(Place::Low, 4096))))
}

fn free(heap: &Heap, run: Run) {
    // SAFETY: the run is handed out, unused, and has no span.
    unsafe { heap.free(run.address, run.pages) }.unwrap();
}

fn ready(heap: &Heap, run: Run) -> bool {
    heap.os().inner().is_ready(run.address, run.pages)
}

#[derive(Debug)]
struct At(u64);

impl Clock for At {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Lets a heap do all it would, from a time on at which no peak is left.
fn scavenge_long_after(heap: &Heap) {
    heap.scavenge(&At(0), 1);
    for second in 100..200 {
        while heap.scavenge(&At(second * 1000), 4).is_zero() {}
    }
}

/// Blocks of 2 MB, the first of them aligned.
fn blocks<const N: usize>(heap: &Heap) -> [Run; N] {
    let all = heap.alloc(256 * N, 256).unwrap();
    std::array::from_fn(|at| Run {
        address: all.address + at * 256 * PAGE_BYTES,
        pages: 256,
        zeroed: false,
    })
}

#[test]
fn what_is_kept_is_little_and_lies_low() {
    let heap = heap();
    let blocks: [Run; 32] = blocks(&heap);
    blocks.iter().for_each(|block| free(&heap, *block));
    scavenge_long_after(&heap);
    assert_eq!(heap.stats().committed, LEAST_KEPT * PAGE_BYTES);
    assert!(ready(&heap, blocks[0]) && ready(&heap, blocks[1]));
    let stats = heap.stats();
    assert_eq!(stats.returned, stats.reserved - stats.committed);
    assert_eq!(stats.returned_in_all, (30 * 256 * PAGE_BYTES) as u64);
}

#[test]
fn whole_blocks_go_before_broken_ones() {
    let heap = heap();
    let blocks: [Run; 8] = blocks(&heap);
    // The upper half of the highest block stays in use.
    free(&heap, Run { pages: 128, ..blocks[7] });
    free(&heap, blocks[2]);
    free(&heap, blocks[4]);
    let broken = Run { pages: 128, ..blocks[7] };
    assert_eq!(heap.release_free(1), 256);
    assert!(!ready(&heap, blocks[4]) && ready(&heap, blocks[2]) && ready(&heap, broken));
    assert_eq!(heap.release_free(1), 256);
    assert!(!ready(&heap, blocks[2]) && ready(&heap, broken));
    assert_eq!(heap.release_free(usize::MAX), 128);
    assert!(!heap.os().inner().is_ready(broken.address, 1));
}

/// Part of a request becomes Ready before the rest is refused. That may complete a block of free pages.
#[test]
fn a_block_that_a_refused_request_completes_goes_as_a_whole() {
    let heap = heap();
    let blocks: [Run; 2] = blocks(&heap);
    blocks.iter().for_each(|block| free(&heap, *block));
    assert_eq!(heap.release_free(usize::MAX), 512);
    // Ten pages of each, without the blocks they lie in.
    let few = [1, 256].map(|align| {
        heap.os().fail_nth(Verb::Commit, 1);
        heap.alloc(10, align).unwrap()
    });
    assert_eq!(few.map(|run| run.address), [blocks[0].address, blocks[1].address]);
    few.iter().for_each(|run| free(&heap, *run));
    assert_eq!(heap.release_free(1), 1, "no block is whole");
    heap.os().fail_from(Verb::Commit, 2);
    assert!(heap.alloc(300, 1).is_none(), "the second block is refused");
    assert!(ready(&heap, blocks[0]));
    assert_eq!(heap.release_free(1), 256);
    assert!(!ready(&heap, blocks[0]));
}

#[test]
fn no_huge_page_is_broken_for_a_few_kilobytes() {
    let heap = heap();
    let blocks: [Run; 16] = blocks(&heap);
    // 31 pages of each of the upper ones, and 32 of one.
    for block in &blocks[2..] {
        free(&heap, Run { pages: 31, ..*block });
    }
    let worth = blocks[5];
    let one_more = Run { address: worth.address + 40 * PAGE_BYTES, pages: 1, zeroed: false };
    free(&heap, one_more);
    // So that there is a reason to give back: a peak far above the goal.
    let before = heap.stats();
    let more: [Run; 32] = self::blocks(&heap);
    more.iter().for_each(|block| free(&heap, *block));
    heap.release_free(32 * 256);
    assert_eq!(heap.stats().committed, before.committed, "the blocks went first");
    for block in &blocks[8..] {
        free(&heap, Run { address: block.address + 31 * PAGE_BYTES, pages: 225, zeroed: false });
    }
    // Taken again, all but the few pages.
    let again: Vec<Run> = (8..16).map(|_| heap.alloc(225, 1).unwrap()).collect();
    assert_eq!(again.len(), 8);
    scavenge_long_after(&heap);
    for (index, block) in blocks.iter().enumerate().skip(2).take(6) {
        let few = Run { pages: 31, ..*block };
        assert!(ready(&heap, few) || index == 5, "block {index}");
    }
}

#[test]
fn few_pages_of_each_of_many_blocks_stay_until_they_are_more() {
    let heap = heap();
    let blocks: [Run; 64] = blocks(&heap);
    let at = |block: &Run, page: usize, pages| {
        free(&heap, Run { address: block.address + page * PAGE_BYTES, pages, ..*block });
    };
    blocks.iter().for_each(|block| at(block, 0, 31));
    let before = heap.stats().committed;
    // A ninth more than what is in use, and a tenth is kept.
    scavenge_long_after(&heap);
    assert_eq!(heap.stats().committed, before);
    blocks.iter().for_each(|block| at(block, 100, 1));
    while heap.scavenge(&At(1_000_000), 4).is_zero() {}
    assert!(heap.stats().committed < before);
}

#[test]
fn threads_that_free_give_back_what_is_due() {
    let heap = heap();
    let set = |time: u64| heap.os().inner().time.store(time, Ordering::Relaxed);
    set(1);
    let blocks: [Run; 64] = blocks(&heap);
    let work = || {
        // Enough is freed that somebody looks.
        let run = heap.alloc(256, 1).unwrap();
        free(&heap, run);
        heap.tend();
    };
    blocks.iter().for_each(|block| free(&heap, *block));
    heap.tend();
    work();
    assert_eq!(heap.stats().returned_in_all, 0, "the peak was just now");
    for time in 1..2000 {
        set(time * 100);
        work();
    }
    let kept = heap.stats().committed / PAGE_BYTES;
    assert!(kept <= LEAST_KEPT + 2 * 256 + 26, "{kept} pages");

    let again: [Run; 64] = self::blocks(&heap);
    again.iter().for_each(|block| free(&heap, *block));
    heap.set_attended(true);
    let before = heap.stats().returned_in_all;
    for time in 2001..3000 {
        set(time * 100);
        work();
    }
    assert_eq!(heap.stats().returned_in_all, before, "somebody else looks after the heap");
}

#[test]
fn a_source_without_a_clock_gives_back_on_demand_only() {
    let heap = heap();
    assert_eq!(heap.os().now(), None);
    let blocks: [Run; 64] = blocks(&heap);
    for block in blocks {
        free(&heap, block);
        heap.tend();
    }
    assert_eq!(heap.stats().returned_in_all, 0);
    assert_eq!(heap.release_free(usize::MAX), 64 * 256);
}

#[test]
fn what_the_system_refuses_stays_and_is_tried_again() {
    for nth in 1..40 {
        let heap = heap();
        let blocks: [Run; 32] = blocks(&heap);
        blocks.iter().for_each(|block| free(&heap, *block));
        let before = heap.stats();
        heap.os().fail_from(Verb::Decommit, nth);
        scavenge_long_after(&heap);
        let given = (nth - 1).min(30);
        let stats = heap.stats();
        assert_eq!(stats.committed, before.committed - given * 256 * PAGE_BYTES);
        assert_eq!(stats.committed / PAGE_BYTES, heap.os().inner().ready_pages());
        assert_eq!(stats.returned_in_all, (given * 256 * PAGE_BYTES) as u64);
        assert_eq!((stats.pages_in_use, stats.pages_free), (0, before.pages_free));
        heap.os().heal();
        for second in 1000..1100 {
            while heap.scavenge(&At(second * 1000), 4).is_zero() {}
        }
        assert_eq!(heap.stats().committed, LEAST_KEPT * PAGE_BYTES);
    }
}

#[test]
fn memory_that_others_need_between_pieces_in_use_is_kept() {
    let heap = heap();
    let blocks: [Run; 32] = blocks(&heap);
    // Half of each is free, but no request fits in there.
    for block in &blocks {
        free(&heap, Run { pages: 128, ..*block });
    }
    heap.scavenge(&At(0), 4);
    let runs: Vec<Run> = (0..16).map(|_| heap.alloc(200, 1).unwrap()).collect();
    let before = heap.stats();
    let (in_use, ready) = (before.pages_in_use, before.committed / PAGE_BYTES);
    assert!(ready > in_use + in_use / 10 + 2000, "{in_use} of {ready} pages are in use");
    heap.scavenge(&At(1), 100);
    assert_eq!(heap.stats().committed, before.committed, "it would be needed again at once");
    for second in 1..100 {
        heap.scavenge(&At(second * 1000), 100);
    }
    assert!(heap.stats().committed < before.committed, "it is not needed for ever");
    runs.into_iter().for_each(|run| free(&heap, run));
}

#[test]
fn a_single_page_goes_back_wherever_it_lies() {
    let heap = heap();
    let all = heap.alloc(4 * 512, 512).unwrap();
    for page in [0, 1, 255, 256, 511, 512, 3 * 512, 4 * 512 - 1] {
        let address = all.address + page * PAGE_BYTES;
        free(&heap, Run { address, pages: 1, ..all });
        assert_eq!(heap.release_free(usize::MAX), 1, "page {page}");
    }
}

#[test]
fn what_went_back_becomes_ready_again_and_nothing_else() {
    let heap = heap();
    let run = heap.alloc(256, 256).unwrap();
    let committed = heap.stats().committed;
    free(&heap, Run { pages: 100, ..run });
    assert_eq!(heap.release_free(usize::MAX), 100);
    assert_eq!(heap.alloc(100, 1), Some(Run { pages: 100, zeroed: true, ..run }));
    assert_eq!(heap.stats().committed, committed);
}

#[test]
fn what_lies_below_chunks_in_use_goes_back() {
    let heap = heap();
    let (low, high) = (heap.alloc(512, 512).unwrap(), heap.alloc(2 * 512, 512).unwrap());
    free(&heap, high);
    assert_eq!(heap.alloc(2 * 512, 512).unwrap().address, high.address);
    free(&heap, low);
    assert_eq!(heap.release_free(usize::MAX), 512);
}

#[test]
fn pages_of_the_system_may_be_as_large_as_a_chunk() {
    let source = Simulated::new::<Native>(Place::Low, 512 * PAGE_BYTES);
    let heap: Heap = PageHeap::new(Faulty::new(Watched::new(source)));
    let run = heap.alloc(512, 512).unwrap();
    free(&heap, run);
    assert_eq!(heap.release_free(usize::MAX), 512);
}
