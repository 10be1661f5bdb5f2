//! The `spanalloc` command; all of it is in the library.

use std::process::ExitCode;

use spanalloc_cli::Switch;

#[global_allocator]
static ALLOCATOR: Switch = Switch::new();

fn main() -> ExitCode {
    spanalloc_cli::run(ALLOCATOR.choice())
}
