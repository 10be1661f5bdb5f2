//! Objects of many pages.

use std::collections::VecDeque;
use std::hint::black_box;

use super::measure::computed;
use super::object::Sizes;
use super::{Group, Outcome, Scale, Workload, replacement};
use crate::random::Random;

const KB: usize = 1 << 10;
const MB: usize = 1 << 20;
/// What a user of memory writes to once in each page.
const PAGE: usize = 4 * KB;

pub(super) fn all() -> Vec<Workload> {
    let alone = |name: &str, run: fn(Scale) -> Outcome| Workload::new(name, Group::Large, 1, run);
    let mut all = vec![
        alone("vec-growth", vec_growth),
        alone("vec-growth-steps", vec_growth_in_steps),
        alone("zeroed-ends", |scale| zeroed(scale, false)),
        alone("zeroed-pages", |scale| zeroed(scale, true)),
    ];
    all.extend([1, 2, 8].map(|threads| {
        let sizes = Sizes::Even(40 * KB as u32..=MB as u32);
        Workload::new("large-40k-1m", Group::Large, threads, move |scale| {
            replacement::run(64, &sizes, threads, scale.of(400_000))
        })
    }));
    all
}

/// A vector that is appended to until it has 64 MB. An operation is a page of bytes.
fn vec_growth(scale: Scale) -> Outcome {
    let (bytes, vectors) = match scale {
        Scale::Test => (MB, 1),
        Scale::Quick => (64 * MB, 1),
        Scale::Full => (64 * MB, 8),
    };
    let page = black_box([1u8; PAGE]);
    let elapsed = computed(|_| {
        for _ in 0..vectors {
            let mut vector = Vec::new();
            for _ in 0..bytes / PAGE {
                vector.extend_from_slice(&page);
            }
            drop(black_box(vector));
        }
    });
    Outcome::new((vectors * (bytes / PAGE)) as u64, elapsed)
}

/// A vector that asks for one more megabyte at a time, until it has 64 MB. An operation is a step.
fn vec_growth_in_steps(scale: Scale) -> Outcome {
    let steps = match scale {
        Scale::Test => 4,
        Scale::Quick => 32,
        Scale::Full => 64,
    };
    let elapsed = computed(|_| {
        let mut vector: Vec<u8> = Vec::new();
        for _ in 0..steps {
            vector.reserve_exact(MB);
            vector.resize(vector.len() + MB, 1);
        }
        drop(black_box(vector));
    });
    Outcome::new(steps, elapsed)
}

/// Blocks of 1 to 16 MB of zeros, of which four live. Their ends are written to, or every page.
fn zeroed(scale: Scale, every_page: bool) -> Outcome {
    const LIVE: usize = 4;
    let (operations, most) = match scale {
        Scale::Test => (64, 2 * MB),
        Scale::Quick => (if every_page { 40 } else { 100 }, 16 * MB),
        Scale::Full => (if every_page { 400 } else { 1_600 }, 16 * MB),
    };
    let sizes = Sizes::Even(MB as u32..=most as u32);
    let mut random = Random::new(1);
    let mut blocks = VecDeque::with_capacity(LIVE + 1);
    let elapsed = computed(|_| {
        for _ in 0..operations {
            let size = sizes.draw(&mut random);
            let mut block = vec![0u8; size];
            let step = if every_page { PAGE } else { size - 1 };
            block.iter_mut().step_by(step).for_each(|byte| *byte = 1);
            blocks.push_back(black_box(block));
            if blocks.len() > LIVE {
                blocks.pop_front();
            }
        }
        blocks.clear();
    });
    Outcome::new(operations, elapsed)
}
