//! Runs a workload on spanalloc with the policy `Hardened`.

use std::process::ExitCode;

use spanalloc::Hardened;
use spanalloc_bench::locks::Locks;
use spanalloc_bench::worker::{self, Linked};

#[global_allocator]
static ALLOCATOR: Hardened = Hardened;

fn main() -> ExitCode {
    let mut linked = Linked::new(|| format!("{}, policy Hardened", env!("CARGO_PKG_VERSION")));
    linked.locks = Some(|| {
        let snapshot = spanalloc::hardened::snapshot();
        Locks { central: snapshot.central_locks, heap: snapshot.pages.heap_locks }
    });
    worker::main(&linked)
}
