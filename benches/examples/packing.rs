//! What packing tiny objects costs and saves, and what more classes for them do: time and memory per
//! object for three policies and two tables.
//!
//! `packing [OBJECTS]`; strings of 1 to 16 bytes, and of 1 to 7 bytes, are allocated, then freed in
//! a random order.

use std::alloc::Layout;
use std::env;
use std::process::ExitCode;
use std::ptr::NonNull;
use std::time::Instant;

use spanalloc_bench::Random;
use spanalloc_cache::{Magazines, Policy, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::{ClassTable, Fine72, Go67};
use spanalloc_os::Mmap;
use spanalloc_pages::{PAGE_BYTES, PageHeap};

/// Packs nothing.
struct Pack0;
/// Packs what is smaller than the smallest class.
struct Pack7;
/// Packs all that a shared slot holds.
struct Pack16;

impl Policy for Pack0 {
    type Bin = Magazines;
    const PACK_MAX: usize = 0;
}
impl Policy for Pack7 {
    type Bin = Magazines;
    const PACK_MAX: usize = 7;
}
impl Policy for Pack16 {
    type Bin = Magazines;
    const PACK_MAX: usize = 16;
}

/// Allocates and frees the objects, and prints a row.
fn measure<T: ClassTable, P: Policy>(sizes: &[u8], order: &[u32]) -> Option<()> {
    let heap: PageHeap<Mmap> = PageHeap::new(Mmap::new());
    let central: CentralLists<T, _> = CentralLists::new(&heap);
    let mut cache: ThreadCache<_, P> = ThreadCache::with_policy(&central);
    let mut objects: Vec<NonNull<u8>> = Vec::with_capacity(sizes.len());
    let layout = |size: u8| Layout::from_size_align(usize::from(size), 1).ok();
    // Metadata of the cache itself does not count.
    let first = cache.alloc(Layout::new::<u8>())?;
    let before = cache.snapshot()?.pages.metadata_in_use;
    let start = Instant::now();
    for &size in sizes {
        let object = cache.alloc(layout(size)?)?;
        // SAFETY: the object has at least one byte.
        unsafe { object.write(1) };
        objects.push(object);
    }
    let allocated = start.elapsed();
    let snapshot = cache.snapshot()?;
    let bytes: usize = snapshot.rows().map(|row| row.pages * PAGE_BYTES).sum::<usize>()
        + snapshot.pages.metadata_in_use
        - before;
    let start = Instant::now();
    for &index in order {
        let index = index as usize;
        // SAFETY: the order is a permutation, so each object is freed once, with its layout.
        unsafe { cache.free(objects[index], layout(sizes[index])?) };
    }
    let freed = start.elapsed();
    // SAFETY: as above.
    unsafe { cache.free(first, Layout::new::<u8>()) };
    let each = |time: std::time::Duration| time.as_secs_f64() * 1e9 / sizes.len() as f64;
    println!(
        "  {} classes, packed up to {:2} B: alloc {:5.1} ns, free {:5.1} ns, {:5.2} bytes an object",
        T::CLASSES.count(),
        P::PACK_MAX,
        each(allocated),
        each(freed),
        bytes as f64 / sizes.len() as f64
    );
    Some(())
}

fn main() -> ExitCode {
    let count: Option<u32> = env::args().nth(1).map_or(Some(2_000_000), |text| text.parse().ok());
    let Some(count) = count.filter(|count| *count > 0) else {
        eprintln!("usage: packing [OBJECTS]");
        return ExitCode::FAILURE;
    };
    let mut random = Random::new(1);
    let order = random.permutation(count);
    for largest in [16u32, 7] {
        let sizes: Vec<u8> = (0..count).map(|_| 1 + random.below(largest) as u8).collect();
        println!("{count} objects of 1 to {largest} bytes, freed in random order:");
        let rows = measure::<Go67, Pack0>(&sizes, &order)
            .and_then(|()| measure::<Go67, Pack7>(&sizes, &order))
            .and_then(|()| measure::<Go67, Pack16>(&sizes, &order))
            .and_then(|()| measure::<Fine72, Pack0>(&sizes, &order));
        if rows.is_none() {
            eprintln!("out of memory");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
