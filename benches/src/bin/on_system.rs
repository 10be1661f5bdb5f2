//! Runs a workload on the allocator of the C library.

use std::alloc::System;
use std::process::ExitCode;

use spanalloc_bench::machine;
use spanalloc_bench::worker::{self, Linked};

#[global_allocator]
static ALLOCATOR: System = System;

fn main() -> ExitCode {
    worker::main(&Linked::new(machine::libc_version))
}
