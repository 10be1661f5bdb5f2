//! Caches against the shadow: random operations, several caches, several sources and policies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use common::{PackAll, PackNone, replay};
use proptest::prelude::*;
use spanalloc_cache::{Checked, Fast, Policy};
use spanalloc_classes::{ClassTable, Go67, Rule, SizeClasses};
use spanalloc_os::Mmap;
use spanalloc_testkit::{Mix, Operation, Returning, Summary, operations};

/// A table of a user's own: few classes, far apart, none of 16 bytes or less but one.
#[derive(Debug)]
struct Sparse;

impl ClassTable for Sparse {
    const CLASSES: &'static SizeClasses =
        &SizeClasses::from_sizes(&Rule::GO, &[16, 64, 192, 1024, 4096, 16384]);
}

/// A table of powers of two, with spans cut as the table says: a class of 32 KB has one slot
/// in each.
#[derive(Debug)]
struct Powers;

impl ClassTable for Powers {
    const CLASSES: &'static SizeClasses = &SizeClasses::from_sizes(
        &Rule { min_slots: 1, max_cut_bytes: 0, ..Rule::GO },
        &[8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768],
    );
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn check<T: ClassTable, P: Policy>(operations: &[Operation]) -> Result<Summary, TestCaseError> {
    // SAFETY: the heap and everything above it are gone before the source is.
    let os = unsafe { Returning::new(Mmap::new()) };
    let summary = replay::<T, _, P>(os, 3, false, operations)
        .map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    prop_assert_eq!(summary.refused, 0);
    prop_assert_eq!(summary.allocated, summary.freed);
    Ok(summary)
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn fast(operations in operations(Mix::new(), 1..200)) {
        check::<Go67, Fast>(&operations)?;
    }

    #[test]
    fn checked(operations in operations(Mix::new(), 1..200)) {
        check::<Go67, Checked>(&operations)?;
    }

    #[test]
    fn packing_all_of_16_bytes(operations in operations(Mix::new().max_size(40_000), 1..200)) {
        check::<Go67, PackAll>(&operations)?;
    }

    #[test]
    fn packing_nothing(operations in operations(Mix::new(), 1..150)) {
        check::<Go67, PackNone>(&operations)?;
    }
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn tables_of_users(operations in operations(Mix::new(), 1..150)) {
        check::<Sparse, PackAll>(&operations)?;
        check::<Powers, PackNone>(&operations)?;
        check::<Powers, Checked>(&operations)?;
    }

    #[test]
    fn only_tiny_objects(operations in operations(Mix::new().max_size(16).max_align(16), 1..300)) {
        check::<Go67, PackAll>(&operations)?;
    }
}
