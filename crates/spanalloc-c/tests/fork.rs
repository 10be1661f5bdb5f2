//! Forks, and programs started by others, while other threads are inside the allocator.
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

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::limited::passes;
use common::native::{PLAIN, Workshop, preloaded_with, times};

/// Runs one scenario of `fork.c`.
#[track_caller]
fn scenario(name: &str, times: &str) {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("fork.c", PLAIN);
    passes(common::preloaded(program).args([name, times]), 150);
}

#[test]
fn handlers_that_allocate_registered_early_and_late() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("fork.c", PLAIN);
    let (early, ours) = (workshop.library("early.c", PLAIN), common::library());
    for order in [[&*ours, &*early], [&*early, &*ours]] {
        passes(preloaded_with(&program, &order).args(["handlers", &times(300, 150)]), 150);
    }
}

#[test]
fn a_child_starts_threads() {
    scenario("threads", &times(100, 50));
}

/// The cache of the threads that have none any more goes through the fork, too.
#[test]
fn a_child_has_threads_that_end_late() {
    scenario("late_threads", &times(20, 10));
}

#[test]
fn a_child_forks() {
    scenario("children", &times(100, 50));
}

#[test]
fn two_threads_fork_at_once() {
    scenario("two_at_once", &times(150, 75));
}

#[test]
fn in_a_signal_handler() {
    scenario("in_signal_handler", &times(500, 200));
}

#[test]
fn in_a_signal_handler_with_fork_handlers_that_allocate() {
    scenario("handlers_in_signal_handler", &times(300, 150));
}

#[test]
fn in_a_signal_handler_and_the_child_allocates() {
    scenario("allocates_after_signal_handler", &times(300, 150));
}

/// What is allocated during a fork costs no more memory than what is allocated at other times.
#[test]
fn beside_threads_that_keep_what_they_make() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("fork.c", PLAIN);
    let count = times(1500, 700);
    let ended = passes(common::preloaded(program).args(["keepers", &count]), 150);
    let (kept, resident) = (ended.figure("kept"), ended.figure("resident"));
    eprintln!("{count} forks: {kept} KB kept, {resident} KB resident");
    assert!(resident <= kept + kept / 2 + (16 << 10), "{ended:?}");
}

#[test]
fn beside_threads_with_stream_locks() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("fork.c", PLAIN);
    for _ in 0..20 {
        passes(common::preloaded(&program).args(["streams", &times(30, 15)]), 60);
    }
}

#[test]
fn spawned_programs() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("fork.c", PLAIN);
    let count = times(10_000, 1_000);
    passes(common::preloaded(program).args(["spawn", &count, "/bin/true"]), 150);
}

#[test]
fn programs_started_by_rust() {
    passes(&mut common::child("starts_programs"), 150);
}

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    if common::job::job().is_none() {
        return;
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let words: Vec<String> = (0..100).map(|number| number.to_string()).collect();
                    assert_eq!(words.concat().len(), 190);
                }
            });
        }
        for number in 0..300 {
            let mut command = Command::new("/bin/echo");
            if number % 2 == 0 {
                // A changed environment and working directory.
                command.env("NUMBER", number.to_string()).current_dir("/");
            }
            let output = command.arg(number.to_string()).output().unwrap();
            assert_eq!(output.stdout, format!("{number}\n").into_bytes());
        }
        stop.store(true, Ordering::Relaxed);
    });
}
