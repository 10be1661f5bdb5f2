#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod bin;
mod cache;
mod exit;
mod large;
mod policy;
mod realloc;
mod small;
mod state;
mod stats;
mod thread_cache;
mod tiny;

pub use bin::MAGAZINE;
pub use cache::Cache;
pub use policy::{Fast, Policy};
pub use state::CacheState;
pub use stats::{ClassStats, Snapshot};
pub use thread_cache::ThreadCache;
