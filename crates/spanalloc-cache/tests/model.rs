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

use common::{PackAll, PackNone};
use proptest::prelude::*;
use spanalloc_cache::{Checked, Fast, Hardened, Policy};
use spanalloc_classes::{ClassTable, Go67, Rule, SizeClasses};
use spanalloc_os::Mmap;
use spanalloc_testkit::amount::{config, config_of, length};
use spanalloc_testkit::layers::Layers;
use spanalloc_testkit::{Mix, Operation, operations};

/// A table of a user's own: few classes, far apart, none of 16 bytes or less but one.
#[derive(Debug)]
struct Sparse;

impl ClassTable for Sparse {
    const CLASSES: &'static SizeClasses =
        &SizeClasses::from_sizes(&Rule::GO, &[16, 64, 192, 1024, 4096, 16384]);
}

/// A table for small objects only: what is larger than 256 bytes has pages of its own.
#[derive(Debug)]
struct Few;

impl ClassTable for Few {
    const CLASSES: &'static SizeClasses = &SizeClasses::from_sizes(&Rule::GO, &[16, 64, 256]);
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

fn check<T: ClassTable, P: Policy>(operations: &[Operation]) -> Result<(), TestCaseError> {
    let summary = Layers::<T, P>::new()
        .run(Mmap::new(), operations)
        .map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    prop_assert_eq!(summary.allocated, summary.freed);
    let faulty = operations.iter().any(|it| matches!(it, Operation::OsFails { .. }));
    prop_assert!(faulty || summary.refused == 0, "{:?}", summary);
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fast(operations in operations(Mix::new(), length())) {
        check::<Go67, Fast>(&operations)?;
    }

    #[test]
    fn fast_with_faults(operations in operations(Mix::new().faults(4).scavenges(2), length())) {
        check::<Go67, Fast>(&operations)?;
    }

    #[test]
    fn checked(operations in operations(Mix::new(), length())) {
        check::<Go67, Checked>(&operations)?;
    }

    #[test]
    fn checked_with_faults(operations in operations(Mix::new().faults(4), length())) {
        check::<Go67, Checked>(&operations)?;
    }

    #[test]
    fn hardened(operations in operations(Mix::new(), length())) {
        check::<Go67, Hardened>(&operations)?;
    }

    #[test]
    fn hardened_with_faults(operations in operations(Mix::new().faults(4).scavenges(2), length())) {
        check::<Go67, Hardened>(&operations)?;
    }

    #[test]
    fn packing_all_of_16_bytes(operations in operations(Mix::new().max_size(40_000), length())) {
        check::<Go67, PackAll>(&operations)?;
    }

    #[test]
    fn packing_nothing(operations in operations(Mix::new(), length())) {
        check::<Go67, PackNone>(&operations)?;
    }
}

proptest! {
    #![proptest_config(config_of(128))]

    #[test]
    fn tables_of_users(operations in operations(Mix::new().faults(1), length())) {
        check::<Sparse, PackAll>(&operations)?;
        check::<Few, PackAll>(&operations)?;
        check::<Powers, PackNone>(&operations)?;
        check::<Powers, Checked>(&operations)?;
        check::<Sparse, Hardened>(&operations)?;
        check::<Powers, Hardened>(&operations)?;
    }

    #[test]
    fn only_tiny_objects(operations in operations(Mix::new().max_size(16).max_align(16), length())) {
        check::<Go67, PackAll>(&operations)?;
    }
}
