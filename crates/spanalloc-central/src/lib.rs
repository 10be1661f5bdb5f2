#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod central;
mod class_lists;
mod descriptors;
pub mod handover;
mod large;
mod lists;
mod owner;
pub mod queue;
pub mod remote;
mod span;
mod span_large;
mod span_list;
mod span_remote;
mod span_slots;
mod span_words;
#[cfg(test)]
mod testing;

pub use central::Central;
pub use descriptors::Stash;
pub use lists::{CentralLists, class_facts};
pub use owner::Owner;
pub use queue::Queue;
pub use span::{LARGE, Place, Span, SpanRef, TINY, TINY_BYTES, descriptor_bytes};
pub use span_list::SpanList;
pub use span_remote::TinyDrop;
pub use span_slots::{Put, Taken};
pub use span_words::{Reserve, Reserved, SpanSlot};
