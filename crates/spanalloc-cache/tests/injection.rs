//! Every call to the system fails in turn, under all layers: the first, the second, and so on until nothing
//! fails because nothing calls any more. Each fails alone, with those that follow it, and from then on.
//!
//! Whatever fails, requests are refused or served with less, no promise to the program is broken, and once
//! the system works again so does everything, and every page and byte is accounted for.
//!
//! `SPANALLOC_TEST_FAULTS=all` lifts the bound on the number of the call that fails first.
#![cfg(target_os = "linux")]
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

use common::PackAll;
use spanalloc_cache::{Checked, Fast, Policy, ThreadCache};
use spanalloc_classes::Go67;
use spanalloc_os::{Counted, Faulty, Mmap, OsSource, Verb};
use spanalloc_pages::{HugePages, Pages};
use spanalloc_testkit::layers::{Caches, Heap, Lists, nothing_left};
use spanalloc_testkit::{Operation, Replay, Returning};

const KB: usize = 1 << 10;
const MB: usize = 1 << 20;

/// The most bytes that the scenario moves at once.
const LARGEST_MOVE: usize = 5 * MB;

/// How many calls fail, from the one that fails first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    Once,
    Burst,
    Forever,
}

const BURST: usize = 5;

/// Times that the scenario does what it does.
const ROUNDS: u8 = 3;

/// A fault that is planned.
#[derive(Clone, Copy, Debug)]
struct Fault {
    verb: Verb,
    fails: Fails,
    /// Which call of the verb fails first.
    nth: usize,
    /// Calls that fail for good from some call on as well.
    with: Option<(Verb, usize)>,
}

impl Fault {
    fn plan<O>(self, os: &Faulty<O>) {
        match self.fails {
            Fails::Once => os.fail_nth(self.verb, self.nth),
            Fails::Burst => os.fail_calls(self.verb, self.nth, BURST),
            Fails::Forever => os.fail_from(self.verb, self.nth),
        }
        if let Some((verb, nth)) = self.with {
            os.fail_from(verb, nth);
        }
    }
}

/// A little of everything, such that every kind of call is made again and again.
fn scenario() -> Vec<Operation> {
    use Operation::{
        Advance, Alloc, AllocMany, AllocZeroed, Free, FreeMany, FreeRemote, Realloc, Release,
        Restart, Switch,
    };
    // Three that come to lie in the place of one, so that each has the next one behind it, wherever the system puts
    // arenas: it moves, and once to where memory is not yet.
    let mut all = vec![Alloc { size: 13 * MB, align: 8 }, Free { index: 0 }];
    all.push(AllocMany { size: 4 * MB + 100, align: 8, more: 2 });
    all.extend([0, 1].map(|index| Realloc { index, size: LARGEST_MOVE - 10 * KB }));
    all.extend([Free { index: 0 }, Release { most: 200 }, FreeMany { index: 0, more: 2 }]);
    for round in 0..ROUNDS {
        for (size, more) in [(3, 40), (16, 70), (112, 70), (1000, 15), (9000, 7), (70_000, 2)] {
            // Other classes each time, and more objects.
            let (size, more) = (size + size * usize::from(round) / 3, more + 20 * round);
            all.push(AllocMany { size, align: 8, more });
            all.push(Switch { cache: round.into() });
        }
        // With guards, if the policy has some: resized, moved, freed and had again.
        all.push(AllocMany { size: 200 * KB, align: 8, more: 6 });
        for index in 0..8 {
            let size = 150 * KB + (index as usize % 4) * 90 * KB;
            all.push(Realloc { index: u32::MAX / 9 * index, size });
        }
        all.push(AllocZeroed { size: 150_000, align: 1 << 16 });
        all.extend([AllocZeroed { size: 700 * KB, align: 8 }; 3]);
        all.push(FreeMany { index: 3, more: 30 });
        all.extend([AllocZeroed { size: 600 * KB, align: 8 }; 3]);
        // Each takes an arena of its own, its metadata and a commit.
        all.push(AllocMany { size: 10, align: 1 << 26, more: 3 });
        for index in 0..8 {
            all.push(Realloc { index: index * 31, size: 40_000 });
            all.push(FreeRemote { index: index * 17 });
        }
        all.push(Alloc { size: 3 * MB, align: 8 });
        all.push(Restart { cache: u16::from(round + 1) });
        all.push(FreeMany { index: u32::from(round) * 50, more: 150 });
        all.push(Advance { microseconds: 3_000_000 });
        all.push(FreeMany { index: 7, more: 60 });
        // Blocks, and then pieces of them.
        all.extend([Release { most: 3 }; 6]);
        all.push(Release { most: 400 });
    }
    all
}

/// What came of a run of the scenario.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// Calls that failed.
    failures: usize,
    /// Requests that were refused.
    refused: usize,
}

/// Runs the scenario over a source with a fault, heals it, goes on, and looks at what is left.
fn with_fault<P: Policy>(huge: HugePages, fault: Fault) -> Outcome {
    let what = format!("{fault:?}");
    // SAFETY: the heap and everything above it are gone before the source is.
    let heap = Heap::new(Faulty::new(Counted::new(unsafe { Returning::new(Mmap::new()) })));
    heap.set_huge_pages(huge);
    let (os, central) = (heap.os(), Lists::<Go67, _>::new(&heap));
    let subject = Caches::<Go67, _, P>::new(&heap, &central, 3, true);
    let mut replay = Replay::with_budget(subject, 200 << 20);
    fault.plan(os);
    let operations = scenario();
    for operation in &operations {
        replay.apply(operation).unwrap_or_else(|failure| panic!("{what}: {failure}"));
    }
    let outcome = Outcome { failures: os.failures(fault.verb), refused: replay.summary().refused };
    os.heal();
    // Healed, nothing is refused any more.
    for operation in &operations[..operations.len() / 3] {
        replay.apply(operation).unwrap_or_else(|failure| panic!("{what}: {failure}"));
    }
    assert_eq!(replay.summary().refused, outcome.refused, "{what}: healed");
    replay.finish().unwrap_or_else(|failure| panic!("{what}: {failure}"));
    assert_eq!(replay.summary().allocated, replay.summary().freed, "{what}");
    drop(replay);
    nothing_is_left(&heap, &what);
    outcome
}

/// Every page is free but for those that had to become metadata, and the heap and the source mean the same
/// by what is reserved.
fn nothing_is_left<O: OsSource>(heap: &Heap<Counted<O>>, what: &str) {
    let os = heap.os();
    nothing_left(heap).unwrap_or_else(|left| panic!("{what}: {left}"));
    let stats = heap.stats();
    assert_eq!(stats.guard_pages, 0, "{what}: {stats:?}");
    // What became metadata counts twice.
    let known = stats.reserved + stats.metadata_reserved - stats.metadata_pages * 8192;
    let reserved = os.inner().reserved();
    // A refused move costs what it should have come to. A range that was refused to be released, while
    // another one is kept for later, costs that.
    let lost = os.failures(Verb::Relocate) * LARGEST_MOVE;
    let unreleased = if os.failures(Verb::Release) > 0 { usize::MAX / 2 } else { 0 };
    assert!(
        known <= reserved && reserved - known <= lost + unreleased,
        "{what}: {reserved} bytes are reserved, and {known} known: {stats:?}"
    );
}

/// Calls that fail first, by number.
fn calls() -> impl Iterator<Item = usize> {
    let most = match std::env::var_os("SPANALLOC_TEST_FAULTS") {
        Some(_) => usize::MAX,
        None if cfg!(debug_assertions) => 4,
        None => 64,
    };
    1..=most
}

/// The highest number of a call that fails first where others fail for good.
const MOST_OF_TWO: usize = 64;

/// The most requests that one call which fails may cost.
const MOST_REFUSED: usize = 1;

/// What came of the faults of one verb.
#[derive(Debug, Default)]
struct Summary {
    runs: usize,
    /// The highest number of a call that failed first.
    last: usize,
    failures: usize,
    /// The most requests that were refused for one call that failed.
    worst: usize,
}

impl Summary {
    /// Runs the scenario with each fault of a verb, up to the first that does not come to pass.
    fn fill<P: Policy>(&mut self, huge: HugePages, verb: Verb, with: Option<(Verb, usize)>) {
        for fails in [Fails::Once, Fails::Burst, Fails::Forever] {
            // A run in which other calls fail for good tries again and again.
            let most = if with.is_some() { MOST_OF_TWO } else { usize::MAX };
            for nth in calls().take_while(|nth| *nth <= most) {
                let fault = Fault { verb, fails, nth, with };
                let outcome = with_fault::<P>(huge, fault);
                self.runs += 1;
                if outcome.failures == 0 {
                    break;
                }
                self.last = self.last.max(nth);
                self.failures += outcome.failures;
                if fails == Fails::Once {
                    self.worst = self.worst.max(outcome.refused);
                }
                // Only memory that is missing may be missed.
                let needed = match verb {
                    // A large object that grows loses its guard before.
                    Verb::Reserve | Verb::Commit | Verb::Unguard => true,
                    _ => with.is_some(),
                };
                assert!(needed || outcome.refused == 0, "{fault:?}: {outcome:?}");
            }
        }
    }
}

fn every_call_fails<P: Policy>(huge: HugePages, never: &[Verb]) {
    for verb in Verb::ALL {
        let mut summary = Summary::default();
        if verb == Verb::Release {
            // Address space is only released that could not be used, for want of memory. What cannot be is lost:
            // of 32 bits that is soon all.
            if usize::BITS < 64 {
                continue;
            }
            for nth in [1, 4] {
                summary.fill::<P>(huge, verb, Some((Verb::Commit, nth)));
            }
        } else {
            summary.fill::<P>(huge, verb, None);
            assert!(summary.worst <= MOST_REFUSED, "{verb:?}: {summary:?}");
        }
        println!("{verb:?}: {summary:?}");
        assert_eq!(summary.failures == 0, never.contains(&verb), "{verb:?}");
    }
}

#[test]
fn under_a_trusting_cache() {
    every_call_fails::<Fast>(HugePages::Advise, &[Verb::Guard, Verb::Unguard]);
}

#[test]
fn under_a_packing_cache_with_huge_pages() {
    every_call_fails::<PackAll>(HugePages::Always, &[Verb::Guard, Verb::Unguard]);
}

#[test]
fn under_a_checking_cache_with_guards() {
    every_call_fails::<Checked>(HugePages::Advise, &[]);
}

#[test]
fn a_guard_that_the_system_leaves_waits_for_the_next() {
    // SAFETY: the heap and everything above it are gone before the source is.
    let heap = Heap::new(Faulty::new(unsafe { Returning::new(Mmap::new()) }));
    let (os, central) = (heap.os(), Lists::<Go67, _>::new(&heap));
    let mut cache = ThreadCache::<_, Checked>::with_policy(&central);
    // Too large to be kept by the thread.
    let layout = Layout::from_size_align(3 * MB, 8).unwrap();
    let objects: Vec<_> = (0..4).map(|_| cache.alloc(layout).unwrap()).collect();
    os.fail_calls(Verb::Unguard, 1, 4);
    let mut guards = Vec::new();
    for (object, left) in objects.into_iter().zip([3, 2, 1, 0]) {
        // SAFETY: the object is live and of this layout.
        unsafe { cache.free(object, layout) };
        let snapshot = cache.snapshot().unwrap();
        assert!(snapshot.adds_up(), "{:?}", snapshot.pages);
        assert_eq!((snapshot.large_objects, snapshot.live_objects()), (left, left));
        guards.push((snapshot.pages.guard_pages, snapshot.cached_pages));
    }
    // All their other pages are free.
    assert_eq!(guards, [(4, 1), (4, 2), (4, 3), (4, 4)]);
    let object = cache.alloc(layout).unwrap();
    // SAFETY: as above.
    unsafe { cache.free(object, layout) };
    assert_eq!(heap.stats().guard_pages, 0);
    drop(cache);
    nothing_left(&heap).unwrap();
}
