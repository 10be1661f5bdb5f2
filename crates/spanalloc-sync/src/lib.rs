#![doc = include_str!("../README.md")]
#![cfg_attr(not(loom), no_std)]

pub mod atomic;
pub mod cell;
mod counter;
pub mod fault;
pub mod lease;
mod lock;
#[cfg(loom)]
pub mod model;
mod padded;
mod prefetch;
pub mod rank;
pub mod valve;
mod wait;

pub use counter::Counter;
pub use lock::{Lock, LockGuard};
pub use padded::Padded;
pub use prefetch::prefetch;
pub use wait::{Spin, Wait, spin_pause};
