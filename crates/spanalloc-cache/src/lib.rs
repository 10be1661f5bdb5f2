#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod bin;
mod bounds;
mod by_address;
mod cache;
mod depot;
mod empties;
mod exit;
mod give_back;
mod idle;
mod large;
mod limits;
mod magazines;
mod number;
mod policy;
mod realloc;
mod recent;
mod seize;
mod slots;
mod small;
mod state;
mod stats;
mod steps;
mod thread_cache;
mod tiny;
mod words;

pub use bin::Bin;
pub use by_address::{Freed, Size};
pub use cache::Cache;
pub use magazines::{MAGAZINE, Magazines};
pub use policy::{Checked, Fast, Hardened, Policy};
pub use state::CacheState;
pub use stats::{ClassStats, Snapshot};
pub use thread_cache::ThreadCache;
pub use words::Words;
