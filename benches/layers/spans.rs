//! What it costs that a span changes hands, and to fold the frees of other threads in it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic")]

mod settings;

use std::hint::black_box;
use std::ptr;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use spanalloc_central::remote::Marked;
use spanalloc_central::{Central, CentralLists, Queue, Span, SpanRef, Stash};
use spanalloc_classes::{ClassTable, Go67};
use spanalloc_os::Mmap;
use spanalloc_pages::PageHeap;

type Lists = CentralLists<Go67, PageHeap<Mmap>>;

/// Takes up to `want` slots and returns how many there were.
fn take(span: SpanRef, want: usize) -> usize {
    let mut slots = vec![ptr::null_mut(); want];
    // SAFETY: this thread is the holder of every span here; the slots have room.
    unsafe { span.take(slots.as_mut_ptr(), want) }.count
}

/// A span goes to the list of its class, and comes back: two turns with the lock of the class.
fn changing_hands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("central");
    for bytes in [64, 1024, 32768] {
        let (lists, queue, stash) =
            (Lists::new(PageHeap::new(Mmap::new())), Queue::<Span>::new(), Stash::new());
        assert_eq!(queue.close().count(), 0);
        let class = Go67::CLASSES.class_of(bytes);
        // One slot of each span stays used, so that central keeps the span; one stays free.
        let mut span = lists.cut(class, &queue, &stash).unwrap();
        assert_eq!(take(span, 1), 1);
        if span.used() < span.slots() {
            group.bench_function(BenchmarkId::new("give and take", bytes), |bench| {
                bench.iter(|| {
                    // SAFETY: the span is this queue's, which is closed and empty, and on no list.
                    unsafe { lists.give(span) };
                    span = lists.take(black_box(class), &queue).unwrap();
                });
            });
        }
        group.bench_function(BenchmarkId::new("cut and release", bytes), |bench| {
            bench.iter(|| {
                let span = lists.cut(black_box(class), &queue, &stash).unwrap();
                // SAFETY: the span was just cut: it is this queue's, on no list and unused.
                unsafe { lists.release(span, &stash) };
            });
        });
    }
    group.finish();
}

/// Another thread frees `marks` slots of a span, and its holder folds them and takes them again.
fn folding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("central");
    let (lists, queue, stash) =
        (Lists::new(PageHeap::new(Mmap::new())), Queue::<Span>::new(), Stash::new());
    let span = lists.cut(Go67::CLASSES.class_of(64), &queue, &stash).unwrap();
    let slots = take(span, span.slots());
    let mut room = vec![ptr::null_mut(); slots];
    for marks in [1, 16, slots] {
        group.bench_function(BenchmarkId::new("mark and fold", marks), |bench| {
            bench.iter(|| {
                // SAFETY: every slot is taken and unused; this thread is the holder, and has the
                // token from the first mark on; `room` has room for all slots.
                unsafe {
                    for slot in 0..marks {
                        assert_ne!(span.mark(slot), Marked::Twice);
                    }
                    assert_eq!(span.fold(), None);
                    assert_eq!(span.take(room.as_mut_ptr(), slots).count, marks);
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = settings::criterion();
    targets = changing_hands, folding
}
criterion_main!(benches);
