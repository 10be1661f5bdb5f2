#![doc = include_str!("../README.md")]

pub mod build;
pub mod bump;
pub mod chart;
pub mod clock;
pub mod compare;
pub mod contenders;
pub mod locks;
pub mod machine;
pub mod markdown;
pub mod preload;
mod random;
pub mod results;
pub mod rounds;
pub mod worker;
pub mod workloads;

pub use random::Random;
