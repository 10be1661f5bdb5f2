//! Programs of the system, unchanged, under the library: their output is checked, and compared with
//! that of a run without it.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod compilers;
mod databases;
mod git;
mod program;
mod python;
mod text;
