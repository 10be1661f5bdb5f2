#![doc = include_str!("../../../README.md")]

pub mod background;
pub mod checked;
mod fallback;
mod global;
pub mod hardened;
mod heap;
pub mod limits;
mod program;
mod slot;
pub mod stats;
mod thread;
mod tuning;

pub use background::release;
pub use checked::Checked;
pub use global::Spanalloc;
pub use hardened::Hardened;
pub use spanalloc_pages::HugePages;
pub use tuning::{set_huge_pages, set_thread_cache};
