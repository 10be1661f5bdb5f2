//! Runs a workload on spanalloc with the policy `Fast`.

use std::process::ExitCode;

use spanalloc::Spanalloc;
use spanalloc_bench::locks::Locks;
use spanalloc_bench::worker::{self, Linked};

#[global_allocator]
static ALLOCATOR: Spanalloc = Spanalloc;

fn main() -> ExitCode {
    let mut linked = Linked::new(|| format!("{}, policy Fast", env!("CARGO_PKG_VERSION")));
    linked.locks = Some(|| {
        let snapshot = spanalloc::stats::snapshot();
        Locks { central: snapshot.central_locks, heap: snapshot.pages.heap_locks }
    });
    worker::main(&linked)
}
