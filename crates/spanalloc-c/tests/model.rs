//! The C functions against the shadow: random operations of threads that take turns, with forks, in a
//! process under the library. The allocator of Rust's `System` is then the library's.
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

use std::alloc::System;

use common::limited::passes;
use spanalloc_testkit::{Forking, Global, Mix, Threads, run, test};

/// Seconds of a child: enough for the full run.
const SECONDS: u64 = 3600;

#[test]
fn threads_by_turns() {
    passes(&mut common::child("threads"), SECONDS);
}

#[test]
fn one_thread() {
    passes(&mut common::child("one thread"), SECONDS);
}

fn give_back(_most: usize) {
    // SAFETY: a C function without pointers.
    unsafe { libc::malloc_trim(0) };
}

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    let Some(job) = common::job::job() else { return };
    let tested = match &*job {
        "threads" => test(Mix::new().forks(1).scavenges(2), |list| {
            run(Threads::new(System, 3, give_back).unwrap(), list)
        }),
        _ => test(Mix::new().caches(1).forks(1), |list| run(Forking(Global(System)), list)),
    };
    let tested = tested.unwrap();
    println!("{tested}");
    assert!(tested.summary.forks > 0);
}
