//! Models of the kernels; see [`crate::span`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool as PlainBool, Ordering as Plain};

use loom::thread;
use spanalloc_central::remote::{Balance, Marked};
use spanalloc_sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use spanalloc_sync::cell::UnsafeCell;
use spanalloc_sync::model;
use spanalloc_testkit::models::explored;

use crate::span::{self, ALL, World};

/// Runs `run` with the world on another thread.
fn spawn(world: &Arc<World>, run: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || run(&world))
}

fn join<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Two threads free two objects while the owner does nothing.
pub fn first_free_queues_once() {
    let world = World::new([0, ALL]);
    let freers = [0, 1].map(|slot| spawn(&world, move |world| world.free(0, slot)));
    join(freers);
    assert_eq!(world.spans[0].tokens.load(Plain::Relaxed), 1);
    assert_eq!(world.queues[0].drain().inspect(|span| world.take_in(0, *span)).count(), 1);
    assert_eq!(world.spans[0].free(), 0b011);
    // And so does the first one after the fold.
    world.free(0, 2);
    assert_eq!(world.spans[0].tokens.load(Plain::Relaxed), 2);
    world.check_end([ALL, ALL]);
}

// Exhaustive: 27 interleavings.
#[test]
fn the_first_remote_free_queues_exactly_once() {
    explored("first free", model::check(first_free_queues_once), 25);
}

/// Two threads free two objects of a span while its owner refills from it: takes in what was freed
/// and uses the slots again.
pub fn free_against_refill() {
    let world = World::new([0, ALL]);
    let freers = [0, 1].map(|slot| spawn(&world, move |world| world.free(0, slot)));
    world.drain(0);
    let taken: u64 = (0..2).map(|slot| u64::from(world.spans[0].take(slot)) << slot).sum();
    join(freers);
    world.check_end([0b011 & !taken, ALL]);
}

// Exhaustive: 972 interleavings.
#[test]
fn remote_frees_against_refill_and_fold() {
    explored("refill", model::check(free_against_refill), 900);
}

/// Two threads free the same object while the owner folds. Another slot stays used, so that the
/// span does.
pub fn free_twice() {
    let world = World::new([0, ALL]);
    let freers = [0, 1].map(|_| spawn(&world, |world| world.free_again(0, 0)));
    world.drain(0);
    join(freers);
    world.check_end([0b001, ALL]);
    let span = &world.spans[0];
    let verdicts = span.refused.load(Plain::Relaxed) + span.found_free.load(Plain::Relaxed);
    assert_eq!(verdicts, 1, "two frees of one object are one too many");
}

// Exhaustive: 292 interleavings.
#[test]
fn two_frees_of_one_object_are_noticed_once() {
    explored("double free", model::check(free_twice), 250);
}

/// What two objects of one tiny slot need: their frees are counted, not marked.
struct Tiny {
    balance: Balance,
    counts: [AtomicU64; 1],
    token: AtomicBool,
    folded: UnsafeCell<u32>,
}

// SAFETY: the cell is what the model checks.
unsafe impl Sync for Tiny {}

impl Tiny {
    const SLOT: u32 = 3;

    fn free(&self) {
        match self.balance.count(&self.counts[0], 1 << (8 * Self::SLOT)) {
            // Release pairs with the Acquire in `fold`, as a queue's push does.
            Marked::Token => assert!(!self.token.swap(true, Ordering::AcqRel), "two tokens"),
            marked => assert_eq!(marked, Marked::Done),
        }
    }

    fn fold(&self) {
        // Acquire pairs with the Release in `free`.
        if self.token.swap(false, Ordering::AcqRel) {
            let folded = self.folded.claim();
            self.balance.fold(&self.counts, |_, value| {
                let count = (value >> (8 * Self::SLOT)) as u32;
                // SAFETY: the claim is alive.
                unsafe { *folded.as_ptr() += count };
                count
            });
        }
    }
}

/// Two threads free the two objects of a tiny slot while the owner folds.
fn tiny_frees_against_fold() {
    let tiny = Arc::new(Tiny {
        balance: Balance::new(),
        counts: [AtomicU64::new(0)],
        token: AtomicBool::new(false),
        folded: UnsafeCell::new(0),
    });
    let freers = [(); 2].map(|()| {
        let tiny = Arc::clone(&tiny);
        thread::spawn(move || tiny.free())
    });
    tiny.fold();
    join(freers);
    tiny.fold();
    // SAFETY: the other threads are done.
    assert_eq!(tiny.folded.with(|folded| unsafe { *folded }), 2);
    assert_eq!(tiny.balance.unfolded(), 0);
    assert!(!tiny.token.load(Ordering::Relaxed));
}

// Exhaustive: 780 interleavings.
#[test]
fn tiny_frees_are_counted() {
    explored("tiny", model::check(tiny_frees_against_fold), 700);
}

/// Two spans are pushed on one queue while its owner drains it.
pub fn two_spans_against_drain() {
    let world = World::new([0, 0]);
    let freers = [0, 1].map(|span| spawn(&world, move |world| world.free(span, 0)));
    world.drain(0);
    join(freers);
    world.check_end([0b001, 0b001]);
}

// Exhaustive: 872 interleavings.
#[test]
fn two_pushes_against_a_drain() {
    explored("drain", model::check(two_spans_against_drain), 800);
}

/// An owner leaves while another thread frees objects of its span: the one that central keeps, or
/// the last ones.
fn exit_against_late_free(free: u64, slots: &'static [usize]) {
    let world = World::new([free, ALL]);
    let freer = spawn(&world, move |world| {
        for slot in slots {
            world.free(0, *slot);
        }
    });
    world.exit(0);
    join([freer]);
    let freed = slots.iter().map(|slot| 1 << slot).sum::<u64>();
    world.check_end([free | freed, ALL]);
    let recycled = world.spans[0].held(|holder| holder.recycled);
    assert_eq!(recycled, usize::from(free | freed == ALL), "given back exactly when it is empty");
}

pub fn exit_against_a_late_free() {
    exit_against_late_free(0, &[0]);
}

// Exhaustive: 444, 444 and 4,747 interleavings.
#[test]
fn a_thread_exits_against_a_late_free() {
    explored("exit", model::check(exit_against_a_late_free), 400);
    assert!(span::seen().stranded > 0, "no token waited with its span");
    explored("exit, last object", model::check(|| exit_against_late_free(0b110, &[0])), 400);
    explored("exit, two objects", model::check(|| exit_against_late_free(0b100, &[0, 1])), 4000);
}

/// An owner leaves while two threads free the last two objects of its span.
pub fn exit_against_two_freers() {
    let world = World::new([0b100, ALL]);
    let freers = [0, 1].map(|slot| spawn(&world, move |world| world.free(0, slot)));
    world.exit(0);
    join(freers);
    world.check_end([ALL, ALL]);
    assert_eq!(world.spans[0].held(|holder| holder.recycled), 1, "given back exactly once");
}

// Bounded at 4 preemptions: 22,080 interleavings.
#[test]
fn a_thread_exits_against_two_late_frees() {
    explored("exit, two freers", model::check_bounded(4, exit_against_two_freers), 20_000);
}

/// An owner leaves, another one takes its span over, and a third thread frees an object of it that
/// it has had all the time.
pub fn adoption_against_late_free() {
    let world = World::new([0, ALL]);
    let freer = spawn(&world, |world| world.free(0, 0));
    let heir_used_the_slot = Arc::new(PlainBool::new(false));
    let heir = {
        let used = Arc::clone(&heir_used_the_slot);
        spawn(&world, move |world| {
            if world.adopt(0, 1) {
                world.drain(1);
                used.store(world.spans[0].take(0), Plain::Relaxed);
            }
        })
    };
    world.exit(0);
    join([freer, heir]);
    let reused = heir_used_the_slot.load(Plain::Relaxed);
    world.check_end([if reused { 0 } else { 0b001 }, ALL]);
}

// Bounded at 4 preemptions: 49,243 interleavings.
#[test]
fn a_span_is_taken_over_against_a_late_free() {
    explored("adoption", model::check_bounded(4, adoption_against_late_free), 45_000);
}

/// An owner leaves and another thread reopens its queue, while a freer that has seen the old owner
/// pushes. The new owner gets a span that is not its own.
pub fn recycled_queue_against_stale_push() {
    let world = World::new([0, ALL]);
    let freer = spawn(&world, |world| world.free(0, 0));
    world.exit(0);
    world.queues[0].open();
    world.drain(0);
    join([freer]);
    world.check_end([0b001, ALL]);
}

// Exhaustive: 855 interleavings.
#[test]
fn a_reopened_queue_against_a_stale_push() {
    explored("reopened queue", model::check(recycled_queue_against_stale_push), 800);
}

/// The same, with an heir of the span that has a queue of its own.
fn recycled_queue_and_adoption() {
    let world = World::new([0, ALL]);
    let freer = spawn(&world, |world| world.free(0, 0));
    world.exit(0);
    assert!(world.adopt(0, 1));
    world.queues[0].open();
    world.drain(0);
    world.drain(1);
    join([freer]);
    world.check_end([0b001, ALL]);
}

// Exhaustive: 46,978 interleavings.
#[test]
fn a_reopened_queue_sends_the_span_on() {
    explored("reopened queue, heir", model::check(recycled_queue_and_adoption), 45_000);
}

/// The last two objects of a span are freed; as soon as the span is empty its descriptor becomes
/// another span's, whose object one of the freers frees too. The other one's announcement may come
/// after all that.
pub fn recycled_descriptor_against_late_announcement() {
    let world = World::new([0b100, ALL]);
    let mail = Arc::new(AtomicUsize::new(0));
    let first = spawn(&world, |world| world.free(0, 0));
    let second = {
        let (world, mail) = (Arc::clone(&world), Arc::clone(&mail));
        thread::spawn(move || {
            world.free(0, 1);
            // Acquire pairs with the Release store of the owner, which hands an object over.
            if mail.swap(2, Ordering::Acquire) == 1 {
                world.free(0, 0);
                span::saw(|seen| seen.freed_after_reuse += 1);
            }
        })
    };
    world.drain(0);
    let mut next = ALL;
    if world.spans[0].recycle() {
        assert!(world.spans[0].take(0));
        // Release pairs with the Acquire in `second`.
        if mail.swap(1, Ordering::AcqRel) == 2 {
            // Nobody takes it any more.
            next = 0b110;
        }
    }
    join([first, second]);
    if mail.load(Ordering::Relaxed) == 1 {
        next = 0b110;
    }
    world.check_end([next, ALL]);
}

// Exhaustive: 2,208 interleavings.
#[test]
fn a_recycled_descriptor_against_a_late_announcement() {
    let interleavings = model::check(recycled_descriptor_against_late_announcement);
    explored("recycled descriptor", interleavings, 2000);
    assert!(span::seen().freed_after_reuse > 0);
}
