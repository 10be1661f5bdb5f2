//! What idle threads keep under the library.
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

use std::fs;
use std::ptr;
use std::sync::Barrier;
use std::time::Duration;

use common::calls::{free, malloc, malloc_trim};
use common::job::{job, say};
use common::limited::passes;

const THREADS: usize = 400;
/// Threads that have their memory at the same time.
const AT_ONCE: usize = 20;
const MB: usize = 1 << 20;

/// Bytes of this process that are in memory and of no file.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// Allocates and fills 10 MB in objects of up to `most` bytes, and frees them.
fn come_and_go(most: usize, number: usize) {
    let mut first: *mut *mut u8 = ptr::null_mut();
    let (mut left, mut size) = (10 * MB, 24 + number % 16);
    while left > 0 {
        let object = malloc(size);
        // SAFETY: the object has this size; each begins with the address of the one before.
        unsafe {
            object.write_bytes(1, size);
            object.cast::<*mut *mut u8>().write(first);
        }
        first = object.cast();
        left = left.saturating_sub(size);
        size += size / 7;
        if size > most {
            size = 24 + number % 16;
        }
    }
    while !first.is_null() {
        // SAFETY: the object is live.
        let next = unsafe { first.read() }.cast();
        free(first.cast());
        first = next;
    }
}

/// Waits until something is so, or for two minutes: memory goes back at the cost of a percent of a processor.
fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether all other threads of this process sleep.
fn all_sleep() -> bool {
    let asleep = |thread: std::io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(thread.unwrap().path().join("stat"));
        stat.is_ok_and(|stat| stat[stat.rfind(')').unwrap()..].starts_with(") S"))
    };
    let threads = fs::read_dir("/proc/self/task").unwrap().map(asleep);
    threads.filter(|asleep| !asleep).count() <= 1
}

/// What a child does, in its own process: a test that does nothing in this one. Its threads allocate, free, and
/// wait: for good, as far as the library knows.
#[test]
fn child() {
    let Some(name) = job() else { return };
    let (trims, most) = name.split_once(' ').unwrap();
    let (trims, most) = (trims == "trims", most.parse().unwrap());
    let all = Barrier::new(THREADS + 1);
    let some = [(); THREADS / AT_ONCE].map(|()| Barrier::new(AT_ONCE + 1));
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (all, some) = (&all, &some[number / AT_ONCE]);
            scope.spawn(move || {
                // The stack is not the allocator's: what it takes is taken before.
                std::hint::black_box([1_u8; 64 << 10]);
                all.wait();
                some.wait();
                come_and_go(most, number);
                some.wait();
                all.wait();
                // They are as good as new.
                free(malloc(most));
                all.wait();
            });
        }
        all.wait();
        let before = resident();
        let more = || resident().saturating_sub(before);
        for some in &some {
            some.wait();
            some.wait();
            if trims {
                assert_eq!(malloc_trim(), 1);
            } else {
                wait_until(|| more() < 600 * MB);
            }
        }
        wait_until(all_sleep);
        if trims {
            assert_eq!(malloc_trim(), 1);
        } else {
            wait_until(|| more() / THREADS <= 64 << 10);
        }
        say("left", more() / THREADS);
        all.wait();
        all.wait();
    });
}

#[track_caller]
fn keep_little(how: &str, background: &str) {
    for most in ["1024", "1000000"] {
        let mut command = common::child(&format!("{how} {most}"));
        let ended = passes(command.env("SPANALLOC_BACKGROUND", background), 240);
        let left = ended.figure("left");
        assert!(left <= 64 << 10, "{left} bytes a thread, of objects of up to {most} bytes");
        eprintln!("{how}, up to {most}: {left} bytes a thread");
    }
}

#[test]
fn idle_threads_keep_little_after_one_call() {
    keep_little("trims", "0");
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "a library that is not optimised gives too little back in its percent"
)]
fn idle_threads_keep_little_beside_the_background_thread() {
    keep_little("waits", "1");
}
