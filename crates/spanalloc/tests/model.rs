//! The facade against the shadow: random operations through `GlobalAlloc`, in a process that runs on
//! the same heap.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/objects.rs"]
mod objects;

use objects::run_in_new_threads;
use proptest::prelude::*;
use spanalloc::Spanalloc;
use spanalloc_testkit::amount::{config, config_of, length};
use spanalloc_testkit::{Global, Mix, Threads, operations, run};

#[global_allocator]
static ALLOCATOR: Spanalloc = Spanalloc;

/// One cache: the calling thread's.
const MIX: Mix = Mix::new().caches(1);

fn give_back(_most: usize) {
    spanalloc::release();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_thread(operations in operations(MIX, length())) {
        let result = run(Global(ALLOCATOR), &operations);
        prop_assert!(result.is_ok(), "{:?}", result);
    }

    /// One works at a time, so every failure is found again.
    #[test]
    fn threads_by_turns(operations in operations(Mix::new().scavenges(2), length())) {
        let result = run(Threads::new(ALLOCATOR, 3, give_back).unwrap(), &operations);
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}

proptest! {
    #![proptest_config(config_of(64))]

    #[test]
    fn new_threads(lists in prop::collection::vec(operations(MIX, length()), 2..4)) {
        let result = run_in_new_threads(&lists);
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}
