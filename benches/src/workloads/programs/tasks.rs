//! Work that libraries hand out to their threads.

use std::hint::black_box;

use rayon::prelude::*;
use tokio::task;

use super::super::measure::on_pool;
use super::super::{Group, Outcome, Scale, Workload};
use crate::random::Random;

pub(super) fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    for (name, run) in [("rayon-sort", sort as fn(usize, Scale) -> Outcome), ("futures", futures)] {
        all.extend([2, 8].map(|threads| {
            Workload::new(name, Group::Programs, threads, move |scale| run(threads, scale))
        }));
    }
    all
}

/// Strings are made, sorted and dropped, all in parallel. An operation is a string.
fn sort(threads: usize, scale: Scale) -> Outcome {
    let strings = scale.of(600_000);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.expect("the system has threads");
    let elapsed = on_pool(|| {
        pool.install(|| {
            let mut names: Vec<String> = (0..strings)
                .into_par_iter()
                .map(|seed| format!("name {:05} {seed}", Random::new(seed).below(100_000)))
                .collect();
            names.par_sort();
            black_box(names).into_par_iter().for_each(drop);
        });
    });
    Outcome::new(strings, elapsed)
}

/// Many small tasks: each has a buffer, lets others run, and returns a part of it.
fn futures(threads: usize, scale: Scale) -> Outcome {
    const TASKS_AT_A_TIME: u64 = 512;
    let rounds = (scale.of(500_000) / TASKS_AT_A_TIME).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).build();
    let runtime = runtime.expect("the system has threads");
    let main = async move {
        let mut total = 0;
        for round in 0..rounds {
            let tasks: Vec<_> = (0..TASKS_AT_A_TIME)
                .map(|index| {
                    let mut random = Random::new(round * TASKS_AT_A_TIME + index);
                    task::spawn(async move {
                        let mut buffer = vec![1u8; 16 + random.below(512) as usize];
                        task::yield_now().await;
                        buffer.split_off(8)
                    })
                })
                .collect();
            for task in tasks {
                total += task.await.expect("a task does not panic").len();
            }
        }
        total
    };
    let elapsed = on_pool(|| {
        let total = runtime.block_on(runtime.spawn(main)).expect("a task does not panic");
        assert!(total > 0);
        drop(runtime);
    });
    Outcome::new(rounds * TASKS_AT_A_TIME, elapsed)
}
