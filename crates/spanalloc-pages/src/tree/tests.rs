//! The tree against a list of all free runs, which is searched from front to back.

use super::*;
use crate::bitmap::Bits;

extern crate std;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use spanalloc_os::{Any64, Mips32};

/// Pages of a chunk.
const PAGES: u64 = CHUNK_PAGES as u64;

/// A small generator of numbers that are the same in every run.
fn noise(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// A tree, and the free pages of each of its chunks.
struct Pair<G> {
    tree: Tree<G>,
    chunks: BTreeMap<u64, (Bits, *mut Node)>,
}

impl<G: Geometry> Pair<G> {
    fn new() -> Self {
        Self { tree: Tree::new(), chunks: BTreeMap::new() }
    }

    /// The leaf of a chunk; a new chunk has no free pages.
    fn leaf(&mut self, chunk: u64) -> *mut Node {
        let new_node = |layout: Layout| {
            assert_eq!(layout, Layout::new::<Node>());
            let node = Node {
                free: [Summary::default(); FANOUT],
                parent: ptr::null_mut(),
                some: 0,
                children: [ptr::null_mut(); FANOUT],
            };
            Some(NonNull::from(Box::leak(Box::new(node))).cast())
        };
        let leaf = self.tree.insert(chunk, new_node).unwrap();
        self.chunks.entry(chunk).or_insert((Bits::default(), leaf)).1
    }

    /// Says which pages are free in the chunks from `first` on.
    fn set(&mut self, first: u64, free: &[Bits]) {
        let last = first + free.len() as u64 - 1;
        for (chunk, free) in (first..).zip(free) {
            let leaf = self.leaf(chunk);
            self.chunks.insert(chunk, (*free, leaf));
            let summary = Summary::of_chunk(free);
            // SAFETY: the leaf is that of the chunk, and the chunks come in their order.
            unsafe {
                if first == last {
                    self.tree.set(leaf, chunk, summary);
                } else {
                    self.tree.set_up_to(leaf, chunk, last, summary);
                }
            }
        }
    }

    /// Every longest free run, as its first page and the page behind it, in their order.
    fn free_runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = vec![];
        for (chunk, (free, _)) in &self.chunks {
            let mut from = 0;
            while let Some(begin) = free.next(from, true) {
                let end = free.next(begin, false).unwrap_or(CHUNK_PAGES);
                let (low, high) = (chunk * PAGES + begin as u64, chunk * PAGES + end as u64);
                match runs.last_mut() {
                    Some(before) if before.1 == low => before.1 = high,
                    _ => runs.push((low, high)),
                }
                from = end;
            }
        }
        runs
    }

    /// Searches for `pages` pages, and checks what is found and what is remembered of it.
    fn check_fit(&mut self, runs: &[(u64, u64)], pages: u64) {
        let expected = runs.iter().find(|run| run.1 - run.0 >= pages).map(|run| run.0);
        let before = self.tree.hint();
        let fit = self.tree.first_fit(pages);
        match fit {
            None => assert_eq!(expected, None, "{pages} pages"),
            Some(Fit::Page(page)) => assert_eq!(expected, Some(page), "{pages} pages"),
            Some(Fit::Chunk(chunk)) => {
                assert_eq!(expected.map(|page| page / PAGES), Some(chunk), "{pages} pages");
                let inside = self.chunks[&chunk].0.find(pages as usize);
                assert_eq!(inside.map(|at| chunk * PAGES + at as u64), expected, "{pages} pages");
            }
        }
        let hint = self.tree.hint();
        assert!(hint >= before, "a search makes the hint better only");
        if let Some((lowest, _)) = runs.first() {
            assert!(hint <= lowest / PAGES, "a free page below the hint");
            if fit == Some(Fit::Chunk(lowest / PAGES)) {
                assert_eq!(hint, lowest / PAGES, "the lowest free page was come by");
            }
        }
    }

    fn check_last_free(&self, limit: u64) {
        let free = |entry: &(&u64, &(Bits, *mut Node))| entry.1.0 != Bits::default();
        let expected = self.chunks.range(..limit).rfind(free).map(|(chunk, _)| *chunk);
        assert_eq!(self.tree.last_free_below(limit), expected, "below {limit}");
    }
}

/// A chunk as heaps have them: full, empty, free at an end or both, or in between.
fn some_chunk(seed: &mut u64) -> Bits {
    let mut free = Bits::default();
    let (from, count) = (noise(seed) as usize % 300 + 1, noise(seed) as usize % 200 + 1);
    match noise(seed) % 8 {
        0..3 => {}
        3 => free.set(0, CHUNK_PAGES),
        4 => free.set(0, count),
        5 => free.set(CHUNK_PAGES - count, count),
        6 => free.set(from, count),
        _ => {
            free.set(0, from);
            free.set(CHUNK_PAGES - count.min(150), count.min(150));
        }
    }
    free
}

#[test]
fn the_lowest_fit_and_the_highest_free_chunk_agree_with_a_list() {
    let all = 1 << 9;
    for round in 1..12_u64 {
        let seed = &mut round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut pair = Pair::<Mips32>::new();
        // From few chunks far from each other to nearly all.
        for _ in 0..round * 8 {
            let count = if noise(seed) % 3 == 0 { 1 } else { noise(seed) % (round * 2) + 1 };
            let first = noise(seed) % (all - count + 1);
            let same = some_chunk(seed);
            let mix = noise(seed) % 2 == 0;
            let free: Vec<_> =
                (0..count).map(|_| if mix { some_chunk(seed) } else { same }).collect();
            pair.set(first, &free);

            let runs = pair.free_runs();
            for &(low, high) in &runs {
                pair.check_fit(&runs, high - low);
                pair.check_fit(&runs, high - low + 1);
            }
            for pages in [1, 2, 64, 511, 512, 513, 1024, 4096, 4097, all * PAGES] {
                pair.check_fit(&runs, pages);
            }
            for limit in [0, 1, first, first + 1, first + count, all - 1, all, all + 1, u64::MAX] {
                pair.check_last_free(limit);
            }
            pair.check_last_free(noise(seed) % all);
        }
    }
}

#[test]
fn a_chunk_that_loses_its_pages_is_forgotten_at_every_level() {
    let mut all = Bits::default();
    all.set(0, CHUNK_PAGES);
    for chunk in [0, 7, 8, 63, 64, 511] {
        let mut pair = Pair::<Mips32>::new();
        pair.set(chunk, &[all]);
        assert_eq!(pair.tree.first_fit(PAGES), Some(Fit::Page(chunk * PAGES)));
        assert_eq!(pair.tree.hint(), chunk);
        pair.set(chunk, &[Bits::default()]);
        assert_eq!(pair.tree.first_fit(1), None);
        assert_eq!(pair.tree.last_free_below(u64::MAX), None);
    }
}

#[test]
fn runs_longer_than_a_summary_can_say_are_found() {
    let mut all = Bits::default();
    all.set(0, CHUNK_PAGES);
    let (mut upper, mut lower) = (Bits::default(), Bits::default());
    upper.set(CHUNK_PAGES - 3, 3);
    lower.set(0, 5);
    let saturated = SATURATED / PAGES;
    let mut pair = Pair::<Any64>::new();
    // Four runs, of which the second is just as long as a summary can say, and the others longer. They
    // begin and end in the middle of nodes, but for the last, which fills some to the end.
    for (first, chunks) in [
        (1000, saturated + 10),
        (20_000, saturated - 1),
        (40_001, 2 * saturated + 77),
        ((1 << 20) + 3, 4 * saturated + 9),
    ] {
        let mut free = vec![all; chunks as usize];
        free.insert(0, upper);
        free.push(lower);
        pair.set(first, &free);
    }
    let runs = pair.free_runs();
    assert_eq!(runs.len(), 4);
    for &(low, high) in &runs {
        for pages in [high - low - 1, high - low, high - low + 1] {
            pair.check_fit(&runs, pages);
        }
    }
    for pages in [SATURATED - 1, SATURATED, SATURATED + 1, 2 * SATURATED] {
        pair.check_fit(&runs, pages);
    }
    // A page in the middle of a long run cuts it in two.
    let mut hole = all;
    hole.clear(100, 1);
    pair.set(40_001 + saturated + 20, &[hole]);
    let runs = pair.free_runs();
    for &(low, high) in &runs {
        pair.check_fit(&runs, high - low);
        pair.check_fit(&runs, high - low + 1);
    }
    for limit in [1 << 20, 40_001, 40_002, 40_000, 20_000, 1000, 1001] {
        pair.check_last_free(limit);
    }
}

#[test]
fn a_tree_without_memory_for_its_nodes_has_no_leaf() {
    let mut tree = Tree::<Mips32>::new();
    assert_eq!(tree.insert(5, |_| None), None);
    assert_eq!(tree.first_fit(1), None);
    assert_eq!(tree.first_fit(SATURATED + 1), None);
    assert_eq!(tree.last_free_below(u64::MAX), None);
}
