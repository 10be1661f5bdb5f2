//! The allocator `Checked` in three threads that take turns, start and end, against the shadow model.
//! The bytes are operations.
//!
//! The heap is the process's and lives on from one input to the next, and so do its threads: a restart
//! ends one.
#![no_main]

use std::cell::Cell;

use libfuzzer_sys::fuzz_target;
use spanalloc::{Checked, checked};
use spanalloc_fuzz::budget;
use spanalloc_testkit::{Failure, Operation, Replay, Threads};

const THREADS: u16 = 3;

std::thread_local! {
    static KEPT: Cell<Option<Threads<Checked>>> = const { Cell::new(None) };
}

/// One in 512 times, as that takes longer than all else; not if it is 0, as where an input is cut off.
fn give_back(most: usize) {
    if most % 512 == 1 {
        checked::release();
    }
}

/// Does the operations, and then each thread frees its part of what is left.
fn play(replay: &mut Replay<Threads<Checked>>, operations: &[Operation]) -> Result<(), Failure> {
    replay.play(&[Operation::Switch { cache: 0 }])?;
    replay.play(operations)?;
    let times = replay.tally().objects / (256 * usize::from(THREADS)) + 1;
    for cache in 0..THREADS {
        replay.play(&[Operation::Switch { cache }])?;
        replay.play(&vec![Operation::FreeMany { index: 5, more: u8::MAX }; times])?;
    }
    replay.finish()
}

fuzz_target!(|bytes: &[u8]| {
    let mut operations = Operation::decode(bytes);
    // A process that fuzzes is slow to fork; the property tests do.
    operations.retain(|operation| *operation != Operation::Fork);
    operations.truncate(300);
    let threads = KEPT.take().unwrap_or_else(|| {
        Threads::new(Checked, THREADS.into(), give_back).expect("the system has threads")
    });
    let mut replay = Replay::with_budget(threads, budget(bytes)).sparse();
    if let Err(failure) = play(&mut replay, &operations) {
        panic!("{failure}");
    }
    KEPT.set(Some(replay.into_subject()));
    let snapshot = checked::snapshot();
    assert!(snapshot.adds_up(), "{snapshot:?}");
    assert_eq!(snapshot.live_objects(), 0, "all was freed: {snapshot:?}");
});
