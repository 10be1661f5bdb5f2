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

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    let Some(name) = job() else { return };
    let most = name.parse().unwrap();
    let all = Barrier::new(THREADS + 1);
    let some = [(); THREADS / AT_ONCE].map(|()| Barrier::new(AT_ONCE + 1));
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (all, some) = (&all, &some[number / AT_ONCE]);
            scope.spawn(move || {
                all.wait();
                some.wait();
                come_and_go(most, number);
                some.wait();
                all.wait();
                // Too large to be kept.
                free(malloc(2 * MB));
                all.wait();
                all.wait();
            });
        }
        all.wait();
        let before = resident();
        for some in &some {
            some.wait();
            some.wait();
            assert_eq!(malloc_trim(), 1);
        }
        all.wait();
        all.wait();
        assert_eq!(malloc_trim(), 1);
        say("left", resident().saturating_sub(before) / THREADS);
        all.wait();
    });
}

#[test]
fn idle_threads_keep_little_once_they_came_by() {
    for most in ["1024", "1000000"] {
        let ended = passes(&mut common::child(most), 120);
        let left = ended.figure("left");
        assert!(left <= 64 << 10, "{left} bytes a thread, of objects of up to {most} bytes");
        eprintln!("up to {most}: {left} bytes a thread");
    }
}
