//! Sources of address space for tests, in one place.
//!
//! | source | for |
//! |---|---|
//! | [`Fixed`] | memory that runs out at an exact point; no system at all |
//! | [`Limited`] | a budget that changes at run time |
//! | [`Faulty`] | a verb that fails at its Nth call; [`Verb`] names them |
//! | [`Counted`] | what was asked for, to compare with the statistics |
//! | [`Returning`] | thousands of heaps: what was reserved goes back when it is dropped |
//! | [`Plot`] | thousands of heaps in a second: all verbs, no system, on a [`Ground`] that is kept |
//!
//! All but `Fixed` and `Plot` stand over another source, so they can be put over each other.

pub use spanalloc_os::{Counted, Faulty, Fixed, Limited, SourceCounts, Verb};

pub use crate::ground::{Ground, Plot};
pub use crate::returning::Returning;
