//! The allocator `Checked` in three threads that take turns, start and end, against the shadow model.
//! The bytes are operations.
//!
//! The heap is the process's and lives on from one input to the next.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanalloc::{Checked, checked};
use spanalloc_testkit::{Operation, Replay, Threads};

/// Bytes that may live at once.
const BUDGET: usize = 16 << 20;

fn give_back(_most: usize) {
    checked::release();
}

fuzz_target!(|bytes: &[u8]| {
    let mut operations = Operation::decode(bytes);
    // A process that fuzzes is slow to fork; the property tests do.
    operations.retain(|operation| *operation != Operation::Fork);
    operations.truncate(300);
    let threads = Threads::new(Checked, 3, give_back).expect("the system has threads");
    let mut replay = Replay::with_budget(threads, BUDGET);
    let result = operations.iter().try_for_each(|operation| replay.apply(operation));
    if let Err(failure) = result.and_then(|()| replay.finish()) {
        panic!("{failure}");
    }
    drop(replay);
    let snapshot = checked::snapshot();
    assert!(snapshot.adds_up(), "{snapshot:?}");
    assert_eq!(snapshot.live_objects(), 0, "all was freed: {snapshot:?}");
});
