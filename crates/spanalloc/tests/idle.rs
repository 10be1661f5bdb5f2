//! A program that is done with its memory does not keep it.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/chain.rs"]
mod chain;
#[path = "common/children.rs"]
mod children;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use chain::Chain;
use children::{job, run};
use spanalloc::{Checked, Spanalloc, background};

const MB: usize = 1 << 20;
/// The peak of a child.
const PEAK: usize = 1024 * MB;
/// How long a child with the background thread is waited for: twice what is promised, for a machine that
/// has much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Adds `bytes` bytes of objects: half of it in small ones, half in large ones.
fn fill<A: GlobalAlloc>(chain: &mut Chain<A>, bytes: usize, mut seed: u64) {
    for (least, most) in [(32, 32 << 10), (33 << 10, 4 * MB)] {
        let mut left = bytes / 2;
        while left > 0 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // As many of each order of size.
            let span = usize::ilog2(most / least) + 1;
            let size = (least << ((seed >> 33) as u32 % span)).min(most);
            let size = size + (seed >> 40) as usize % size / 2;
            chain.add(size);
            left = left.saturating_sub(size);
        }
    }
}

/// What is left of a peak of 1 GB that `threads` threads made and freed, which then wait, after `wait`.
fn peak_and_wait<A: GlobalAlloc + Sync>(
    allocator: &A,
    threads: usize,
    wait: impl FnOnce(usize) -> usize,
) {
    let (full, empty, end) =
        (Barrier::new(threads + 1), Barrier::new(threads + 1), Barrier::new(threads + 1));
    std::thread::scope(|scope| {
        for seed in 0..threads as u64 {
            let [full, empty, end] = [&full, &empty, &end];
            scope.spawn(move || {
                let mut chain = Chain::new(allocator);
                fill(&mut chain, PEAK / threads, seed);
                full.wait();
                full.wait();
                chain.free_all();
                empty.wait();
                end.wait();
            });
        }
        full.wait();
        let peak = resident();
        assert!(peak > PEAK, "{peak}");
        full.wait();
        empty.wait();
        let left = wait(peak);
        println!("peak {} MB, left {} KB", peak / MB, left / 1024);
        assert!(left < peak / 20, "{} MB of {} MB are left", left / MB, peak / MB);
        end.wait();
    });
}

/// Waits until little is left.
fn wait_in_background(peak: usize) -> usize {
    let began = Instant::now();
    while resident() >= peak / 20 && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("after {:?}", began.elapsed());
    resident()
}

fn on_demand(_peak: usize) -> usize {
    assert!(spanalloc::release() > PEAK / 2);
    resident()
}

/// Forks while the thread is at work; each child allocates, and may have a thread of its own.
fn fork_often() {
    assert!(background::start());
    let layout = Layout::from_size_align(MB, 16).unwrap();
    let work = |count: usize| {
        let objects = Vec::from_iter((0..count).map(|_| {
            // SAFETY: the size is not 0, and the object has it.
            unsafe {
                let object = Spanalloc.alloc(layout);
                object.write_bytes(1, MB);
                object
            }
        }));
        // SAFETY: allocated above with this layout.
        objects.iter().for_each(|object| unsafe { Spanalloc.dealloc(*object, layout) });
    };
    work(500);
    for round in 0..150 {
        work(5);
        std::thread::sleep(Duration::from_millis(round % 30));
        // SAFETY: the child allocates from nothing but `Spanalloc`, of which no other thread is inside.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above; the object has this size.
            unsafe {
                let object = Spanalloc.alloc(layout);
                object.write_bytes(1, MB);
                Spanalloc.dealloc(object, layout);
                let good = spanalloc::release() > 0 && (round % 4 != 0 || background::start());
                libc::_exit(i32::from(!good));
            }
        }
        let mut status = 0;
        // SAFETY: the place is writable.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "round {round}");
    }
}

#[test]
fn child() {
    match job().as_deref() {
        None => {}
        Some("background") => {
            assert!(background::start() && background::start());
            peak_and_wait(&Spanalloc, 1, wait_in_background);
        }
        Some("background, threads") => {
            assert!(background::start());
            peak_and_wait(&Spanalloc, 4, wait_in_background);
        }
        Some("background, checked") => {
            assert!(background::start());
            peak_and_wait(&Checked, 2, wait_in_background);
        }
        Some("forks") => fork_often(),
        Some("demand") => peak_and_wait(&Spanalloc, 1, on_demand),
        Some("demand, threads") => peak_and_wait(&Spanalloc, 4, on_demand),
        Some("demand, checked") => peak_and_wait(&Checked, 2, on_demand),
        Some(other) => panic!("{other}"),
    }
}

#[test]
fn the_background_thread_leaves_little_of_a_gigabyte() {
    run("background");
    run("background, threads");
    run("background, checked");
}

#[test]
fn a_child_of_a_fork_allocates_and_may_have_its_own_thread() {
    run("forks");
}

#[test]
fn one_call_leaves_little_of_a_gigabyte() {
    run("demand");
    run("demand, threads");
    run("demand, checked");
}
