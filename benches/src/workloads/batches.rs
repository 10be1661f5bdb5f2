//! All objects of a batch are allocated, then all are freed.

use super::measure::computed;
use super::object::{Object, Sizes};
use super::{Group, Outcome, Scale, Workload};
use crate::random::Random;

/// In which order a batch is freed.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// The oldest first.
    Fifo,
    /// The newest first.
    Lifo,
    /// A random one.
    Random,
}

pub(super) fn all() -> Vec<Workload> {
    use Order::{Fifo, Lifo, Random};
    let mixed = Sizes::Even(16..=256);
    [
        (100, Sizes::One(64), Lifo),
        (100, mixed.clone(), Fifo),
        (1_000, Sizes::One(64), Fifo),
        (1_000, mixed.clone(), Lifo),
        (1_000, mixed.clone(), Random),
        (1_000, Sizes::One(4096), Lifo),
        (100_000, Sizes::One(64), Fifo),
        (100_000, mixed.clone(), Lifo),
        (100_000, mixed.clone(), Random),
        (1_000_000, Sizes::One(64), Lifo),
        (1_000_000, Sizes::One(64), Random),
        (1_000_000, mixed.clone(), Fifo),
        (1_000_000, mixed, Random),
    ]
    .into_iter()
    .map(|(count, sizes, order)| {
        let name = match sizes {
            Sizes::One(size) => format!("batch-{count}-{size}-{order:?}"),
            _ => format!("batch-{count}-mixed-{order:?}"),
        };
        Workload::new(name.to_lowercase(), Group::Batches, 1, move |scale| {
            batches(count, &sizes, order, scale)
        })
    })
    .collect()
}

fn batches(count: u32, sizes: &Sizes, order: Order, scale: Scale) -> Outcome {
    let count = if scale == Scale::Test { count.min(1_000) } else { count };
    let operations = match (count, sizes) {
        // Mostly cache misses.
        (10_000.., _) => 4_000_000,
        // Some allocators give this much memory back to the system at once.
        (_, Sizes::One(4096)) => 1_000_000,
        _ => 24_000_000,
    };
    let rounds = (scale.of(operations) / u64::from(count)).max(1);
    let mut random = Random::new(1);
    let mut objects = Vec::with_capacity(count as usize);
    let elapsed = computed(|clock| {
        for _ in 0..rounds {
            objects.extend((0..count).map(|_| Object::new(sizes.draw(&mut random))));
            match order {
                Order::Fifo => {}
                Order::Lifo => while objects.pop().is_some() {},
                // So that the batch's own table is read in order.
                Order::Random => clock.pause(|| random.shuffle(&mut objects)),
            }
            objects.clear();
        }
    });
    Outcome::new(rounds * u64::from(count), elapsed)
}
