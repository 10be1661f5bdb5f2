//! What threads keep is bounded: idle ones, ended ones, and those that make what others free.
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
use std::ptr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use chain::Chain;
use children::{job, run};
use spanalloc::stats::{self, Snapshot};
use spanalloc::{Checked, Spanalloc, checked};

const MB: usize = 1 << 20;

/// Bytes of this process that are in memory and of no file.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

struct Random(u64);

impl Random {
    /// A number below `below`.
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (self.0 >> 33) as usize % below
    }

    /// A size whose order of magnitude is as likely as any other.
    fn size(&mut self, least: usize, most: usize) -> usize {
        let size = least << self.below((most / least).ilog2() as usize);
        size + self.below(size)
    }
}

/// Adds objects of `least` to `most` bytes, `bytes` in all.
fn fill<A: GlobalAlloc>(
    chain: &mut Chain<A>,
    bytes: usize,
    (least, most): (usize, usize),
    random: &mut Random,
) {
    let mut left = bytes;
    while left > 0 {
        let size = random.size(least, most);
        chain.add(size);
        left = left.saturating_sub(size);
    }
}

/// Waits until all other threads of this process sleep.
fn wait_until_all_sleep() {
    let asleep = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat"));
        stat.is_ok_and(|stat| stat[stat.rfind(')').unwrap()..].starts_with(") S"))
    };
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().map(asleep);
    // This one is awake.
    while threads().filter(|asleep| !asleep).count() > 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Who takes what threads keep that sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// One call.
    Release,
    /// The background thread.
    Background,
}

/// 400 threads, in a debug build 200, allocate 10 MB each of objects of these sizes, some threads after others, free them, and wait: for
/// good, as far as the allocator knows. What is left for each of them.
fn idle_threads<A: GlobalAlloc + Sync>(allocator: &A, sizes: (usize, usize), by: By) {
    const THREADS: usize = if cfg!(debug_assertions) { 200 } else { 400 };
    const AT_ONCE: usize = 20;
    let all = Barrier::new(THREADS + 1);
    let some = [(); THREADS / AT_ONCE].map(|()| Barrier::new(AT_ONCE + 1));
    assert!(by == By::Release || spanalloc::background::start());
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (all, some) = (&all, &some[number / AT_ONCE]);
            scope.spawn(move || {
                // The stack is not the allocator's: what it takes is taken before.
                std::hint::black_box([1_u8; 64 << 10]);
                let mut chain = Chain::new(allocator);
                all.wait();
                some.wait();
                fill(&mut chain, 10 * MB, sizes, &mut Random(number as u64));
                some.wait();
                chain.free_all();
                some.wait();
                all.wait();
                // They are as good as new.
                fill(&mut chain, MB / 10, sizes, &mut Random(number as u64));
                chain.free_all();
                all.wait();
            });
        }
        all.wait();
        let before = resident();
        let more = || resident().saturating_sub(before);
        for some in &some {
            some.wait();
            some.wait();
            some.wait();
            match by {
                By::Release => _ = spanalloc::release(),
                // It has the time that it needs.
                By::Background => wait_until(|| more() < 600 * MB),
            }
        }
        wait_until_all_sleep();
        match by {
            By::Release => _ = spanalloc::release(),
            By::Background => wait_until(|| more() / THREADS <= 64 << 10),
        }
        let left = more() / THREADS / 1024;
        println!("{left} KB a thread");
        // Nobody waits for ever if this is too much.
        all.wait();
        all.wait();
        assert!(left <= 64, "{left} KB");
    });
}

/// Waits until something is so, or for two minutes: memory goes back at the cost of a percent of a processor.
fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Pages that are no free pages of a heap, without those that became tables.
fn pages_in_use(snapshot: fn() -> Snapshot) -> usize {
    let pages = snapshot().pages;
    pages.pages_in_use - pages.metadata_pages
}

/// 200 threads, some after others, allocate 10 MB each, free it, and end.
fn ended_threads<A: GlobalAlloc + Sync>(allocator: &A, snapshot: fn() -> Snapshot) {
    let (before, pages) = (resident(), pages_in_use(snapshot));
    for round in 0..10 {
        std::thread::scope(|scope| {
            for number in 0..20 {
                scope.spawn(move || {
                    let mut chain = Chain::new(allocator);
                    fill(&mut chain, 10 * MB, (24, MB), &mut Random(round * 20 + number));
                    chain.free_all();
                });
            }
        });
    }
    // The end of a scope does not wait for what a thread does after its last own word.
    let mut left = usize::MAX;
    for _ in 0..1000 {
        left = (pages_in_use(snapshot) - pages) * 8192;
        if left <= 2 * MB {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("parked: {} KB", left / 1024);
    assert!(left <= 2 * MB, "{left} bytes");
    spanalloc::release();
    let growth = resident().saturating_sub(before);
    println!("left: {} KB", growth / 1024);
    assert_eq!(pages_in_use(snapshot), pages);
    assert!(growth <= 4 * MB, "{growth} bytes: the tables, of a peak of 200 MB");
}

/// One thread makes 3 million objects, another frees them; it keeps the newest, some 40 MB, so that how far the
/// threads are apart makes no difference.
fn pipeline<A: GlobalAlloc + Sync>(allocator: &A) {
    const COUNT: usize = 3_000_000;
    const KEPT: usize = 80_000;
    const SIZES: (usize, usize) = (16, 1016);
    let ring = [const { AtomicPtr::new(ptr::null_mut::<u8>()) }; 1024];
    let layout = |random: &mut Random| {
        Layout::from_size_align(SIZES.0 + random.below(SIZES.1 - SIZES.0), 8).unwrap()
    };
    let place = |number: usize| &ring[number % ring.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(11);
            let mut kept = vec![ptr::null_mut(); KEPT];
            for number in 0..COUNT + KEPT {
                let object = loop {
                    let object = place(number).swap(ptr::null_mut(), Ordering::Acquire);
                    if !object.is_null() || number >= COUNT {
                        break object;
                    }
                    std::thread::yield_now();
                };
                let oldest = std::mem::replace(&mut kept[number % KEPT], object);
                if !oldest.is_null() {
                    // SAFETY: the other thread made it with this layout.
                    unsafe { allocator.dealloc(oldest, layout(&mut random)) };
                }
            }
        });
        let (mut random, mut early) = (Random(11), 0);
        for number in 0..COUNT {
            if number == COUNT / 10 {
                early = resident();
            }
            let layout = layout(&mut random);
            // SAFETY: the size is not 0, and the object has it.
            let object = unsafe {
                let object = allocator.alloc(layout);
                object.write_bytes(1, layout.size());
                object
            };
            while !place(number).load(Ordering::Relaxed).is_null() {
                std::thread::yield_now();
            }
            place(number).store(object, Ordering::Release);
        }
        let late = resident();
        println!("{} KB after a tenth, {} KB in the end", early / 1024, late / 1024);
        assert!(early > 36 * MB, "{early}: the objects that are kept");
        assert!(late <= early + early / 10, "{early} {late}");
    });
}

/// A peak of 128 MB, of which 90 % are freed at random; then as much is allocated again in objects of other
/// sizes, while nearly every span of the peak has a live one. `most` is how many percent of what the objects have may be in memory.
fn fragments<A: GlobalAlloc>(allocator: &A, most: usize) {
    let before = resident();
    let mut random = Random(5);
    let mut kept = Chain::new(allocator);
    let mut freed = Chain::new(allocator);
    let (mut live, mut again) = (0, 0);
    while live + again < 128 * MB {
        let size = random.size(24, 2048);
        let (chain, bytes) = match random.below(10) {
            0 => (&mut kept, &mut live),
            _ => (&mut freed, &mut again),
        };
        chain.add(size);
        *bytes += size;
    }
    freed.free_all();
    let low = resident() - before;
    println!("{} KB for {} KB of the peak", low / 1024, live / 1024);
    while live < 128 * MB {
        let size = random.size(40, 16 << 10) * 5 / 4;
        kept.add(size);
        live += size;
    }
    let percent = (resident() - before) / (live / 100);
    println!("{percent} % of {} MB", live / MB);
    kept.free_all();
    assert!(percent <= most, "{percent}");
}

/// What all threads keep of small objects that were freed: in their bins, in empty spans, and in the pages that the
/// next spans are cut from.
fn kept(snapshot: &Snapshot) -> usize {
    let in_bins: usize = snapshot.rows().map(|row| row.cached * row.slot_bytes).sum();
    in_bins + (snapshot.empty_pages + snapshot.cached_pages) * 8192
}

/// What one thread keeps while it allocates and frees small objects in every way, and afterwards, if it may keep a
/// megabyte.
fn bounded<A: GlobalAlloc>(allocator: &A, snapshot: fn() -> Snapshot) {
    const SIZES: [(usize, usize); 5] =
        [(24, 48), (24, 1024), (1024, 8192), (8192, 32 << 10), (24, 32 << 10)];
    spanalloc::set_thread_cache(MB);
    let mut random = Random(3);
    let mut most = 0;
    let mut look = |when: &str, sizes: (usize, usize)| {
        let kept = kept(&snapshot());
        assert!(kept <= MB, "{kept} bytes {when}, of objects of {sizes:?} bytes");
        most = most.max(kept);
    };
    for sizes in SIZES.into_iter().chain(SIZES.into_iter().rev()) {
        // All at once, in batches, and beside others that stay.
        let mut stays = Chain::new(allocator);
        for bytes in [8 * MB, MB / 2, MB / 2, 3 * MB, MB] {
            let mut all = Chain::new(allocator);
            for _ in 0..bytes / 64 / 1024 {
                fill(&mut all, 60 << 10, sizes, &mut random);
                look("while it allocates", sizes);
                fill(&mut stays, 4 << 10, sizes, &mut random);
            }
            all.free_all();
            look("when all is free", sizes);
        }
        // One in, one out.
        for _ in 0..500 {
            let mut few = Chain::new(allocator);
            fill(&mut few, 1 << random.below(18), sizes, &mut random);
            few.free_all();
            look("as some come and go", sizes);
        }
        stays.free_all();
        look("in the end", sizes);
    }
    println!("{} KB at most", most / 1024);
    assert!(most > MB / 2, "{most} bytes: nothing to bound");
}

#[test]
fn child() {
    match job().as_deref() {
        None => {}
        Some("idle, small") => idle_threads(&Spanalloc, (24, 1024), By::Release),
        Some("idle, mixed") => idle_threads(&Spanalloc, (24, MB), By::Release),
        Some("idle, background") => idle_threads(&Spanalloc, (24, MB), By::Background),
        Some("idle, small, checked") => idle_threads(&Checked, (24, 1024), By::Release),
        Some("idle, mixed, checked") => idle_threads(&Checked, (24, MB), By::Release),
        Some("idle, background, checked") => idle_threads(&Checked, (24, MB), By::Background),
        Some("ended") => ended_threads(&Spanalloc, stats::snapshot),
        Some("ended, checked") => ended_threads(&Checked, checked::snapshot),
        Some("pipeline") => pipeline(&Spanalloc),
        Some("pipeline, checked") => pipeline(&Checked),
        Some("bounded") => bounded(&Spanalloc, stats::snapshot),
        Some("bounded, checked") => bounded(&Checked, checked::snapshot),
        Some("fragments") => fragments(&Spanalloc, 200),
        Some("fragments, checked") => fragments(&Checked, 200),
        Some(other) => panic!("{other}"),
    }
}

#[test]
fn idle_threads_keep_little() {
    run("idle, small");
    run("idle, mixed");
    run("idle, small, checked");
    run("idle, mixed, checked");
}

#[test]
fn idle_threads_keep_little_beside_the_background_thread() {
    run("idle, background");
    run("idle, background, checked");
}

#[test]
fn a_thread_keeps_as_much_as_it_may() {
    run("bounded");
    run("bounded, checked");
}

#[test]
fn threads_that_ended_keep_nothing() {
    run("ended");
    run("ended, checked");
}

#[test]
fn one_makes_what_another_frees() {
    run("pipeline");
    run("pipeline, checked");
}

#[test]
fn what_many_small_gaps_are_left_in_is_used_again() {
    run("fragments");
    run("fragments, checked");
}
