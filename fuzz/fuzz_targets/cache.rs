//! Several caches over one set of central lists, against the shadow model.
//!
//! The first byte chooses the policy and the system below, the rest are operations.
#![no_main]

use std::cell::Cell;
use std::mem::MaybeUninit;

use libfuzzer_sys::fuzz_target;
use spanalloc_cache::{Checked, Fast, Magazines, Policy};
use spanalloc_classes::{ClassTable, Go67, Rule, SizeClasses};
use spanalloc_fuzz::{AUDIT_EVERY, ground};
use spanalloc_os::{Fixed, Limited, OsSource, Verb};
use spanalloc_testkit::Operation;
use spanalloc_testkit::layers::Layers;

struct PackAll;

impl Policy for PackAll {
    type Bin = Magazines;
    const PACK_MAX: usize = 16;
}

struct Sparse;

impl ClassTable for Sparse {
    const CLASSES: &'static SizeClasses =
        &SizeClasses::from_sizes(&Rule::GO, &[16, 64, 192, 1024, 4096, 16384]);
}

/// Bytes that may live at once.
const BUDGET: usize = 2 << 20;

fn play<T: ClassTable, P: Policy>(os: impl OsSource, operations: &[Operation]) {
    let layers = Layers::<T, P>::new().scarce().budget(BUDGET).audit_every(AUDIT_EVERY);
    if let Err(failure) = layers.run(os, operations) {
        panic!("{failure}");
    }
}

/// The operations, behind one that makes each of these verbs fail.
fn failing(verbs: &[Verb], after: u16, calls: u16, operations: &[Operation]) -> Vec<Operation> {
    let fails = verbs.iter().map(|verb| Operation::OsFails { verb: *verb, after, calls });
    fails.chain(operations.iter().copied()).collect()
}

/// Bytes of a buffer that is all the system has: metadata, and some hundred pages for objects.
const BUFFER_BYTES: usize = 6 << 20;

std::thread_local! {
    static BUFFER: Cell<Vec<MaybeUninit<u8>>> = const { Cell::new(Vec::new()) };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let mut operations = Operation::decode(rest);
    operations.truncate(400);
    let (mut ground, mut buffer) = (ground(), BUFFER.take());
    buffer.resize(BUFFER_BYTES, MaybeUninit::new(0xa5));
    let after = u16::from(first / 8);
    match first % 8 {
        0 => play::<Go67, Fast>(Fixed::new(&mut buffer), &operations),
        1 => play::<Go67, PackAll>(Fixed::new(&mut buffer), &operations),
        2 => play::<Go67, Checked>(Fixed::new(&mut buffer[..BUFFER_BYTES / 4]), &operations),
        3 => play::<Sparse, PackAll>(Fixed::new(&mut buffer), &operations),
        4 if first >= 128 => play::<Go67, Checked>(ground.plot(), &operations),
        4 => {
            play::<Go67, Fast>(
                Limited::with_committed(ground.plot(), 256 << 20, 2 << 20),
                &operations,
            );
        }
        5 => play::<Sparse, Fast>(Limited::new(ground.plot(), 48 << 20), &operations),
        6 => {
            let list = failing(&[Verb::Commit], after, Operation::FOR_GOOD, &operations);
            play::<Go67, Fast>(ground.plot(), &list);
        }
        _ => {
            let verbs =
                [Verb::Reserve, Verb::Commit, Verb::Decommit, Verb::Relocate, Verb::Release];
            play::<Go67, PackAll>(ground.plot(), &failing(&verbs, after, 1, &operations));
        }
    }
    BUFFER.set(buffer);
});
