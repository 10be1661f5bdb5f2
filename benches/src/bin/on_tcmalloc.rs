//! Runs a workload on TCMalloc.

use std::process::ExitCode;

use spanalloc_bench::contenders::assertions;
use spanalloc_bench::worker::{self, Linked};
use tcmalloc_better::TCMalloc;

#[global_allocator]
static ALLOCATOR: TCMalloc = TCMalloc;

unsafe extern "C" {
    /// Whether it uses its caches of each CPU. It does so only in programs that link the object
    /// with this function.
    safe fn MallocExtension_Internal_GetPerCpuCachesActive() -> bool;
}

fn main() -> ExitCode {
    worker::main(&Linked {
        version: || "crate tcmalloc-better 0.1.19".into(),
        notes: "with its caches of each CPU: GLIBC_TUNABLES=glibc.pthread.rseq=0 is set",
        flaw: || {
            // Its build keeps its assertions as soon as the Cargo profile asks for any debug info.
            assertions(["!ColdFeatureActive() ||", "tag =="]).or_else(without_caches)
        },
        locks: None,
    })
}

fn without_caches() -> Option<String> {
    (!MallocExtension_Internal_GetPerCpuCachesActive())
        .then(|| "its caches of each CPU are off".into())
}
