//! Counts the instructions of one pair: runs pairs of a size on an allocator, so many times, for
//! `valgrind --tool=callgrind`.
//!
//! `pair ALLOCATOR SIZE COUNT`; the difference between two counts is free of what starts and ends
//! the program.

use std::env;
use std::process::ExitCode;

use spanalloc_bench::{Plan, Workload, contenders};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let parsed = match &arguments[..] {
        [name, size, count] => contenders()
            .into_iter()
            .find(|entry| entry.name == name)
            .zip(size.parse::<u16>().ok().filter(|size| *size > 0))
            .zip(count.parse().ok()),
        _ => None,
    };
    let Some(((entry, size), count)) = parsed else {
        eprintln!("usage: pair ALLOCATOR SIZE COUNT (a size of 1 to 65535)");
        return ExitCode::FAILURE;
    };
    (entry.open)(&Plan::new(Workload::Pair { size: usize::from(size) })).run(count);
    ExitCode::SUCCESS
}
