//! Models of a slot that is freed twice at once, by the owner of its span and by another thread, where
//! slots are handed out one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Plain};

use loom::thread;
use spanalloc_central::remote::Marked;
use spanalloc_central::{Put, Reserve, SpanRef};
use spanalloc_sync::atomic::Ordering;
use spanalloc_sync::model;
use spanalloc_testkit::models::explored;

use crate::central::{Agent, QUARTER, new_lists};

const SLOT: usize = 1;

/// Cuts a span and hands all of its slots out.
fn all_handed_out(agent: &mut Agent) -> SpanRef {
    let span = agent.cut_of(QUARTER);
    // SAFETY: the agent owns the span, of which nothing is reserved.
    let Reserve::Some(reserved) = (unsafe { span.reserve(64) }) else { panic!("nothing is free") };
    assert_eq!((reserved.word, reserved.fresh), (0, true));
    span.bitmap_word(0).fetch_and(!reserved.bits, Ordering::Relaxed);
    span
}

/// Another thread frees [`SLOT`]; whether it noticed that the slot is free.
fn free_elsewhere(span: SpanRef) -> (thread::JoinHandle<()>, Arc<AtomicBool>) {
    let noticed = Arc::new(AtomicBool::new(false));
    let notice = Arc::clone(&noticed);
    let freer = thread::spawn(move || {
        // SAFETY: the bug that is modelled; the token stays with the span.
        let marked = unsafe { span.mark(SLOT) };
        notice.store(marked == Marked::Twice, Plain::Relaxed);
    });
    (freer, noticed)
}

/// Both have freed the slot before it could be handed out again: somebody has noticed, or the
/// reservation does.
pub fn freed_twice_before_the_reservation() {
    let lists = new_lists();
    let mut agent = Agent::new(&lists);
    let span = all_handed_out(&mut agent);
    let (freer, noticed) = free_elsewhere(span);
    // SAFETY: the agent owns the span.
    let here = unsafe { span.put_once(SLOT) } == Put::Twice;
    freer.join().unwrap();
    // SAFETY: as above; nothing is reserved.
    let later = unsafe { span.reserve(64) } == Reserve::Twice(SLOT);
    assert!(
        here || noticed.load(Plain::Relaxed) || later,
        "a slot that was freed twice is handed out again"
    );
}

// Exhaustive: 6 interleavings.
#[test]
fn a_slot_freed_twice_at_once_is_not_handed_out_again() {
    explored("freed twice", model::check(freed_twice_before_the_reservation), 4);
}

/// The owner reserves while the other thread is about to mark: as long as the slot is not handed out, a
/// fold notices.
fn freed_twice_around_the_reservation() {
    let lists = new_lists();
    let mut agent = Agent::new(&lists);
    let span = all_handed_out(&mut agent);
    let (freer, noticed) = free_elsewhere(span);
    // SAFETY: the agent owns the span, of which nothing is reserved.
    let (here, reserved) = unsafe { (span.put_once(SLOT) == Put::Twice, span.reserve(64)) };
    freer.join().unwrap();
    let known = here || noticed.load(Plain::Relaxed) || reserved == Reserve::Twice(SLOT);
    // SAFETY: the agent owns the span, and the mark left it the token.
    assert!(known || unsafe { span.fold() } == Some(SLOT), "the second free was lost");
}

// Exhaustive: 13 interleavings.
#[test]
fn a_slot_freed_twice_around_a_reservation_is_noticed() {
    explored("around a reservation", model::check(freed_twice_around_the_reservation), 4);
}

/// The owner looks whether the flag is still needed while another thread marks.
pub fn mark_against_a_look_for_marks() {
    let lists = new_lists();
    let mut agent = Agent::new(&lists);
    let span = all_handed_out(&mut agent);
    let freer = thread::spawn(move || {
        // SAFETY: the object is freed once; the token stays with the span.
        assert_eq!(unsafe { span.mark(SLOT) }, Marked::Token);
    });
    // SAFETY: the agent owns the span.
    unsafe { span.look_for_marks() };
    freer.join().unwrap();
    assert!(span.may_be_marked(), "a mark without its flag");
}

// Exhaustive: 56 interleavings.
#[test]
fn a_mark_has_its_flag() {
    explored("flag", model::check(mark_against_a_look_for_marks), 50);
}
