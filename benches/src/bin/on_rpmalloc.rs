//! Runs a workload on rpmalloc.

use std::process::ExitCode;

use rpmalloc::RpMalloc;
use spanalloc_bench::contenders::assertions;
use spanalloc_bench::worker::{self, Linked};

#[global_allocator]
static ALLOCATOR: RpMalloc = RpMalloc;

fn main() -> ExitCode {
    worker::main(&Linked {
        version: || "crate rpmalloc 0.2.2".into(),
        notes: "without its assertions",
        flaw: || assertions(["Invalid mmap", "size ("]),
        locks: None,
    })
}
