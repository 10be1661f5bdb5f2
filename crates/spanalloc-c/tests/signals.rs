//! Signal handlers that allocate and free, whatever they interrupt.
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

use common::limited::passes;
use common::native::{PLAIN, Workshop, times};

/// Runs one scenario of `signals.c`.
#[track_caller]
fn scenario(name: &str, count: &str) {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("signals.c", PLAIN);
    passes(common::preloaded(program).args([name, count]), 90);
}

#[test]
fn every_100_us_in_the_main_thread() {
    scenario("main", &times(30_000, 10_000));
}

#[test]
fn every_100_us_in_four_threads() {
    scenario("threads", &times(30_000, 10_000));
}

#[test]
fn in_threads_that_begin_and_end() {
    scenario("young_threads", &times(30_000, 5_000));
}

/// What the library tells of its heap, which may be locked by what the handler interrupted.
#[test]
fn that_ask_what_the_heap_holds() {
    scenario("questions", &times(10_000, 3_000));
}

/// The report is written in the handler.
#[test]
fn that_end_the_process() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("signals.c", PLAIN);
    for _ in 0..20 {
        let mut command = common::preloaded(&program);
        passes(command.args(["end", "1000000"]).env("SPANALLOC_STATS", "1"), 30);
    }
}
