//! Several caches over one set of central lists, against the shadow model.
//!
//! The first byte chooses the policy and the system below, the rest are operations.
#![no_main]

use std::alloc::Layout;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use libfuzzer_sys::fuzz_target;
use spanalloc_cache::{Checked, Fast, Magazines, Policy, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::{ClassTable, Go67, Rule, SizeClasses};
use spanalloc_os::{Faulty, Fixed, Limited, Mmap, OsSource, Verb};
use spanalloc_pages::{PageHeap, Pages};
use spanalloc_testkit::{Operation, Replay, Returning, Subject, Tally};

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

type Lists<'a, T, O> = CentralLists<T, &'a PageHeap<O>>;

struct Caches<'a, T: ClassTable, O: OsSource, P: Policy> {
    heap: &'a PageHeap<O>,
    central: &'a Lists<'a, T, O>,
    caches: [ThreadCache<&'a Lists<'a, T, O>, P>; 3],
    current: usize,
    operations: usize,
}

// SAFETY: a cache hands out memory that may be used until it is freed through any cache over the
// same lists.
unsafe impl<T: ClassTable, O: OsSource, P: Policy> Subject for Caches<'_, T, O, P> {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.caches[self.current].alloc(layout)
    }

    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.caches[self.current].alloc_zeroed(layout)
    }

    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.caches[self.current].free(object, layout) };
    }

    unsafe fn realloc(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.caches[self.current].realloc(object, layout, new_size) }
    }

    fn caches(&self) -> usize {
        self.caches.len()
    }

    fn switch(&mut self, cache: usize) {
        self.current = cache;
    }

    fn restart(&mut self, cache: usize) {
        self.caches[cache] = ThreadCache::with_policy(self.central);
    }

    fn release(&mut self, most: usize) {
        self.heap.release_free(most);
    }

    fn audit(&mut self, tally: Tally) -> Result<(), String> {
        // Counting takes longer than most operations do, so not after each of many.
        self.operations += 1;
        if self.operations > 32 && !self.operations.is_multiple_of(8) && tally.objects > 0 {
            return Ok(());
        }
        let Some(snapshot) = self.caches[self.current].snapshot() else { return Ok(()) };
        if !snapshot.adds_up() || snapshot.live_objects() != tally.objects {
            return Err(format!("{tally:?}: {snapshot:?}"));
        }
        Ok(())
    }
}

fn play<T: ClassTable, P: Policy>(os: impl OsSource, operations: &[Operation]) {
    let heap = PageHeap::new(os);
    let central: Lists<'_, T, _> = CentralLists::new(&heap);
    let caches = std::array::from_fn(|_| ThreadCache::with_policy(&central));
    let subject: Caches<'_, T, _, P> =
        Caches { heap: &heap, central: &central, caches, current: 0, operations: 0 };
    let mut replay = Replay::with_budget(subject, 8 << 20);
    let result = operations.iter().try_for_each(|operation| replay.apply(operation));
    if let Err(failure) = result.and_then(|()| replay.finish()) {
        panic!("{failure}");
    }
    drop(replay);
    // When the system had nothing more to give, some pages became metadata.
    let stats = heap.stats();
    assert_eq!(stats.pages_in_use, stats.metadata_pages, "{stats:?}");
}

/// Bytes of the buffer: metadata, and some hundred pages for objects.
const BUFFER_BYTES: usize = 6 << 20;

std::thread_local! {
    static BUFFER: Cell<Vec<MaybeUninit<u8>>> = const { Cell::new(Vec::new()) };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let mut operations = Operation::decode(rest);
    operations.truncate(400);
    // A buffer needs no system calls, which take most of the time otherwise.
    let mut buffer = BUFFER.take();
    buffer.resize(BUFFER_BYTES, MaybeUninit::new(0xa5));
    // SAFETY: the heap and everything above it are gone before the source is.
    let os = unsafe { Returning::new(Mmap::new()) };
    match first % 8 {
        0 => play::<Go67, Fast>(Fixed::new(&mut buffer), &operations),
        1 => play::<Go67, PackAll>(Fixed::new(&mut buffer), &operations),
        2 => play::<Go67, Checked>(Fixed::new(&mut buffer[..BUFFER_BYTES / 4]), &operations),
        3 => play::<Sparse, PackAll>(Fixed::new(&mut buffer), &operations),
        4 if first >= 128 => play::<Go67, Fast>(os, &operations),
        4 => play::<Go67, Fast>(Limited::with_committed(os, 256 << 20, 2 << 20), &operations),
        5 => play::<Sparse, Fast>(Limited::new(os, 48 << 20), &operations),
        6 => {
            let os = Faulty::new(os);
            os.fail_from(Verb::Commit, 1 + usize::from(first / 8));
            play::<Go67, Fast>(os, &operations);
        }
        _ => {
            let os = Faulty::new(os);
            for verb in Verb::ALL {
                os.fail_nth(verb, 1 + usize::from(first / 8));
            }
            play::<Go67, PackAll>(os, &operations);
        }
    }
    BUFFER.set(buffer);
});
