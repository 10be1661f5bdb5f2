#![doc = include_str!("../README.md")]
#![no_std]

mod bitmap;
mod chunk;
mod grow;
mod heap;
mod held;
mod huge;
mod limits;
mod metadata;
mod pacer;
mod page_cache;
mod pages;
mod pool;
mod room;
mod scavenge;
mod slot;
mod summary;
mod tree;
mod walk;

pub use heap::PageHeap;
pub use huge::HugePages;
pub use limits::{Listener, Notice, Pressure};
pub use pacer::{
    Advice, Clock, LEAST_KEPT, LONGEST_PIECE, MOST_CREDIT, Pacer, Usage as HeapUsage, WINDOW,
};
pub use page_cache::{PageCache, WINDOW_BYTES};
pub use pages::{PAGE_BYTES, PAGE_SHIFT, PageError, PageStats, Pages, Run};
pub use pool::{Pool, Pooled};
pub use walk::PageState;
