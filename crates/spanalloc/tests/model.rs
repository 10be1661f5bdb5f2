//! The facade against the shadow: random operations through `GlobalAlloc`, in a process that runs on
//! the same heap.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;
use spanalloc::Spanalloc;
use spanalloc_testkit::{Global, Mix, operations, run};

#[global_allocator]
static ALLOCATOR: Spanalloc = Spanalloc;

/// One cache: the calling thread's.
const MIX: Mix = Mix::new().caches(1);

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_thread(operations in operations(MIX, 0..200)) {
        let result = run(Global(ALLOCATOR), &operations);
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn new_threads(lists in prop::collection::vec(operations(MIX, 0..100), 2..4)) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = lists
                .iter()
                .map(|list| scope.spawn(move || run(Global(ALLOCATOR), list)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for result in results {
            prop_assert!(result.is_ok(), "{:?}", result);
        }
    }
}
