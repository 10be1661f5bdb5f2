//! What the allocator holds: as numbers, as a table for people, as JSON, for Prometheus and as XML.
//!
//! ```
//! use spanalloc::stats::{Report, snapshot};
//!
//! let heap = snapshot();
//! let report = Report::of(&heap);
//! print!("{report}"); // a table
//! let (mut json, mut metrics) = (String::new(), String::new());
//! report.json(&mut json)?;
//! report.prometheus(&mut metrics)?;
//! assert!(json.starts_with("{\"/memory/classes/heap/objects:bytes\":"));
//! assert!(metrics.contains("spanalloc_memory_classes_heap_objects_bytes "));
//!
//! let figures = report.figures();
//! assert_eq!(figures.total(), figures.resident() + figures.returned + figures.guards);
//! # Ok::<(), core::fmt::Error>(())
//! ```

mod figures;
mod json;
mod metrics;
mod pen;
mod prometheus;
mod report;
#[cfg(feature = "serde")]
mod serialize;
mod table;
mod word;
mod xml;

pub use spanalloc_cache::{ClassStats, Snapshot};
pub use spanalloc_pages::{PAGE_BYTES, PageStats};

pub use self::figures::{ClassFigures, Figures, Part};
pub use self::metrics::{METRICS, Metric};
pub use self::report::Report;
pub use self::word::Word;
use crate::{Spanalloc, thread};

/// What the heap of [`Spanalloc`] holds now. Allocates nothing.
///
/// Exact while no other thread is inside the allocator; otherwise each number is one that was true
/// at some moment during the call. [`Figures`] of it add up in any case.
#[must_use]
pub fn snapshot() -> Snapshot {
    thread::slot::<Spanalloc>().snapshot()
}
