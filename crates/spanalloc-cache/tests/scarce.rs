//! Caches when memory is short: a small buffer, a budget, a system that fails at every Nth call.
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
use spanalloc_os::{Faulty, Fixed, Limited, Mmap, OsSource, Verb};
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

/// Operations that come to every kind of call again and again.
fn scenario() -> Vec<Operation> {
    let mut operations = Vec::new();
    for round in 0..2_u8 {
        for (size, more) in [(3, 40), (16, 70), (112, 70), (1000, 15), (9000, 7), (70_000, 2)] {
            operations.push(Operation::AllocMany { size, align: 8, more });
            operations.push(Operation::Switch { cache: round.into() });
        }
        operations.push(Operation::AllocZeroed { size: 150_000, align: 1 << 16 });
        // Each takes an arena of its own, its metadata and a commit.
        operations.push(Operation::AllocMany { size: 10, align: 1 << 26, more: 16 });
        for index in 0..8 {
            operations.push(Operation::Realloc { index: index * 31, size: 40_000 });
            operations.push(Operation::FreeRemote { index: index * 17 });
        }
        operations.push(Operation::Restart { cache: u16::from(round) + 1 });
        operations.push(Operation::FreeMany { index: u32::from(round) * 50, more: 150 });
        operations.push(Operation::FreeMany { index: 7, more: 60 });
        // Blocks, and then pieces of them.
        operations.extend([Operation::Release { most: 3 }; 30]);
        operations.push(Operation::Release { most: 400 });
    }
    operations
}

/// Runs the scenario over a source where calls of `verb` fail from the `nth` on, `times` of them,
/// from the start or from its middle. Returns how many failed.
fn with_faults(verb: Verb, nth: usize, forever: bool, late: bool) -> usize {
    // SAFETY: the heap and everything above it are gone before the source is.
    let heap = Heap::new(Faulty::new(unsafe { Returning::new(Mmap::new()) }));
    let (os, central) = (heap.os(), Lists::<Go67, _>::new(&heap));
    let subject = Caches::<Go67, _, Fast>::new(&heap, &central, 3, true);
    let mut replay = Replay::with_budget(subject, 200 << 20);
    let arm = || if forever { os.fail_from(verb, nth) } else { os.fail_nth(verb, nth) };
    let operations = scenario();
    if !late {
        arm();
    }
    for (step, operation) in operations.iter().enumerate() {
        if late && step == operations.len() / 3 {
            arm();
        }
        replay.apply(operation).unwrap();
    }
    let failures = os.failures(verb);
    os.heal();
    // Healed, nothing is refused any more.
    let refused = replay.summary().refused;
    for operation in &operations[..operations.len() / 3] {
        replay.apply(operation).unwrap();
    }
    assert_eq!(replay.summary().refused, refused, "{verb:?} {nth}");
    replay.finish().unwrap();
    drop(replay);
    nothing_left(&heap).unwrap();
    failures
}

#[test]
fn every_call_to_the_system_may_fail() {
    // Nothing in the scenario is large enough to be moved.
    let verbs = [Verb::Reserve, Verb::Commit, Verb::Decommit, Verb::Release];
    let mut failures = [0; 4];
    for (kind, verb) in verbs.into_iter().enumerate() {
        for nth in 1..=64 {
            failures[kind] += with_faults(verb, nth, false, nth % 2 == 0);
            if nth % 4 == 1 {
                failures[kind] += with_faults(verb, nth, true, nth % 8 == 1);
            }
        }
    }
    println!("calls that failed: {failures:?}");
    // Each kind did fail; nothing here makes the heap release address space but failures.
    assert!(failures[..3].iter().all(|&count| count > 20), "{failures:?}");
}
