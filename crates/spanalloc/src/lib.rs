#![doc = include_str!("../../../README.md")]

mod fallback;
mod global;
mod heap;
pub mod stats;
mod thread;

pub use global::Spanalloc;
