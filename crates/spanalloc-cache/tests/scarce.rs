//! Caches when memory is short: a small buffer, a budget. `injection.rs` has a system that fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::alloc::Layout;
use std::mem::MaybeUninit;

use common::PackAll;
use proptest::prelude::*;
use spanalloc_cache::Fast;
use spanalloc_classes::Go67;
use spanalloc_os::{Faulty, Fixed, Limited, Mmap, OsSource};
use spanalloc_testkit::amount::{config, config_of, length};
use spanalloc_testkit::layers::{Caches, Heap, Layers, Lists, nothing_left};
use spanalloc_testkit::{Mix, Operation, Replay, Returning, Subject, operations};

fn buffer(bytes: usize) -> Vec<MaybeUninit<u8>> {
    vec![MaybeUninit::new(0xa5); bytes]
}

proptest! {
    #![proptest_config(config())]

    /// Whatever happens in a buffer that is often too small, objects are sound and nothing is lost.
    #[test]
    fn a_small_buffer(
        kilobytes in 0_usize..3000,
        operations in operations(Mix::new().max_size(120_000), length()),
    ) {
        let mut buffer = buffer(kilobytes << 10);
        let result = Layers::<Go67, Fast>::new().scarce().run(Fixed::new(&mut buffer), &operations);
        let summary = result.map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        prop_assert_eq!(summary.allocated, summary.freed);
    }
}

proptest! {
    #![proptest_config(config_of(96))]

    #[test]
    fn a_budget(
        reserved in 0_usize..200,
        committed in 0_usize..3000,
        operations in operations(Mix::new(), length()),
    ) {
        let os = Limited::with_committed(Mmap::new(), reserved << 20, committed << 10);
        let result = Layers::<Go67, PackAll>::new().scarce().run(os, &operations);
        let summary = result.map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        prop_assert_eq!(summary.allocated, summary.freed);
    }
}

/// Allocates objects of one kind until there is no more; returns how many it got.
fn fill<S: Subject>(replay: &mut Replay<S>, layout: Layout) -> usize {
    let before = replay.summary();
    let (size, align) = (layout.size(), layout.align());
    while replay.summary().refused == before.refused {
        replay.apply(&Operation::AllocMany { size, align, more: 255 }).unwrap();
    }
    replay.summary().allocated - before.allocated
}

fn exhaust_and_recover<O: OsSource>(os: O, least_bytes: usize) {
    let heap = Heap::new(Faulty::new(os));
    let central = Lists::<Go67, O>::new(&heap);
    let subject = Caches::<Go67, O, Fast>::new(&heap, &central, 2, true);
    let mut replay = Replay::with_budget(subject, usize::MAX);
    let mut most = Vec::new();
    let kinds = [7, 24, 700, 8192, 30_000, 200_000];
    for round in 0..2 {
        for (kind, size) in kinds.into_iter().enumerate() {
            let layout = Layout::from_size_align(size, 1).unwrap();
            let count = fill(&mut replay, layout);
            if round == 0 {
                assert!(count * size >= least_bytes, "only {count} objects of {size} bytes");
                most.push(count);
            }
            // What one class took comes back for the next one; but pages that became metadata stay
            // that, so the first round may do better.
            assert!(count * 2 >= most[kind], "round {round}: {count} of {}", most[kind]);
            replay.finish().unwrap();
            // A cache keeps a magazine of each class, and with it some pages; an ended one nothing.
            replay.apply(&Operation::Restart { cache: 0 }).unwrap();
            replay.apply(&Operation::Restart { cache: 1 }).unwrap();
            assert_eq!(replay.tally().objects, 0);
        }
    }
    drop(replay);
    nothing_left(&heap).unwrap();
}

#[test]
fn an_exhausted_buffer_works_again_after_frees() {
    let mut buffer = buffer(2 << 20);
    exhaust_and_recover(Fixed::new(&mut buffer), 256 << 10);
}

#[test]
fn an_exhausted_budget_works_again_after_frees() {
    // SAFETY: the heap and everything above it are gone before the source is.
    let os = unsafe { Returning::new(Mmap::new()) };
    exhaust_and_recover(Limited::with_committed(os, 256 << 20, 2 << 20), 256 << 10);
}
