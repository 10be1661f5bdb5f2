//! What it costs to find the entry of an address in the span map, and to set those of a run.
//!
//! A lookup is one of 4,096 at addresses in random order, each of another page of `pages`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic")]

mod settings;

use std::hint::black_box;
use std::ptr;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use spanalloc_os::Mmap;
use spanalloc_pages::{PAGE_BYTES, PageHeap, Pages};

const LOOKUPS: usize = 4096;

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("span_map");
    group.throughput(Throughput::Elements(LOOKUPS as u64));
    let heap: PageHeap<Mmap> = PageHeap::new(Mmap::new());
    for pages in [16, 4096, 65536] {
        let run = heap.alloc(pages, 1).unwrap();
        // SAFETY: the run is this function's; nobody follows its entries.
        unsafe { heap.set_span(run.address, pages, ptr::without_provenance_mut(8)) };
        // An odd factor visits every page of a power of two.
        let addresses: Vec<_> = (0..LOOKUPS)
            .map(|n| run.address + n.wrapping_mul(0x9e37_79b1) % pages * PAGE_BYTES + n)
            .collect();
        group.bench_function(BenchmarkId::new("pages", pages), |bench| {
            bench.iter(|| {
                addresses.iter().filter(|&&at| heap.span_of(black_box(at)).is_null()).count()
            });
        });
    }
    let unknown: Vec<_> = (0..LOOKUPS).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    group.bench_function("of no heap", |bench| {
        bench.iter(|| unknown.iter().filter(|&&at| heap.span_of(black_box(at)).is_null()).count());
    });
    group.finish();
}

fn entries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("span_map");
    let heap: PageHeap<Mmap> = PageHeap::new(Mmap::new());
    for pages in [1, 8, 1024] {
        let run = heap.alloc(pages, 1).unwrap();
        group.bench_function(BenchmarkId::new("set", pages), |bench| {
            // SAFETY: the run is this function's; nobody follows its entries.
            bench.iter(|| unsafe {
                heap.set_span(run.address, pages, ptr::without_provenance_mut(black_box(8)));
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = settings::criterion();
    targets = lookups, entries
}
criterion_main!(benches);
