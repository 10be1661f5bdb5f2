//! One object is allocated and freed, again and again.

use std::hint::black_box;

use super::measure::{computed, on_threads};
use super::object::Object;
use super::{Group, Outcome, Scale, Workload};
use crate::bump;

const SIZES: [usize; 7] = [16, 64, 256, 1024, 4096, 16_384, 32_768];
/// The size that several threads use at the same time.
const SHARED: usize = 64;

pub(super) fn all() -> Vec<Workload> {
    let alone = SIZES.map(|size| {
        Workload::new(format!("pair-{size}"), Group::Pairs, 1, move |scale| {
            let operations = operations(size, scale);
            Outcome::new(operations, computed(|_| pairs(size, operations)))
        })
    });
    let together = [2, 8].map(|threads| {
        Workload::new(format!("pair-{SHARED}"), Group::Pairs, threads, move |scale| {
            let each = operations(SHARED, scale) / threads as u64;
            let (elapsed, _) = on_threads(0..threads, |_| pairs(SHARED, each));
            Outcome::new(each * threads as u64, elapsed)
        })
    });
    alone.into_iter().chain(together).collect()
}

fn operations(size: usize, scale: Scale) -> u64 {
    scale.of(if size <= 1024 { 48_000_000 } else { 16_000_000 })
}

fn pairs(size: usize, operations: u64) {
    let size = black_box(size);
    bump::in_ring(|| {
        for _ in 0..operations {
            drop(Object::new(size));
        }
    });
}
