//! Allocators with one bug each: the kit must find it. And one without: it must find nothing.

use std::alloc::{Layout, System};
use std::ptr::NonNull;

use proptest::prelude::*;
use spanalloc_testkit::{
    Failure, Global, Mix, Operation, Subject, Tally, Violation, operations, run,
};

/// What is wrong with the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// Every eighth object lies inside of the one before.
    Overlap,
    /// Every eighth object is one byte off.
    Misaligned,
    /// Zeroed memory holds a one somewhere.
    NotZero,
    /// A free writes to the object that was allocated last.
    WriteAfter,
    /// Realloc copies nothing.
    Forgetful,
    /// Counts wrong after a free through the second cache.
    Miscount,
}

/// The system's allocator with a bug. Every object has 64 bytes more than asked for on both sides,
/// so that no bug reaches foreign memory.
struct Broken {
    bug: Bug,
    live: usize,
    calls: usize,
    current: usize,
    last: Option<(usize, usize)>,
    /// Objects to give back at the end; nothing is reused, so that no bug hides another.
    blocks: Vec<(usize, Layout)>,
}

impl Broken {
    fn new(bug: Bug) -> Self {
        Self { bug, live: 0, calls: 0, current: 0, last: None, blocks: Vec::new() }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        for (address, layout) in self.blocks.drain(..) {
            // SAFETY: allocated in `alloc` with this layout.
            unsafe { std::alloc::dealloc(std::ptr::with_exposed_provenance_mut(address), layout) };
        }
    }
}

// SAFETY: all objects, wrongly placed ones too, lie in blocks that live as long as the subject.
unsafe impl Subject for Broken {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.calls += 1;
        self.live += 1;
        let wrong = self.calls % 8 == 0;
        let last = self.last.filter(|_| (self.bug, wrong) == (Bug::Overlap, true));
        if let Some((address, _)) = last.filter(|(_, size)| *size >= layout.size()) {
            return NonNull::new(std::ptr::with_exposed_provenance_mut(address));
        }
        let margin = layout.align().max(64);
        let block = Layout::from_size_align(layout.size() + 2 * margin, margin).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(block) })?;
        self.blocks.push((start.as_ptr().expose_provenance(), block));
        let off = usize::from(self.bug == Bug::Misaligned && wrong);
        // SAFETY: inside the block.
        let object = unsafe { start.add(margin + off) };
        self.last = Some((object.addr().get(), layout.size()));
        Some(object)
    }

    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let object = self.alloc(layout)?;
        if self.bug == Bug::NotZero && layout.size() > 0 {
            // SAFETY: inside the object.
            unsafe { object.add(layout.size() / 2).write(1) };
        }
        Some(object)
    }

    unsafe fn free(&mut self, _object: NonNull<u8>, _layout: Layout) {
        if self.bug != Bug::Miscount || self.current == 0 {
            self.live -= 1;
        }
        let last = self.last.filter(|(_, size)| self.bug == Bug::WriteAfter && *size > 0);
        if let Some((address, _)) = last {
            let byte: *mut u8 = std::ptr::with_exposed_provenance_mut(address);
            // SAFETY: inside a block.
            unsafe { byte.write(byte.read() ^ 0x80) };
        }
    }

    unsafe fn realloc(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        let new = self.alloc(Layout::from_size_align(new_size, layout.align()).ok()?)?;
        let kept = layout.size().min(new_size);
        if self.bug != Bug::Forgetful {
            // SAFETY: both objects have that many bytes; both lie in blocks.
            unsafe { std::ptr::copy(object.as_ptr(), new.as_ptr(), kept) };
        }
        self.live -= 1;
        Some(new)
    }

    fn caches(&self) -> usize {
        2
    }

    fn switch(&mut self, cache: usize) {
        self.current = cache;
    }

    fn audit(&mut self, tally: Tally) -> Result<(), String> {
        if self.live == tally.objects { Ok(()) } else { Err(format!("{} live", self.live)) }
    }
}

/// Operations that come to each bug.
fn script() -> Vec<Operation> {
    let mut operations = Vec::new();
    for round in 0..20_u32 {
        operations.push(Operation::Alloc { size: 100 + round as usize, align: 8 });
        operations.push(Operation::AllocZeroed { size: 50, align: 16 });
        operations.push(Operation::Realloc { index: round * 7, size: 80 });
        operations.push(Operation::Alloc { size: 20, align: 4 });
        operations.push(Operation::Free { index: round * 3 });
        operations.push(Operation::FreeRemote { index: round * 5 });
    }
    operations
}

fn violation(bug: Bug) -> Violation {
    let Failure { violation, .. } = run(Broken::new(bug), &script()).unwrap_err();
    violation
}

#[test]
fn every_bug_is_found() {
    assert!(matches!(violation(Bug::Overlap), Violation::Overlap { .. }));
    assert!(matches!(violation(Bug::Misaligned), Violation::Misaligned { .. }));
    assert!(matches!(violation(Bug::NotZero), Violation::NotZero { found: 1, .. }));
    assert!(matches!(violation(Bug::WriteAfter), Violation::Corrupted { .. }));
    assert!(matches!(violation(Bug::Forgetful), Violation::Corrupted { offset: 0, .. }));
    assert!(matches!(violation(Bug::Miscount), Violation::Accounts(_)));
}

#[test]
fn a_failure_says_where_it_happened() {
    let failure = run(Broken::new(Bug::Misaligned), &script()).unwrap_err();
    assert_eq!(script()[failure.step], failure.operation.unwrap());
    let text = failure.to_string();
    assert!(text.starts_with(&format!("operation {} (Some(Alloc", failure.step)), "{text}");
    assert!(text.contains("is not aligned to"), "{text}");
}

#[test]
fn no_bug_is_found_where_there_is_none() {
    let summary = run(Broken::new(Bug::None), &script()).unwrap();
    assert_eq!((summary.allocated, summary.reallocated, summary.freed), (60, 20, 60));
    assert!(summary.peak_objects > 10 && summary.peak_bytes > 1000);
}

/// All that a list may hold.
const EVERYTHING: Mix = Mix::new().scavenges(4).faults(4).forks(2);

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_system_s_allocator_is_sound(operations in operations(Mix::new(), 1..100)) {
        // The system's allocator may do what it likes with a size of 0; glibc treats it like 1.
        let summary = run(Global(System), &operations).unwrap();
        prop_assert_eq!(summary.allocated, summary.freed);
        prop_assert_eq!(summary.refused, 0);
    }

    #[test]
    fn what_is_written_down_reads_the_same(operations in operations(EVERYTHING, 0..100)) {
        let bytes = Operation::encode(&operations);
        prop_assert_eq!(Operation::decode(&bytes), operations);
    }

    #[test]
    fn any_bytes_are_operations(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let operations = Operation::decode(&bytes);
        prop_assert!(operations.len() <= bytes.len());
        let again = Operation::decode(&Operation::encode(&operations));
        prop_assert_eq!(again, operations);
    }
}

#[test]
fn random_operations_come_to_everything() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let tree = operations(EVERYTHING, 5000).new_tree(&mut runner).unwrap();
    let operations = tree.current();
    let count = |kind: fn(&Operation) -> bool| operations.iter().filter(|one| kind(one)).count();
    assert!(count(|one| matches!(one, Operation::Alloc { .. })) > 500);
    assert!(count(|one| matches!(one, Operation::Alloc { align: 16384.., .. })) > 10);
    assert!(count(|one| matches!(one, Operation::Alloc { size: 32769.., .. })) > 10);
    assert!(count(|one| matches!(one, Operation::AllocZeroed { .. })) > 100);
    assert!(count(|one| matches!(one, Operation::AllocMany { .. })) > 50);
    assert!(count(|one| matches!(one, Operation::Realloc { .. })) > 200);
    assert!(count(|one| matches!(one, Operation::Free { .. })) > 500);
    assert!(count(|one| matches!(one, Operation::FreeRemote { .. })) > 100);
    assert!(count(|one| matches!(one, Operation::FreeMany { .. })) > 50);
    assert!(count(|one| matches!(one, Operation::Switch { .. })) > 100);
    assert!(count(|one| matches!(one, Operation::Restart { .. })) > 30);
    assert!(count(|one| matches!(one, Operation::Release { .. })) > 10);
    assert!(count(|one| matches!(one, Operation::Advance { .. })) > 10);
    assert!(count(|one| matches!(one, Operation::Scavenge { .. })) > 50);
    assert!(count(|one| matches!(one, Operation::OsFails { calls: 1, .. })) > 10);
    assert!(count(|one| matches!(one, Operation::OsFails { calls: Operation::FOR_GOOD, .. })) > 10);
    assert!(count(|one| matches!(one, Operation::OsWorks)) > 30);
    assert!(count(|one| matches!(one, Operation::Fork)) > 30);
}
