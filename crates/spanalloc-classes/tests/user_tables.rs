//! Tables of the user's own, random and chosen: right if accepted, refused with the reason if not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::panic::catch_unwind;

use common::{safe_rule, valid_sizes};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use spanalloc_classes::{
    Class, ClassError, ClassTable, MAX_SLOTS, MAX_SMALL, MAX_SPAN_PAGES, PAGE_BYTES, Rule,
    SizeClasses,
};
use spanalloc_testkit::amount::config;

/// Three classes, none of them at the edge of a lookup table.
struct Messages;

impl ClassTable for Messages {
    const CLASSES: &'static SizeClasses = &SizeClasses::from_sizes(&Rule::GO, &[40, 552, 4224]);
}

#[test]
fn a_table_of_three_sizes() {
    let table = Messages::CLASSES;
    assert_eq!(table.count(), 3);
    assert_eq!(table.largest(), 4224);
    assert_eq!(table.iter().map(|(number, _)| number).collect::<Vec<_>>(), [1, 2, 3]);
    for (size, class) in [
        (0, 1),
        (1, 1),
        (40, 1),
        (41, 2),
        (552, 2),
        (553, 3),
        (1024, 3),
        (1025, 3),
        (4224, 3),
        (4225, 0),
        (32768, 0),
        (32769, 0),
    ] {
        assert_eq!(table.class_of(size), class, "size {size}");
    }
    // 40 and 552 are 8-aligned only, 4224 is 33 * 128.
    assert_eq!(table.class_for(1, 8), 1);
    assert_eq!(table.class_for(1, 16), 3);
    assert_eq!(table.class_for(1, 128), 3);
    assert_eq!(table.class_for(1, 256), 0);
    assert_eq!(table.class(4), &Class::NONE);
}

#[test]
fn the_worst_waste_counts_from_the_class_before() {
    let table = Messages::CLASSES;
    // 8192 is 204 * 40 + 32 and 14 * 552 + 464.
    assert_eq!(table.class(1).slots, 204);
    assert_eq!(table.worst_waste(1), 204 * 39 + 32);
    assert_eq!(table.class(2).slots, 14);
    assert_eq!(table.worst_waste(2), 14 * 511 + 464);
}

#[test]
fn a_table_may_have_127_classes() {
    let sizes: Vec<u32> = (1..=128).map(|n| n * 8).collect();
    let table = SizeClasses::try_from_sizes(&Rule::GO, &sizes[..127]).unwrap();
    assert_eq!(table.count(), 127);
    assert_eq!(table.class(127).bytes, 1016);
    assert_eq!(table.class(128), &Class::NONE);
    assert_eq!(table.class_of(1016), 127);
    assert_eq!(table.class_of(1017), 0);
    assert_eq!(table.class_for(1016, 16), 0);
    check_table(&Rule::GO, &table);
    assert_eq!(SizeClasses::try_from_sizes(&Rule::GO, &sizes), Err(ClassError::TooMany));
}

#[test]
fn a_bad_list_is_refused_with_the_reason() {
    let from = |sizes: &[u32]| SizeClasses::try_from_sizes(&Rule::GO, sizes).unwrap_err();
    assert_eq!(from(&[]), ClassError::Empty);
    assert_eq!(from(&[0]), ClassError::Zero);
    assert_eq!(from(&[16, 0]), ClassError::Zero);
    assert_eq!(from(&[13]), ClassError::NotMultiple { bytes: 13, multiple: 2 });
    assert_eq!(from(&[20]), ClassError::NotMultiple { bytes: 20, multiple: 8 });
    assert_eq!(from(&[1023]), ClassError::NotMultiple { bytes: 1023, multiple: 8 });
    assert_eq!(from(&[1032]), ClassError::NotMultiple { bytes: 1032, multiple: 128 });
    assert_eq!(from(&[32760]), ClassError::NotMultiple { bytes: 32760, multiple: 128 });
    assert_eq!(from(&[32896]), ClassError::TooLarge { bytes: 32896 });
    assert_eq!(from(&[u32::MAX]), ClassError::TooLarge { bytes: u32::MAX });
    assert_eq!(from(&[16, 16]), ClassError::Unsorted { before: 16, bytes: 16 });
    assert_eq!(from(&[8, 32, 16]), ClassError::Unsorted { before: 32, bytes: 16 });
    assert!(SizeClasses::try_from_sizes(&Rule::GO, &[8, 1024, 1152, 32768]).is_ok());
}

/// Rules and sizes whose geometry is refused, each with the reason.
fn bad_geometry() -> [(Rule, u32, ClassError); 3] {
    let whole = Rule { max_cut_bytes: MAX_SPAN_PAGES * PAGE_BYTES, ..Rule::GO };
    [
        // 189 * 128 bytes: no tail small enough before 189 pages.
        (Rule { waste_divisor: 100, ..Rule::GO }, 24192, ClassError::SpanTooLong { bytes: 24192 }),
        // The table's span has 3 pages: 1966 slots in 48 pages are too few, in 51 too many.
        (
            Rule { waste_divisor: 100, min_slots: 2048, ..whole },
            200,
            ClassError::TooManySlots { bytes: 200, slots: 2088 },
        ),
        // Cut to 64 pages, as not even they have 64 slots.
        (
            Rule { waste_divisor: 1, ..whole },
            8960,
            ClassError::InexactDivision { bytes: 8960, pages: 64 },
        ),
    ]
}

#[test]
fn bad_geometry_is_refused_with_the_reason() {
    for (rule, bytes, error) in bad_geometry() {
        assert_eq!(SizeClasses::try_from_sizes(&rule, &[bytes]), Err(error));
    }
}

fn bad_rules() -> Vec<(&'static str, Rule)> {
    let go = Rule::GO;
    vec![
        ("largest", Rule { largest: 7, ..go }),
        ("largest", Rule { largest: 32769, ..go }),
        ("tiny_step", Rule { tiny_step: 1, ..go }),
        ("tiny_step", Rule { tiny_step: 6, ..go }),
        ("tiny_step", Rule { tiny_step: 16, ..go }),
        ("steps_per_doubling", Rule { steps_per_doubling: 0, ..go }),
        ("steps_per_doubling", Rule { steps_per_doubling: 3, ..go }),
        ("steps_per_doubling", Rule { steps_per_doubling: 16, ..go }),
        ("max_step", Rule { max_step: 64, ..go }),
        ("max_step", Rule { max_step: 384, ..go }),
        ("max_step", Rule { max_step: 1 << 16, ..go }),
        ("waste_divisor", Rule { waste_divisor: 0, ..go }),
        ("min_slots", Rule { min_slots: 0, ..go }),
        ("min_slots", Rule { min_slots: 2049, ..go }),
        ("max_cut_bytes", Rule { max_cut_bytes: (512 << 10) + 1, ..go }),
    ]
}

#[test]
fn a_rule_out_of_bounds_is_refused_by_name() {
    for (name, rule) in bad_rules() {
        for refused in [SizeClasses::try_generate(&rule), SizeClasses::try_from_sizes(&rule, &[16])]
        {
            let ClassError::BadRule { bound } = refused.unwrap_err() else {
                panic!("{name} refused for another reason")
            };
            assert!(bound.contains(&format!("`{name}`")), "{name}: {bound}");
        }
    }
}

#[test]
fn rules_at_their_bounds_make_tables() {
    let go = Rule::GO;
    for rule in [
        Rule { largest: 8, ..go },
        Rule { steps_per_doubling: 1, ..go },
        Rule { max_step: 128, waste_divisor: 1, ..go },
        Rule { max_step: 1 << 15, ..go },
        Rule { waste_divisor: 1, ..go },
        Rule { min_slots: 1, ..go },
        Rule { largest: 16, min_slots: 2048, ..go },
        Rule { tiny_step: 2, ..go },
        Rule { tiny_step: 4, ..go },
        Rule { largest: 128, max_cut_bytes: 512 << 10, ..go },
        Rule { max_cut_bytes: 0, ..go },
    ] {
        let table = SizeClasses::try_generate(&rule).unwrap_or_else(|e| panic!("{rule:?}: {e}"));
        check_table(&rule, &table);
    }
    assert_eq!(SizeClasses::generate(&Rule { largest: 8, ..go }).count(), 1);
    // Spans are cut as the table says if nothing more is allowed.
    let table = SizeClasses::generate(&Rule { max_cut_bytes: 0, ..go });
    assert!(table.iter().all(|(_, c)| (c.span_pages, c.span_slots) == (c.pages, c.slots)));
}

#[test]
fn too_many_generated_classes_are_refused() {
    let rule = Rule { max_step: 128, waste_divisor: 32, ..Rule::GO };
    assert_eq!(SizeClasses::try_generate(&rule), Err(ClassError::TooMany));
}

#[test]
fn the_constructors_for_const_fail_with_the_reason() {
    let message = |rule: Rule, sizes: &[u32]| {
        let sizes = sizes.to_vec();
        let failed = catch_unwind(move || SizeClasses::from_sizes(&rule, &sizes)).unwrap_err();
        failed.downcast_ref::<&str>().map(|s| s.to_string()).or(failed.downcast_ref().cloned())
    };
    let many: Vec<u32> = (1..=128).map(|n| n * 8).collect();
    for (sizes, part) in [
        (&[][..], "empty"),
        (&many, "more than 127"),
        (&[0], "is 0"),
        (&[9], "multiple of 2"),
        (&[18], "multiple of 8"),
        (&[1032], "multiple of 128"),
        (&[65536], "above 32768"),
        (&[16, 8], "not larger than the one before"),
    ] {
        let message = message(Rule::GO, sizes).unwrap();
        assert!(message.contains(part), "{sizes:?}: {message}");
    }
    for ((rule, bytes, _), part) in bad_geometry().into_iter().zip([
        "within the waste limit",
        "more than 2048 slots",
        "not exact",
    ]) {
        let message = message(rule, &[bytes]).unwrap();
        assert!(message.contains(part), "{bytes}: {message}");
    }
    for (name, rule) in bad_rules() {
        let message = message(rule, &[16]).unwrap();
        assert!(message.contains(name), "{name}: {message}");
        assert!(catch_unwind(move || SizeClasses::generate(&rule)).is_err(), "{name}");
    }
}

#[test]
fn errors_print_the_numbers() {
    let print =
        |sizes: &[u32]| SizeClasses::try_from_sizes(&Rule::GO, sizes).unwrap_err().to_string();
    assert_eq!(print(&[1032]), "size 1032 is not a multiple of 128");
    assert_eq!(print(&[32, 16]), "size 16 comes after 32: sizes must rise");
}

/// Every promise of a table, against naive computation.
fn check_table(rule: &Rule, table: &SizeClasses) {
    let sizes: Vec<u32> = table.iter().map(|(_, class)| class.bytes).collect();
    assert!((1..=127).contains(&sizes.len()));
    assert!(sizes.is_sorted_by(|a, b| a < b), "{sizes:?}");
    assert_eq!(table.count(), sizes.len());
    assert_eq!(table.largest(), sizes[sizes.len() - 1] as usize);
    for (number, class) in table.iter() {
        assert_eq!(class.bytes, sizes[usize::from(number) - 1]);
        check_geometry(rule, class);
        check_division(class);
    }
    check_lookup(&sizes, table);
    check_alignments(&sizes, table);
}

/// What a size near `bytes` has to be a multiple of.
fn multiple(bytes: u32) -> u32 {
    match bytes {
        0..=16 => 2,
        17..=1024 => 8,
        _ => 128,
    }
}

fn check_geometry(rule: &Rule, class: &Class) {
    let step = multiple(class.bytes);
    assert!(class.bytes % step == 0 && class.bytes as usize <= MAX_SMALL, "{class:?}");
    let span = class.pages * PAGE_BYTES;
    assert_eq!(class.slots, span / class.bytes);
    assert!(class.slots >= 1 && class.tail_waste() <= span / rule.waste_divisor, "{class:?}");
    assert_eq!(class.span_pages % class.pages, 0);
    assert!(class.span_pages <= MAX_SPAN_PAGES);
    assert_eq!(class.span_slots, class.span_bytes() / class.bytes);
    assert!(class.span_slots as usize <= MAX_SLOTS);
    let at_limit = class.span_bytes() + span > rule.max_cut_bytes;
    assert!(class.span_slots >= rule.min_slots || at_limit, "{class:?}");
    if class.span_pages > class.pages {
        assert!(class.span_bytes() <= rule.max_cut_bytes, "{class:?}");
        assert!((class.span_bytes() - span) / class.bytes < rule.min_slots, "{class:?}");
    }
}

/// `index` rises with the offset, so the first and the last byte of each slot stand for all.
fn check_division(class: &Class) {
    for slot in 0..class.span_slots {
        let first = slot * class.bytes;
        assert_eq!(class.index(first), slot, "{class:?}");
        assert_eq!(class.slot_at(first), Some(slot), "{class:?}");
        assert_eq!(class.index(first + class.bytes - 1), slot, "{class:?}");
        assert_eq!(class.slot_at(first + class.bytes - 1), None, "{class:?}");
    }
    let end = class.span_slots * class.bytes;
    assert!(class.index(end) >= class.span_slots, "{class:?}");
    assert_eq!(class.slot_at(end), None, "{class:?}");
}

fn check_lookup(sizes: &[u32], table: &SizeClasses) {
    let mut class = 1;
    for size in 0..=MAX_SMALL + 1 {
        if class != 0 && sizes[class - 1] as usize + 1 == size {
            class = if class == sizes.len() { 0 } else { class + 1 };
        }
        assert_eq!(usize::from(table.class_of(size)), class, "size {size} of {sizes:?}");
    }
}

fn check_alignments(sizes: &[u32], table: &SizeClasses) {
    let edges = sizes.iter().flat_map(|&bytes| [bytes - 1, bytes, bytes + 1]);
    let sizes_to_try: Vec<u32> = edges.chain([0, 1, 1024, 1025, 32768, 32769]).collect();
    for shift in 0..=14 {
        let align = 1 << shift;
        let fitting: Vec<u32> = sizes
            .iter()
            .copied()
            .filter(|bytes| align <= PAGE_BYTES && bytes % align == 0)
            .collect();
        for &size in &sizes_to_try {
            let expected = fitting.get(fitting.partition_point(|&bytes| bytes < size));
            let class = table.class_for(size as usize, align as usize);
            let bytes = (class != 0).then(|| &table.class(class).bytes);
            assert_eq!(bytes, expected, "size {size}, align {align} of {sizes:?}");
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_valid_list_makes_a_right_table(
        rule in safe_rule(),
        sizes in subsequence(valid_sizes(), 1..=127),
    ) {
        let table = SizeClasses::try_from_sizes(&rule, &sizes).unwrap();
        prop_assert!(table.iter().map(|(_, class)| &class.bytes).eq(&sizes));
        check_table(&rule, &table);
    }

    #[test]
    fn every_generated_table_is_right(
        base in safe_rule(),
        largest in 8..=MAX_SMALL as u32,
        tiny_step in select(vec![2, 4, 8]),
        steps_per_doubling in select(vec![1, 2, 4, 8]),
        max_step in select(vec![128, 256, 512, 2048, 32768]),
        waste_divisor in 1..=64u32,
    ) {
        let rule = Rule { largest, tiny_step, steps_per_doubling, max_step, waste_divisor, ..base };
        match SizeClasses::try_generate(&rule) {
            Ok(table) => check_table(&rule, &table),
            // Neither the order nor the steps of generated sizes can be wrong.
            Err(error) => prop_assert!(matches!(
                error,
                ClassError::TooMany
                    | ClassError::SpanTooLong { .. }
                    | ClassError::InexactDivision { .. }
            ), "{error:?}"),
        }
    }

    #[test]
    fn a_list_with_one_bad_size_is_refused(
        sizes in subsequence(valid_sizes(), 2..=126),
        at in any::<proptest::sample::Index>(),
        kind in 0..5,
    ) {
        let at = at.index(sizes.len() - 1) + 1;
        let mut bad = sizes.clone();
        let before = sizes[at - 1];
        let (put, expected) = match kind {
            0 => (0, ClassError::Zero),
            1 => (before, ClassError::Unsorted { before, bytes: before }),
            2 => (sizes[0], ClassError::Unsorted { before, bytes: sizes[0] }),
            3 => (sizes[at] - 1, ClassError::NotMultiple {
                bytes: sizes[at] - 1,
                multiple: multiple(sizes[at] - 1),
            }),
            _ => (32776, ClassError::TooLarge { bytes: 32776 }),
        };
        bad[at] = put;
        prop_assert_eq!(SizeClasses::try_from_sizes(&Rule::GO, &bad), Err(expected));
    }

    #[test]
    fn any_numbers_make_a_right_table_or_an_error(
        waste_divisor in any::<u32>(),
        min_slots in any::<u32>(),
        max_cut_bytes in any::<u32>(),
        sizes in proptest::collection::vec(any::<u32>(), 0..6),
    ) {
        let rule = Rule { waste_divisor, min_slots, max_cut_bytes, ..Rule::GO };
        if let Ok(table) = SizeClasses::try_from_sizes(&rule, &sizes) {
            check_table(&rule, &table);
        }
    }
}
