//! Maps whose entries come and go, and trees that are built and dropped.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::time::Duration;

use super::super::measure::{computed, on_threads};
use super::super::{Group, Outcome, Scale, Workload};
use crate::random::Random;

/// A hasher whose keys are the same in every run.
type Hashes = BuildHasherDefault<DefaultHasher>;

/// How many keys there are; half of them are in a map at a time.
const KEYS: u32 = 100_000;

pub(super) fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    for (name, run) in [
        ("hashmap", hash_maps as fn(usize, Scale) -> Outcome),
        ("btreemap", btree_maps),
        ("tree", trees),
    ] {
        all.extend([1, 2, 8].map(|threads| {
            Workload::new(name, Group::Programs, threads, move |scale| run(threads, scale))
        }));
    }
    all
}

/// The time that so many threads take for `work`, each with its number.
fn on_each(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    match threads {
        1 => computed(|_| work(0)),
        _ => on_threads(0..threads, work).0,
    }
}

/// Removes entries of a random key, or enters it. All threads together have as many keys.
fn hash_maps(threads: usize, scale: Scale) -> Outcome {
    let each = scale.of(1_500_000) / threads as u64;
    let elapsed = on_each(threads, |number| {
        let mut random = Random::new(number as u64);
        let mut map: HashMap<String, String, Hashes> = HashMap::default();
        for _ in 0..each {
            let key = format!("key {:07}", random.below(KEYS / threads as u32));
            if map.remove(&key).is_none() {
                map.insert(key, "value ".repeat(1 + random.below(32) as usize));
            }
        }
        drop(black_box(map));
    });
    Outcome::new(each * threads as u64, elapsed)
}

/// The same with a tree of numbers, whose entries have lists of their own.
fn btree_maps(threads: usize, scale: Scale) -> Outcome {
    let each = scale.of(1_500_000) / threads as u64;
    let elapsed = on_each(threads, |number| {
        let mut random = Random::new(number as u64);
        let mut map: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for _ in 0..each {
            let key = random.below(KEYS / threads as u32);
            if map.remove(&key).is_none() {
                map.insert(key, vec![key; 1 + random.below(32) as usize]);
            }
        }
        drop(black_box(map));
    });
    Outcome::new(each * threads as u64, elapsed)
}

/// A node of a binary tree.
struct Node {
    key: u64,
    below: [Option<Box<Node>>; 2],
}

impl Node {
    fn tree(key: u64, height: u32) -> Box<Self> {
        let below = match height {
            1 => [None, None],
            _ => [2 * key, 2 * key + 1].map(|key| Some(Self::tree(key, height - 1))),
        };
        Box::new(Self { key, below })
    }

    fn sum(&self) -> u64 {
        self.key + self.below.iter().flatten().map(|node| node.sum()).sum::<u64>()
    }
}

/// Complete trees, one large one that stays, and smaller ones meanwhile. An operation is a node.
fn trees(threads: usize, scale: Scale) -> Outcome {
    const TALL: u32 = 16;
    const SHORT: u32 = 10;
    let nodes = |height: u32| (1u64 << height) - 1;
    let tall = if scale == Scale::Test { SHORT } else { TALL };
    let each = scale.of(16_000_000) / threads as u64;
    let short = (each.saturating_sub(nodes(tall)) / nodes(SHORT)).max(1);
    let elapsed = on_each(threads, |_| {
        let lasting = Node::tree(1, tall);
        for _ in 0..short {
            black_box(Node::tree(1, SHORT));
        }
        assert_eq!(lasting.sum(), (1 << tall) * nodes(tall) / 2);
    });
    Outcome::new((nodes(tall) + short * nodes(SHORT)) * threads as u64, elapsed)
}
