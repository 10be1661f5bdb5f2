//! What the demo's switch between allocators costs: every allocator called directly and through
//! [`Switch`], in turns, each behind a call as a program's allocator is. Run it with `cargo run --release -p spanalloc-cli --example switch_cost`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::time::Instant;

use spanalloc::Spanalloc;
use spanalloc_cli::{Choice, Switch};

static TO_SPANALLOC: Switch = Switch::decided(Choice::Spanalloc);
static TO_SYSTEM: Switch = Switch::decided(Choice::System);

/// Objects allocated before the first of them is freed.
const BATCH: usize = 256;

/// Batches timed at once.
const BATCHES: u32 = 500;

/// # Safety
/// As for `GlobalAlloc::alloc`.
#[inline(never)]
unsafe fn called_alloc(allocator: &impl GlobalAlloc, layout: Layout) -> *mut u8 {
    // SAFETY: the caller's promise is passed on.
    unsafe { allocator.alloc(layout) }
}

/// # Safety
/// As for `GlobalAlloc::dealloc`.
#[inline(never)]
unsafe fn called_free(allocator: &impl GlobalAlloc, object: *mut u8, layout: Layout) {
    // SAFETY: the caller's promise is passed on.
    unsafe { allocator.dealloc(object, layout) }
}

/// Nanoseconds for one allocation and its free.
fn time(allocator: &impl GlobalAlloc) -> f64 {
    let layout = Layout::new::<[u64; 8]>();
    let mut objects = [std::ptr::null_mut(); BATCH];
    let started = Instant::now();
    for _ in 0..BATCHES {
        for object in &mut objects {
            // SAFETY: the layout has a size.
            *object = black_box(unsafe { called_alloc(allocator, black_box(layout)) });
        }
        for object in objects {
            // SAFETY: it comes from this allocator, with this layout, and is freed once.
            unsafe { called_free(allocator, object, black_box(layout)) };
        }
    }
    started.elapsed().as_secs_f64() * 1e9 / (f64::from(BATCHES) * BATCH as f64)
}

fn main() {
    let mut least = [f64::INFINITY; 4];
    for _ in 0..200 {
        let round = [time(&Spanalloc), time(&TO_SPANALLOC), time(&System), time(&TO_SYSTEM)];
        for (least, time) in least.iter_mut().zip(round) {
            *least = least.min(time);
        }
    }
    let [ours, ours_switched, theirs, theirs_switched] = least;
    println!("ns for an allocation and its free, the least of 200 rounds");
    println!("            direct  switch  difference");
    for (name, direct, switched) in
        [("spanalloc", ours, ours_switched), ("system", theirs, theirs_switched)]
    {
        println!("{name:<10} {direct:>7.2} {switched:>7.2} {:>11.2}", switched - direct);
    }
}
