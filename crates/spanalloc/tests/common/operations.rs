//! Random operations through `GlobalAlloc` against the shadow, in a process that runs on the same heap.
//!
//! The test that includes this names the allocator `ALLOCATOR`, the module of its functions `functions`, and how
//! often the process may fork `FORKS`: not with an allocator that does not look after the threads of others then.

use proptest::prelude::*;
use spanalloc_testkit::amount::{config, config_of, length};
use spanalloc_testkit::{Failure, Forking, Global, Mix, Operation, Threads, operations, run};

use crate::{ALLOCATOR, FORKS, functions};

/// One cache: the calling thread's.
const MIX: Mix = Mix::new().caches(1);

fn give_back(_most: usize) {
    functions::release();
}

/// Runs each list in a new thread, all at the same time.
fn run_in_new_threads(lists: &[Vec<Operation>]) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            lists.iter().map(|list| scope.spawn(move || run(Global(ALLOCATOR), list))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap().map(drop))
    })
}

proptest! {
    #![proptest_config(config())]

    /// Children are made while the threads of the other tests are inside the allocator.
    #[test]
    fn one_thread(operations in operations(MIX.forks(FORKS), length())) {
        let result = run(Forking(Global(ALLOCATOR)), &operations);
        prop_assert!(result.is_ok(), "{:?}", result);
    }

    /// One works at a time, so every failure is found again. A child has the objects of threads that it does not have.
    #[test]
    fn threads_by_turns(operations in operations(Mix::new().scavenges(2).forks(FORKS), length())) {
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
