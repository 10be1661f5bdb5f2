//! The allocator that trusts the program against the shadow.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/operations.rs"]
mod operations;

use spanalloc::{self as functions, Spanalloc};

#[global_allocator]
static ALLOCATOR: Spanalloc = Spanalloc;

/// The child of a fork may find it as another thread was changing it.
const FORKS: u32 = 0;
