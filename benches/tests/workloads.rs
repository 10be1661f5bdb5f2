//! The workloads free every object once and as it was allocated, with sizes in range.
#![allow(missing_docs, reason = "a test program")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::sync::Mutex;

use spanalloc_bench::contender::Contender;
use spanalloc_bench::workload::{Order, Running};
use spanalloc_bench::{Plan, Session, Workload, contenders};

#[derive(Default)]
struct Counts {
    live: HashMap<usize, Layout>,
    most_live: usize,
    allocated: u64,
    least: usize,
    most: usize,
    /// Places, in the order of allocation, of the objects as they were freed.
    freed: Vec<u64>,
    births: HashMap<usize, u64>,
}

static COUNTS: Mutex<Option<Counts>> = Mutex::new(None);
/// One test at a time uses the counts.
static TURN: Mutex<()> = Mutex::new(());

struct Counting;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let object = unsafe { System.alloc(layout) };
        let mut counts = COUNTS.lock().unwrap();
        let counts = counts.get_or_insert_default();
        assert!(counts.live.insert(object.addr(), layout).is_none());
        counts.births.insert(object.addr(), counts.allocated);
        counts.allocated += 1;
        counts.most_live = counts.most_live.max(counts.live.len());
        counts.least =
            if counts.allocated == 1 { layout.size() } else { counts.least.min(layout.size()) };
        counts.most = counts.most.max(layout.size());
        object
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        {
            let mut counts = COUNTS.lock().unwrap();
            let counts = counts.as_mut().unwrap();
            assert_eq!(counts.live.remove(&object.addr()), Some(layout));
            let birth = counts.births.remove(&object.addr()).unwrap();
            counts.freed.push(birth);
        }
        // SAFETY: both bytes that a user writes lie in the object, which is live.
        unsafe {
            assert_eq!(object.read(), 1);
            if layout.size() >= 64 {
                assert_eq!(object.add(layout.size() - 1).read(), 1);
            }
            System.dealloc(object, layout);
        }
    }
}

impl Contender for Counting {
    const NAME: &'static str = "counting";
    type Allocator = Self;
    const ALLOCATOR: Self = Self;

    fn version() -> String {
        String::new()
    }
}

/// Runs units of a workload and returns what was counted; nothing may be live afterwards.
fn count(workload: &Workload, units: u64) -> Counts {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *COUNTS.lock().unwrap() = None;
    let mut session = Session::<Counting>::open(&Plan::new(workload.clone()));
    session.run(units);
    drop(session);
    let counts = COUNTS.lock().unwrap().take().unwrap();
    assert_eq!(counts.live.len(), 0);
    assert_eq!(counts.freed.len() as u64, counts.allocated);
    counts
}

#[test]
fn pairs() {
    let counts = count(&Workload::Pair { size: 64 }, 100);
    assert_eq!((counts.allocated, counts.most_live), (100, 1));
    assert_eq!((counts.least, counts.most), (64, 64));
}

#[test]
fn batches() {
    for order in [Order::Fifo, Order::Lifo, Order::Random] {
        let counts = count(&Workload::Batch { count: 1000, order, sizes: 8..=1024 }, 3);
        assert_eq!((counts.allocated, counts.most_live), (3000, 1000));
        assert!((8..16).contains(&counts.least) && (1017..=1024).contains(&counts.most));
        let batch = &counts.freed[1000..2000];
        let rising = batch.windows(2).filter(|pair| pair[0] < pair[1]).count();
        match order {
            Order::Fifo => assert_eq!(rising, 999),
            Order::Lifo => assert_eq!(rising, 0),
            Order::Random => assert!((400..600).contains(&rising)),
        }
    }
}

#[test]
fn random_batches_differ() {
    let counts = count(&Workload::Batch { count: 1000, order: Order::Random, sizes: 8..=64 }, 2);
    let second: Vec<u64> = counts.freed[1000..].iter().map(|birth| birth - 1000).collect();
    assert_ne!(counts.freed[..1000], second);
}

#[test]
fn batches_go_on_behind_the_last_random_size() {
    let counts = count(&Workload::Batch { count: 300_000, order: Order::Fifo, sizes: 8..=16 }, 4);
    assert_eq!((counts.allocated, counts.most_live), (1_200_000, 300_000));
}

#[test]
fn replacements() {
    let counts = count(&Workload::Replace { live: 1000, sizes: 8..=64 }, 500);
    // Filled, then replaced three times on average, then what was asked for.
    assert_eq!((counts.allocated, counts.most_live), (1000 + 3000 + 500, 1000));
    assert_eq!((counts.least, counts.most), (8, 64));
}

#[test]
fn every_contender_runs_every_workload() {
    for plan in Workload::all().into_iter().map(Plan::new) {
        for entry in contenders() {
            (entry.open)(&plan).run(2);
        }
    }
    assert!(contenders().iter().all(|entry| !(entry.version)().is_empty()));
}

#[test]
fn names_of_rows_are_unique() {
    let mut names: Vec<String> = Workload::all().iter().map(Workload::to_string).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 13);
}
