//! Runs one workload on one allocator for some seconds: for profilers.
//!
//! `one ALLOCATOR WORKLOAD SECONDS`; the workload is given by a part of its name.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use spanalloc_bench::clock::thread_time;
use spanalloc_bench::{Plan, Workload, contenders};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let contenders = contenders();
    let workloads = Workload::all();
    let found = match &arguments[..] {
        [name, part, seconds] => contenders
            .iter()
            .find(|entry| entry.name == name)
            .zip(workloads.iter().find(|workload| workload.to_string().contains(part.as_str())))
            .zip(
                seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            ),
        _ => None,
    };
    let Some(((entry, workload), time)) = found else {
        eprintln!("usage: one ALLOCATOR WORKLOAD SECONDS");
        contenders.iter().for_each(|entry| eprintln!("allocator: {}", entry.name));
        workloads.iter().for_each(|workload| eprintln!("workload: {workload}"));
        return ExitCode::FAILURE;
    };
    let mut session = (entry.open)(&Plan::new(workload.clone()));
    let step = (100_000 / workload.pairs_per_unit()).max(1);
    session.run(step);
    let start = thread_time();
    let mut units = 0;
    while thread_time() - start < time {
        session.run(step);
        units += step;
    }
    let elapsed = thread_time() - start;
    let pairs = units * workload.pairs_per_unit();
    let each = elapsed.as_secs_f64() * 1e9 / pairs as f64;
    println!("{workload} on {}: {pairs} pairs, {each:.2} ns each", entry.name);
    ExitCode::SUCCESS
}
