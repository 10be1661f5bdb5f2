//! Random ones of many live objects are replaced.

use hdrhistogram::Histogram;

use super::measure::{computed, histogram, on_threads, sampled};
use super::object::{Object, Sizes};
use super::{Group, Outcome, Scale, Workload};
use crate::random::Random;

/// How often each object is replaced, on average, before the clock starts.
const AGEING: u64 = 3;

pub(super) fn all() -> Vec<Workload> {
    let small = Sizes::Even(16..=256);
    let large = Sizes::Doublings { least: 16, times: 10 };
    [
        (1_000, "256", &small, 1),
        (100_000, "256", &small, 1),
        (100_000, "256", &small, 2),
        (100_000, "256", &small, 8),
        (1_000, "16k", &large, 1),
        (100_000, "16k", &large, 1),
    ]
    .map(|(live, largest, sizes, threads)| {
        let name = format!("replace-{live}-to-{largest}");
        let sizes = sizes.clone();
        Workload::new(name, Group::Replacement, threads, move |scale| {
            let live = if scale == Scale::Test { live.min(1_000) } else { live };
            let operations = scale.of(if live > 10_000 { 6_000_000 } else { 16_000_000 });
            run(live, &sizes, threads, operations)
        })
    })
    .into()
}

/// Replaces so many of the objects that live in all threads together.
pub(super) fn run(live: u32, sizes: &Sizes, threads: usize, operations: u64) -> Outcome {
    if threads == 1 {
        let mut heap = Heap::new(live, sizes.clone(), 1);
        let elapsed = computed(|_| heap.replace(operations));
        return Outcome::new(operations, elapsed).with_latency(heap.latency);
    }
    let each = operations / threads as u64;
    let (elapsed, latencies) = on_threads(0..threads, |number| {
        let mut heap = Heap::new(live / threads as u32, sizes.clone(), number as u64);
        heap.replace(each);
        heap.latency
    });
    let mut latency = histogram();
    latencies.iter().for_each(|of_thread| latency += of_thread);
    Outcome::new(each * threads as u64, elapsed).with_latency(latency)
}

/// Live objects, and how long it took to replace some of them.
pub(super) struct Heap {
    objects: Vec<Object>,
    sizes: Sizes,
    random: Random,
    pub(super) latency: Histogram<u64>,
}

impl Heap {
    /// So many live objects, each of them replaced a few times.
    pub(super) fn new(live: u32, sizes: Sizes, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let objects = (0..live).map(|_| Object::new(sizes.draw(&mut random))).collect();
        let mut heap = Self { objects, sizes, random, latency: histogram() };
        heap.replace(u64::from(live) * AGEING);
        heap.latency.clear();
        heap
    }

    /// Replaces so many random objects.
    pub(super) fn replace(&mut self, operations: u64) {
        let Self { objects, sizes, random, latency } = self;
        let live = objects.len() as u32;
        sampled(operations, latency, || {
            let place = random.below(live) as usize;
            objects[place] = Object::new(sizes.draw(random));
        });
    }
}
