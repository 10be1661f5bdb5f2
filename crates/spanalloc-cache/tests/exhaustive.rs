//! Not random but all of them: every size with every alignment, and every short list of operations on a
//! heap of a few pages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use spanalloc_cache::{Checked, Fast, Policy, ThreadCache};
use spanalloc_central::{Central, CentralLists, LARGE};
use spanalloc_classes::{ClassTable, Go67};
use spanalloc_os::{Faulty, Fixed, Mmap, Verb};
use spanalloc_pages::{PAGE_BYTES, PageHeap, Pages};
use spanalloc_testkit::layers::{Caches, Heap, Lists, nothing_left};
use spanalloc_testkit::{Operation, Replay, Returning, Subject, Summary};

/// The largest size: one more than the largest class.
const SIZES: usize = 32_769;
/// Alignments: powers of two up to 64 KB.
const ALIGNS: u32 = 17;

/// The class that should serve a layout: the smallest whose slots are large enough and all aligned.
fn class_by_search(layout: Layout) -> Option<u8> {
    if layout.align() > PAGE_BYTES {
        return None;
    }
    let fits = |bytes: usize| bytes >= layout.size() && bytes % layout.align() == 0;
    Go67::CLASSES.iter().find(|(_, class)| fits(class.bytes as usize)).map(|(number, _)| number)
}

/// An object, and the room that is its own.
struct Lent {
    object: NonNull<u8>,
    layout: Layout,
    room: usize,
}

impl Lent {
    /// A byte of its own for each object of a group.
    fn mark(&self) -> u8 {
        self.layout.align().trailing_zeros() as u8 + 1
    }

    fn ends(&self) -> [*mut u8; 2] {
        // SAFETY: the room is the object's.
        [self.object.as_ptr(), unsafe { self.object.as_ptr().add(self.room.max(1) - 1) }]
    }
}

/// Allocates each size with all alignments at once, marks both ends of what each got, and frees them all.
fn every_layout<P: Policy>() {
    // SAFETY: the heap and everything above it are gone before the source is.
    let heap = PageHeap::<_>::new(unsafe { Returning::new(Mmap::new()) });
    let central = CentralLists::<Go67, _>::new(&heap);
    let mut cache = ThreadCache::<_, P>::with_policy(&central);
    let (mut small, mut large) = (0, 0);
    for size in 0..=SIZES {
        let lent: Vec<_> = (0..ALIGNS)
            .map(|log2| {
                let layout = Layout::from_size_align(size, 1 << log2).unwrap();
                let object = cache.alloc(layout).unwrap();
                let address = object.addr().get();
                assert_eq!(address % layout.align(), 0, "{layout:?} at {address:#x}");
                let span = central.span_at(address).unwrap();
                let room = match class_by_search(layout) {
                    Some(class) => {
                        small += 1;
                        assert_eq!(span.class(), class, "{layout:?}");
                        assert_eq!(span.address_of(span.slot_of(address)), address, "{layout:?}");
                        span.bytes()
                    }
                    None => {
                        large += 1;
                        assert_eq!(span.class(), LARGE, "{layout:?}");
                        span.base() + span.pages() * PAGE_BYTES - address
                    }
                };
                assert!(room >= size, "{layout:?} has {room} bytes");
                let lent = Lent { object, layout, room };
                for end in lent.ends() {
                    // SAFETY: both bytes are the object's.
                    unsafe { end.write(lent.mark()) };
                }
                lent
            })
            .collect();
        for lent in lent {
            for end in lent.ends() {
                // SAFETY: as above.
                assert_eq!(unsafe { end.read() }, lent.mark(), "{:?} is not alone", lent.layout);
            }
            // SAFETY: the object has this layout, and nobody uses it any more.
            unsafe { cache.free(lent.object, lent.layout) };
        }
        if size % 1024 == 1 {
            let snapshot = cache.snapshot().unwrap();
            assert!(snapshot.adds_up() && snapshot.live_objects() == 0, "after {size}");
        }
    }
    println!("{} layouts: {small} in slots, {large} in pages", small + large);
    drop(cache);
    let stats = heap.stats();
    assert_eq!(stats.pages_in_use, stats.metadata_pages, "{stats:?}");
}

#[test]
fn every_size_with_every_alignment_fast() {
    every_layout::<Fast>();
}

#[test]
fn every_size_with_every_alignment_checked() {
    every_layout::<Checked>();
}

/// The operations of which the lists are made.
#[derive(Clone, Copy, Debug)]
enum Letter {
    Alloc(usize),
    FreeOldest,
    FreeNewest,
    /// Gives the newest object the next size of all.
    Resize,
    /// Gives all free memory back.
    GiveBack,
    /// Makes the system fail in all it is asked, or work again.
    Fault,
}

/// A slot of many, a slot of few, whole pages.
const ALLOCATED: [usize; 3] = [24, 6000, 40_000];

const LETTERS: [Letter; 8] = [
    Letter::Alloc(ALLOCATED[0]),
    Letter::Alloc(ALLOCATED[1]),
    Letter::Alloc(ALLOCATED[2]),
    Letter::FreeOldest,
    Letter::FreeNewest,
    Letter::Resize,
    Letter::GiveBack,
    Letter::Fault,
];

/// How long the lists are.
fn longest() -> u32 {
    let said = std::env::var("SPANALLOC_TEST_LETTERS").ok().map(|said| said.parse().unwrap());
    said.unwrap_or(if cfg!(debug_assertions) { 5 } else { 6 })
}

/// A replay, and the objects of its shadow in the order they were made.
struct Script<S: Subject> {
    replay: Replay<S>,
    /// Of each object, by its index: when it was made, and which of the sizes it has.
    objects: Vec<(usize, usize)>,
    made: usize,
    failing: bool,
}

impl<S: Subject> Script<S> {
    fn new(subject: S) -> Self {
        Self { replay: Replay::new(subject), objects: Vec::new(), made: 0, failing: false }
    }

    fn apply(&mut self, operation: Operation) {
        self.replay.apply(&operation).unwrap();
    }

    fn index(&self, newest: bool) -> Option<usize> {
        let ages = self.objects.iter().enumerate();
        let found =
            if newest { ages.max_by_key(|it| it.1.0) } else { ages.min_by_key(|it| it.1.0) };
        found.map(|(index, _)| index)
    }

    fn act(&mut self, letter: Letter) {
        match letter {
            Letter::Alloc(size) => {
                self.apply(Operation::Alloc { size, align: 8 });
                if self.replay.tally().objects > self.objects.len() {
                    let kind = ALLOCATED.iter().position(|each| *each == size).unwrap();
                    self.objects.push((self.made, kind));
                    self.made += 1;
                }
            }
            Letter::FreeOldest | Letter::FreeNewest => {
                let newest = matches!(letter, Letter::FreeNewest);
                let Some(index) = self.index(newest) else { return };
                self.apply(Operation::Free { index: index as u32 });
                // As the shadow does: the last one takes the place.
                self.objects.swap_remove(index);
            }
            Letter::Resize => {
                let Some(index) = self.index(true) else { return };
                let next = (self.objects[index].1 + 1) % ALLOCATED.len();
                let done = self.replay.summary().reallocated;
                let size = ALLOCATED[next];
                self.apply(Operation::Realloc { index: index as u32, size });
                if self.replay.summary().reallocated > done {
                    self.objects[index].1 = next;
                }
            }
            Letter::GiveBack => self.apply(Operation::Release { most: 1000 }),
            Letter::Fault => {
                self.failing = !self.failing;
                if !self.failing {
                    self.apply(Operation::OsWorks);
                    return;
                }
                for verb in [Verb::Reserve, Verb::Commit, Verb::Decommit, Verb::Release] {
                    let calls = Operation::FOR_GOOD;
                    self.apply(Operation::OsFails { verb, after: 0, calls });
                }
            }
        }
        assert_eq!(self.replay.tally().objects, self.objects.len());
    }
}

/// Does one list on a heap of its own: objects and accounts are looked at after each operation, and in the
/// end everything is free.
fn play<P: Policy>(buffer: &mut [MaybeUninit<u8>], list: &[Letter]) -> (Summary, usize) {
    // SAFETY: the heap and everything above it are gone before the source is.
    let heap = Heap::new(Faulty::new(unsafe { Returning::new(Fixed::new(buffer)) }));
    let central = Lists::<Go67, _>::new(&heap);
    let mut script = Script::new(Caches::<Go67, _, P>::new(&heap, &central, 1, true));
    for letter in list {
        script.act(*letter);
    }
    script.replay.finish().unwrap();
    let summary = script.replay.summary();
    drop(script);
    nothing_left(&heap).unwrap();
    (summary, heap.stats().reserved / PAGE_BYTES)
}

/// Does every list in a buffer of so many bytes: metadata, and about ten pages. A large object, or spans of both
/// kinds of small ones, but hardly all of them.
fn every_list<P: Policy>(bytes: usize) {
    let mut space = vec![MaybeUninit::new(0xa5); bytes + PAGE_BYTES];
    // At a page, so that every run has the same room.
    let skipped = space.as_ptr().align_offset(PAGE_BYTES);
    let buffer = &mut space[skipped..][..bytes];
    let (mut lists, mut operations, mut most_pages) = (0, 0, 0);
    let mut sum = Summary::default();
    let mut list = Vec::new();
    for length in 0..=longest() {
        for number in 0..LETTERS.len().pow(length) {
            list.clear();
            let digit = |place| number / LETTERS.len().pow(place) % LETTERS.len();
            list.extend((0..length).map(|place| LETTERS[digit(place)]));
            let (summary, pages) = play::<P>(buffer, &list);
            sum.add(&summary);
            most_pages = most_pages.max(pages);
            lists += 1;
            operations += list.len();
        }
    }
    let name = std::any::type_name::<P>();
    println!("{name}: {lists} lists of up to {} of {} operations", longest(), LETTERS.len());
    println!("{operations} operations, at most {most_pages} pages, {sum:?}");
    assert_eq!(sum.allocated, sum.freed);
    // Memory did run out, and not always.
    assert!(sum.refused > 0 && sum.allocated > sum.refused && sum.reallocated > 0, "{sum:?}");
}

#[test]
fn every_short_list_of_operations_fast() {
    every_list::<Fast>(464 << 10);
}

#[test]
fn every_short_list_of_operations_checked() {
    every_list::<Checked>(358 << 10);
}
