//! Threads that come and go: what they leave, their ends, their stacks.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use common::limited::{Ended, passes};
use common::native::{PLAIN, Workshop, preloaded_with, times};

/// Runs one scenario of `threads.c`.
#[track_caller]
fn scenario(name: &str, count: &str) -> Option<Ended> {
    let workshop = Workshop::open()?;
    let program = workshop.program("threads.c", PLAIN);
    let ended = passes(common::preloaded(program).args([name, count]), 120);
    eprintln!("{name} {count}: {}", ended.out.trim());
    Some(ended)
}

/// Runs a scenario of many threads, of which those after the first 100 may make the process grow
/// by `most` KB at most.
#[track_caller]
fn does_not_grow(name: &str, count: &str, most: i64) {
    let Some(ended) = scenario(name, count) else { return };
    let growth = ended.figure("growth");
    assert!(growth <= most, "{growth} KB");
}

#[test]
fn each_leaves_an_object_that_main_frees() {
    does_not_grow("leave_one", "100000", 256);
}

#[test]
fn each_only_frees() {
    does_not_grow("only_free", &times(5000, 1000), 256);
}

#[test]
fn keys_whose_destructors_allocate_and_set_them_again() {
    does_not_grow("keys", &times(5000, 1000), 256);
}

/// The allocator's own key has a number that the system must allocate memory for.
#[test]
fn keys_when_the_first_forty_are_taken() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("threads.c", PLAIN);
    let (early, ours) = (workshop.library("early.c", PLAIN), common::library());
    for order in [[&*ours, &*early], [&*early, &*ours]] {
        let ended = passes(preloaded_with(&program, &order).args(["keys", &times(2000, 500)]), 90);
        assert!(ended.figure("growth") <= 256, "{ended:?}");
    }
}

/// Whether the threads come to need a second window of pages (512 KB) depends on where the first objects lie.
#[test]
fn each_frees_when_its_cache_is_gone() {
    does_not_grow("after_cache", &times(5000, 1000), 768);
}

#[test]
fn thread_local_objects_of_cpp() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("thread_objects.cpp", PLAIN);
    let ended = passes(common::preloaded(program).args(["", &times(5000, 1000)]), 90);
    assert!(ended.figure("growth") <= 256, "{ended:?}");
}

#[test]
fn none_is_cancelled_inside_the_allocator() {
    does_not_grow("cancelled", &times(500, 200), 256);
}

/// 16 KB, the least that the system takes, of which it uses a part itself. Debug builds need more.
#[test]
fn every_path_on_a_small_stack() {
    scenario("small_stack", &times(16 << 10, 64 << 10));
}

#[test]
fn one_makes_what_another_frees() {
    let Some(ended) = scenario("pipeline", "3000000") else { return };
    assert!(ended.figure("percent") <= 10, "{ended:?}");
}
