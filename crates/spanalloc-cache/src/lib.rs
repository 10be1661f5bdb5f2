#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod cache;
mod exit;
mod large;
mod magazine;
mod policy;
mod realloc;
mod small;
mod state;
mod stats;
mod thread_cache;
mod tiny;

pub use cache::Cache;
pub use magazine::MAGAZINE;
pub use policy::{Fast, Policy};
pub use state::CacheState;
pub use stats::{ClassStats, Snapshot};
pub use thread_cache::ThreadCache;
