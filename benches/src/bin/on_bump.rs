//! Runs a workload on a bump allocator that never frees.

use std::process::ExitCode;

use spanalloc_bench::bump::Bump;
use spanalloc_bench::worker::{self, Linked};

#[global_allocator]
static ALLOCATOR: Bump = Bump;

fn main() -> ExitCode {
    worker::main(&Linked::new(|| "a bump allocator that never frees, on pairs only".into()))
}
