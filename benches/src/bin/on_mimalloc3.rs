//! Runs a workload on version 3 of mimalloc.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use spanalloc_bench::contenders::{mimalloc_flaw, mimalloc_version};
use spanalloc_bench::worker::{self, Linked};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    worker::main(&Linked {
        version: || mimalloc_version(MiMalloc.version()),
        notes: "not secure; asks for huge pages",
        flaw: || mimalloc_flaw(MiMalloc.version(), 3),
        locks: None,
    })
}
