//! What it costs to allocate and to free in a thread's cache, with both policies.
//!
//! `pair` allocates one object and frees it. `batch` allocates 1,000 objects and frees them, the
//! first one first; a unit is one object. `other cache` frees in a second cache what the first one
//! allocated, so that the first one folds.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic")]

mod settings;

use std::alloc::Layout;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use spanalloc_cache::{Checked, Fast, Policy, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::Go67;
use spanalloc_os::Mmap;
use spanalloc_pages::PageHeap;

type Lists = CentralLists<Go67, PageHeap<Mmap>>;

const BATCH: usize = 1000;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

fn cache<P: Policy>(criterion: &mut Criterion, policy: &str) {
    let mut group = criterion.benchmark_group(policy);
    let lists: Lists = CentralLists::new(PageHeap::new(Mmap::new()));
    let mut cache = ThreadCache::<_, P>::with_policy(&lists);
    for size in [5, 64, 1024, 32768, 65536] {
        let layout = layout(size);
        group.bench_function(BenchmarkId::new("pair", size), |bench| {
            bench.iter(|| {
                let object = cache.alloc(black_box(layout)).unwrap();
                // SAFETY: the object was just allocated with this layout.
                unsafe { cache.free(black_box(object), black_box(layout)) };
            });
        });
    }

    let mut other = ThreadCache::<_, P>::with_policy(&lists);
    let mut objects = Vec::with_capacity(BATCH);
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in [16, 64, 1024] {
        let layout = layout(size);
        group.bench_function(BenchmarkId::new("batch", size), |bench| {
            bench.iter(|| {
                objects.extend((0..BATCH).map(|_| cache.alloc(black_box(layout)).unwrap()));
                for object in objects.drain(..) {
                    // SAFETY: the object came from this cache with this layout.
                    unsafe { cache.free(object, black_box(layout)) };
                }
            });
        });
        group.bench_function(BenchmarkId::new("other cache", size), |bench| {
            bench.iter(|| {
                objects.extend((0..BATCH).map(|_| cache.alloc(black_box(layout)).unwrap()));
                for object in objects.drain(..) {
                    // SAFETY: the object came from a cache over the same lists with this layout.
                    unsafe { other.free(object, black_box(layout)) };
                }
            });
        });
    }
    group.finish();
}

fn caches(criterion: &mut Criterion) {
    cache::<Fast>(criterion, "fast");
    cache::<Checked>(criterion, "checked");
}

criterion_group! {
    name = benches;
    config = settings::criterion();
    targets = caches
}
criterion_main!(benches);
