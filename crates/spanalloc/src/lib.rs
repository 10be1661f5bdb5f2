#![doc = include_str!("../../../README.md")]

pub mod background;
pub mod checked;
mod fallback;
mod global;
mod heap;
pub mod limits;
mod program;
mod slot;
pub mod stats;
mod thread;

pub use background::release;
pub use checked::Checked;
pub use global::Spanalloc;
