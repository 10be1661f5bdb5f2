#![doc = include_str!("../README.md")]
#![no_std]

mod bitmap;
mod chunk;
mod grow;
mod heap;
mod held;
mod metadata;
mod page_cache;
mod pages;
mod pool;
mod release;
mod room;
mod slot;
mod summary;
mod tree;
mod walk;

pub use heap::PageHeap;
pub use page_cache::{PageCache, WINDOW_BYTES};
pub use pages::{PAGE_BYTES, PAGE_SHIFT, PageError, PageStats, Pages, Run};
pub use pool::{Pool, Pooled};
pub use walk::PageState;
