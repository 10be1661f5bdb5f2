//! Spans, their owners and their freers in every interleaving.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc-central --test loom`
//!
//! Two sets of models, both on production code:
//! - `kernels`: [`Balance`], [`Queue`], [`deliver`] and [`Lock`] around a span whose holder's part
//!   and objects are cells that loom watches. So every two holders at once, and every slot that is
//!   handed out before its freer is done with it, are reported as races.
//! - `central`: [`CentralLists`] whole, with descriptors in zeroed memory, over a page heap that
//!   hands out numbers; `words` has two more of spans whose slots are handed out one by one.
//!
//! A model is exhaustive unless its comment gives a bound. Each prints how many interleavings it
//! had (`--nocapture` shows them) and demands at least most of them: a model that has shrunk to a
//! few paths proves nothing. `faults` plants mistakes in the same models and sees them fail.
//!
//! [`Balance`]: spanalloc_central::remote::Balance
//! [`Queue`]: spanalloc_central::queue::Queue
//! [`deliver`]: spanalloc_central::handover::deliver
//! [`Lock`]: spanalloc_sync::Lock
//! [`CentralLists`]: spanalloc_central::CentralLists
#![cfg(loom)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking and are not an interface"
)]

#[path = "loom/central.rs"]
mod central;
#[path = "loom/faults.rs"]
mod faults;
#[path = "loom/kernels.rs"]
mod kernels;
#[path = "loom/span.rs"]
mod span;
#[path = "loom/words.rs"]
mod words;
