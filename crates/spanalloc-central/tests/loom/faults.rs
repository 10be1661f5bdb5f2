//! Planted mistakes, each of which a model must notice.
//!
//! A fold that has lost a mark, or does not see the mark of an announcement that it has seen, looks
//! for it for ever: loom ends such a path by its number of branches.

use spanalloc_testkit::models::{Fault, with_fault};

use crate::{central, kernels, words};

#[test]
#[should_panic(expected = "a token was lost")]
fn a_relaxed_push_is_noticed() {
    with_fault(Fault::QueuePushRelaxed, kernels::two_spans_against_drain);
}

#[test]
#[should_panic(expected = "a token was lost")]
fn a_torn_drain_is_noticed() {
    with_fault(Fault::QueueDrainTorn, kernels::two_spans_against_drain);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_mark_is_noticed() {
    with_fault(Fault::MarkRelaxed, kernels::free_against_refill);
}

#[test]
#[should_panic(expected = "maximum number of branches")]
fn a_relaxed_announcement_is_noticed() {
    with_fault(Fault::AnnounceRelaxed, kernels::free_against_refill);
}

#[test]
#[should_panic(expected = "maximum number of branches")]
fn a_relaxed_fold_is_noticed() {
    with_fault(Fault::FoldRelaxed, kernels::free_against_refill);
}

#[test]
#[should_panic(expected = "maximum number of branches")]
fn a_torn_fold_is_noticed() {
    with_fault(Fault::FoldTorn, kernels::free_against_refill);
}

#[test]
#[should_panic(expected = "a free was announced and never folded")]
fn a_fold_without_recheck_is_noticed() {
    with_fault(Fault::FoldDropsRecheck, kernels::free_against_refill);
}

#[test]
#[should_panic(expected = "two tokens of one span")]
fn a_second_token_is_noticed() {
    with_fault(Fault::RemoteAlwaysQueues, kernels::first_free_queues_once);
}

#[test]
#[should_panic(expected = "folded under the lock, but not there")]
fn a_late_free_without_recheck_is_noticed() {
    with_fault(Fault::LateFreeDropsRecheck, kernels::exit_against_a_late_free);
}

#[test]
#[should_panic(expected = "DoubleFree")]
fn a_late_free_without_recheck_is_noticed_in_central() {
    with_fault(Fault::LateFreeDropsRecheck, central::exit_against_late_frees);
}

#[test]
#[should_panic(expected = "all objects are free")]
fn a_forgotten_token_is_noticed() {
    with_fault(Fault::GiveForgetsToken, central::exit_against_late_frees);
}

#[test]
#[should_panic(expected = "a free was announced and never folded")]
fn a_late_token_without_acquire_is_noticed() {
    with_fault(Fault::AnnounceDropsAcquire, central::descriptor_reuse_against_late_announcement);
}

#[test]
#[should_panic(expected = "a slot that was freed twice is handed out again")]
fn a_reservation_without_a_look_at_the_marks_is_noticed() {
    with_fault(Fault::ReserveDropsCheck, words::freed_twice_before_the_reservation);
}

#[test]
#[should_panic(expected = "a mark without its flag")]
fn a_relaxed_look_at_the_flag_is_noticed() {
    with_fault(Fault::FlagRelaxed, words::mark_against_a_look_for_marks);
}
