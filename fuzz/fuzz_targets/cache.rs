//! Several caches over one set of central lists, against the shadow model.
//!
//! The first byte chooses the policy and the system below, the rest are operations.
#![no_main]

use std::cell::Cell;
use std::mem::MaybeUninit;

use libfuzzer_sys::fuzz_target;
use spanalloc_cache::{Checked, Fast, Magazines, Policy};
use spanalloc_classes::{ClassTable, Go67, Rule, SizeClasses};
use spanalloc_fuzz::{AUDIT_EVERY, budget, ground};
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

/// The operations of an input, and how many bytes may live at once.
struct Input {
    operations: Vec<Operation>,
    budget: usize,
}

impl Input {
    fn play<T: ClassTable, P: Policy>(&self, os: impl OsSource) {
        let layers = Layers::<T, P>::new().scarce().sparse().budget(self.budget);
        if let Err(failure) = layers.audit_every(AUDIT_EVERY).run(os, &self.operations) {
            panic!("{failure}");
        }
    }

    /// The same behind operations that make each of these verbs fail.
    fn failing(mut self, verbs: &[Verb], after: u16, calls: u16) -> Self {
        let fails = verbs.iter().map(|verb| Operation::OsFails { verb: *verb, after, calls });
        self.operations.splice(0..0, fails);
        self
    }
}

/// Bytes of a buffer that, or an eighth of it, is all the system has: metadata, and a hundred pages or so for objects.
const BUFFER_BYTES: usize = 6 << 20;

std::thread_local! {
    static BUFFER: Cell<Vec<MaybeUninit<u8>>> = const { Cell::new(Vec::new()) };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let mut input = Input { operations: Operation::decode(rest), budget: budget(bytes) };
    input.operations.truncate(400);
    let (mut ground, mut buffer) = (ground(), BUFFER.take());
    buffer.resize(BUFFER_BYTES, MaybeUninit::new(0xa5));
    let (after, plot) = (u16::from(first / 8), ground.plot().in_blocks(first % 128 >= 112));
    let part = if first >= 224 { &mut buffer[..] } else { &mut buffer[..BUFFER_BYTES / 8] };
    match first % 8 {
        0 => input.play::<Go67, Fast>(Fixed::new(part)),
        1 => input.play::<Go67, PackAll>(Fixed::new(part)),
        2 => input.play::<Go67, Checked>(Fixed::new(part)),
        3 => input.play::<Sparse, PackAll>(Fixed::new(part)),
        4 if first >= 128 => input.play::<Go67, Checked>(plot),
        4 => input.play::<Go67, Fast>(Limited::with_committed(plot, 256 << 20, 2 << 20)),
        5 => input.play::<Sparse, Fast>(Limited::new(plot, 48 << 20)),
        6 => input.failing(&[Verb::Commit], after, Operation::FOR_GOOD).play::<Go67, Fast>(plot),
        _ => {
            let verbs =
                [Verb::Reserve, Verb::Commit, Verb::Decommit, Verb::Relocate, Verb::Release];
            input.failing(&verbs, after, 1).play::<Go67, PackAll>(plot);
        }
    }
    BUFFER.set(buffer);
});
