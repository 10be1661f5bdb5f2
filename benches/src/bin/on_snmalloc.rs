//! Runs a workload on snmalloc.

use std::process::ExitCode;

use snmalloc_rs::SnMalloc;
use spanalloc_bench::contenders::assertions;
use spanalloc_bench::worker::{self, Linked};

#[global_allocator]
static ALLOCATOR: SnMalloc = SnMalloc;

fn main() -> ExitCode {
    worker::main(&Linked {
        version: || "crate snmalloc-rs 0.7.6".into(),
        notes: "without its checks",
        // Its build takes the type Debug as soon as the Cargo profile asks for any debug info.
        flaw: || assertions(["assert fail:", "{} in {} on {}"]),
        locks: None,
    })
}
