//! Every workload does as many operations as it says, writes to what it allocates, and frees all of
//! it as it was allocated: the global allocator of this program keeps the books.
#![allow(missing_docs, reason = "a test program")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use spanalloc_bench::workloads::{self, Group, Outcome, Scale, Workload};

/// Before each object lies the layout it was allocated with.
struct Checking;

#[global_allocator]
static ALLOCATOR: Checking = Checking;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);
/// Objects that were freed with another layout than they were allocated with.
static WRONG: AtomicU64 = AtomicU64::new(0);
/// Freed objects whose ends were written to as objects of the workloads are.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
/// Freed objects of at least a megabyte.
static HUGE: AtomicU64 = AtomicU64::new(0);

/// What fresh memory is filled with.
const FRESH: u8 = 0xA5;

/// The layout of an object with what lies before it, and where the object begins in that.
fn outer(layout: Layout) -> (Layout, usize) {
    Layout::new::<Layout>().extend(layout).unwrap()
}

// SAFETY: an object lies within what the system's allocator returns, as aligned as was asked for.
unsafe impl GlobalAlloc for Checking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (all, offset) = outer(layout);
        // SAFETY: the size is not 0; the header, the object and its ends lie within `all`.
        unsafe {
            let start = System.alloc(all);
            assert!(!start.is_null());
            let object = start.add(offset);
            object.cast::<Layout>().sub(1).write(layout);
            object.write(FRESH);
            object.add(layout.size() - 1).write(FRESH);
            ALLOCATED.fetch_add(1, Relaxed);
            object
        }
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the header was written when the object was allocated, and is right even if
        // `layout` is not.
        unsafe {
            let header = object.cast::<Layout>().sub(1).read();
            let end = object.add(header.size() - 1);
            let written = object.read() == 1 && (header.size() < 64 || end.read() == 1);
            WRITTEN.fetch_add(u64::from(written), Relaxed);
            HUGE.fetch_add(u64::from(header.size() >= 1 << 20), Relaxed);
            WRONG.fetch_add(u64::from(header != layout), Relaxed);
            FREED.fetch_add(1, Relaxed);
            let (all, offset) = outer(header);
            System.dealloc(object.sub(offset), all);
        }
    }
}

/// What a run did.
#[derive(Debug)]
struct Counts {
    allocated: u64,
    written: u64,
    huge: u64,
}

/// Runs a workload, and waits until everything it allocated is free again, but for `kept` objects.
fn run(workload: &Workload, kept: u64) -> (u64, Option<u64>, Counts) {
    let read = || [&ALLOCATED, &FREED, &WRITTEN, &HUGE].map(|count| count.load(Relaxed));
    let before = read();
    let Outcome { operations, latency, .. } = workload.run(Scale::Test);
    let sampled = latency.map(|histogram| histogram.len());
    let start = Instant::now();
    let [allocated, written, huge] = loop {
        let after = read();
        let [allocated, freed, written, huge] =
            [0, 1, 2, 3].map(|index| after[index] - before[index]);
        if allocated.abs_diff(freed) <= kept {
            break [allocated, written, huge];
        }
        // A pool may end its threads after it was dropped.
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{workload:?} leaks: {allocated} allocated, {freed} freed"
        );
        thread::sleep(Duration::from_millis(1));
    };
    (operations, sampled, Counts { allocated, written, huge })
}

/// How many objects a workload allocates beside those of its operations, and in each of these.
fn expected(workload: &Workload, operations: u64) -> u64 {
    let threads = workload.threads as u64;
    match workload.name.split('-').next() {
        Some("pair" | "batch" | "producer" | "exchange" | "tiny" | "fragmentation") => operations,
        // Filled, and each replaced three times on average.
        Some("replace") => operations + 4 * 1_000,
        Some("larson") => operations + 4 * 1_000 * threads,
        Some("large") => operations + 4 * 64,
        Some("thread") => operations * 100,
        _ => unreachable!("{workload:?}"),
    }
}

#[test]
fn workloads_do_what_they_say() {
    for workload in workloads::all() {
        // Libraries keep something from their first use. The queues of rayon's threads are freed a
        // few at a time, by whoever uses such a queue later.
        let (first, ..) = run(&workload, 16);
        let kept = if workload.name.starts_with("rayon") { 16 } else { 0 };
        let (operations, sampled, counts) = run(&workload, kept);
        let name = &workload.name;
        assert_eq!(first, operations, "{name}");
        assert!(operations >= 4, "{name}");
        match name.as_str() {
            "zeroed-pages" | "zeroed-ends" => assert_eq!(counts.huge, operations, "{name}"),
            "vec-growth" => assert_eq!(counts.huge, 1, "{name}"),
            "vec-growth-steps" => assert_eq!(counts.huge, operations, "{name}"),
            _ if workload.group == Group::Programs => {
                assert!(counts.allocated * 2 > operations, "{name}: {counts:?}");
            }
            _ => {
                let expected = expected(&workload, operations);
                assert_eq!(counts.written, expected, "{name}");
            }
        }
        if let Some(sampled) = sampled {
            let threads = workload.threads as u64;
            assert!(
                (operations / 128..=operations / 128 + 128 * threads).contains(&sampled),
                "{name}: {sampled}"
            );
        }
        assert_eq!(WRONG.load(Relaxed), 0, "{name} frees with a wrong layout");
    }
}
