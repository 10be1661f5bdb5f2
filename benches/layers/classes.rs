//! What it costs to find the class of a size, the class of a size and an alignment, and the slot
//! that an offset lies in. A measured unit is one of 4,096 random requests.
#![allow(missing_docs, reason = "a benchmark is no interface")]

mod settings;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spanalloc_classes::{ClassTable, Go67, MAX_SMALL};

const REQUESTS: usize = 4096;

/// Numbers below `bound`, the same in every run.
fn numbers(bound: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % bound
    })
    .take(REQUESTS)
    .collect()
}

fn classes(criterion: &mut Criterion) {
    let table = Go67::CLASSES;
    let mut group = criterion.benchmark_group("classes");
    group.throughput(Throughput::Elements(REQUESTS as u64));
    for (name, bound) in [("up to 1 KB", 1024), ("up to 32 KB", MAX_SMALL + 1)] {
        let sizes = numbers(bound);
        group.bench_function(format!("class_of/{name}"), |bench| {
            bench.iter(|| {
                sizes.iter().map(|&size| u32::from(table.class_of(black_box(size)))).sum::<u32>()
            });
        });
    }
    let requests: Vec<_> =
        numbers(1024).into_iter().zip(numbers(7)).map(|(size, log)| (size, 1 << log)).collect();
    group.bench_function("class_for/aligned to 1 to 64", |bench| {
        bench.iter(|| {
            let classes = requests.iter().map(|&(size, align)| {
                u32::from(table.class_for(black_box(size), black_box(align)))
            });
            classes.sum::<u32>()
        });
    });
    let class = table.class(table.class_of(96));
    let offsets: Vec<_> =
        numbers(class.span_bytes() as usize).into_iter().map(|offset| offset as u32).collect();
    group.bench_function("slot of an offset", |bench| {
        bench.iter(|| {
            offsets.iter().map(|&offset| class.index(black_box(offset))).fold(0, u32::wrapping_add)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = settings::criterion();
    targets = classes
}
criterion_main!(benches);
