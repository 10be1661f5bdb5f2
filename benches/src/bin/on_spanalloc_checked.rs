//! Runs a workload on spanalloc with the policy `Checked`.

use std::process::ExitCode;

use spanalloc::Checked;
use spanalloc_bench::locks::Locks;
use spanalloc_bench::worker::{self, Linked};

#[global_allocator]
static ALLOCATOR: Checked = Checked;

fn main() -> ExitCode {
    let mut linked = Linked::new(|| format!("{}, policy Checked", env!("CARGO_PKG_VERSION")));
    linked.locks = Some(|| {
        let snapshot = spanalloc::checked::snapshot();
        Locks { central: snapshot.central_locks, heap: snapshot.pages.heap_locks }
    });
    worker::main(&linked)
}
