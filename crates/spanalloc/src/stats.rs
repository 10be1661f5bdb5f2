//! What the allocator holds.

pub use spanalloc_cache::{ClassStats, Snapshot};
pub use spanalloc_pages::{PAGE_BYTES, PageStats};

use crate::{Spanalloc, thread};

/// What the heap of [`Spanalloc`] holds now. Allocates nothing.
///
/// Exact while no other thread is inside the allocator; otherwise each number is one that was true
/// at some moment during the call.
#[must_use]
pub fn snapshot() -> Snapshot {
    thread::slot::<Spanalloc>().snapshot()
}
