#![doc = include_str!("../README.md")]

pub mod clock;
pub mod contender;
#[cfg(feature = "peers")]
mod peers;
mod random;
pub mod table;
pub mod workload;

pub use contender::{Contender, Entry, contenders};
pub use random::Random;
pub use workload::{Plan, Session, Workload};
