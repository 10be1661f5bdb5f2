//! The 67 classes: equal to Go's published table, and exhaustively right.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use spanalloc_classes::{
    Class, ClassTable, Fine72, Go67, MAX_SLOTS, MAX_SMALL, MAX_SPAN_PAGES, PAGE_BYTES, Rule,
    SizeClasses,
};

const GO: &SizeClasses = Go67::CLASSES;
const PUBLISHED: &str = include_str!("data/size_classes_go1.27.csv");

#[test]
fn equals_the_published_table_in_every_column() {
    let mut lines = PUBLISHED.lines();
    assert_eq!(
        lines.next(),
        Some("class,object_bytes,span_bytes,objects,tail_waste_bytes,max_waste_percent,min_align")
    );
    let published: Vec<&str> = lines.collect();
    let made: Vec<String> = GO
        .iter()
        .map(|(number, class)| {
            let span = class.pages * PAGE_BYTES;
            let percent = 100.0 * f64::from(GO.worst_waste(number)) / f64::from(span);
            format!(
                "{number},{},{span},{},{},{percent:.2},{}",
                class.bytes,
                class.slots,
                class.tail_waste(),
                class.min_align()
            )
        })
        .collect();
    assert_eq!(made, published);
    assert_eq!(GO.count(), 67);
    assert_eq!(GO.largest(), 32768);
}

#[test]
fn class_numbers_outside_the_table_have_no_facts() {
    for number in (0..=u8::MAX).filter(|&number| number == 0 || number > 67) {
        assert_eq!(GO.class(number), &Class::NONE, "class {number}");
        assert_eq!(GO.worst_waste(number), 0, "class {number}");
    }
    assert_eq!(Class::NONE, Class::default());
    assert_eq!(Class::NONE.slot_at(0), None);
    assert_eq!(Class::NONE.min_align(), 0);
}

#[test]
fn spans_are_cut_for_64_slots_within_128_kilobytes() {
    for (number, class) in GO.iter() {
        let multiples = (1..=MAX_SPAN_PAGES).map(|k| k * class.pages);
        let allowed = multiples.filter(|&pages| pages * PAGE_BYTES <= 128 << 10);
        let slots = |pages: u32| pages * PAGE_BYTES / class.bytes;
        let enough = allowed.clone().find(|&pages| slots(pages) >= 64);
        let expected = enough.or(allowed.max()).unwrap();
        assert_eq!(class.span_pages, expected, "class {number}");
        assert_eq!(class.span_slots, slots(expected), "class {number}");
        assert!((1..=MAX_SLOTS as u32).contains(&class.span_slots), "class {number}");
        assert_eq!(class.span_bytes(), expected * PAGE_BYTES, "class {number}");
        assert_eq!(
            class.span_tail_waste(),
            class.span_bytes() - class.span_slots * class.bytes,
            "class {number}"
        );
        // Cutting more pages never wastes a larger part than the table's own span.
        assert!(class.span_tail_waste() * 8 <= class.span_bytes(), "class {number}");
    }
    // Spot checks: not multiplied, multiplied up to 64 slots, stopped by the limit.
    let cut = |size| {
        let class = GO.class(GO.class_of(size));
        (class.bytes, class.span_pages, class.span_slots)
    };
    assert_eq!(cut(8), (8, 1, 1024));
    assert_eq!(cut(128), (128, 1, 64));
    assert_eq!(cut(144), (144, 2, 113));
    assert_eq!(cut(1152), (1152, 9, 64));
    assert_eq!(cut(2048), (2048, 16, 64));
    assert_eq!(cut(2304), (2304, 16, 56));
    assert_eq!(cut(18432), (18432, 9, 4));
    assert_eq!(cut(32768), (32768, 16, 4));
}

/// The smallest class that holds `size` with objects aligned to `align`; 0 if none does.
fn oracle(table: &SizeClasses, size: usize, align: usize) -> u8 {
    table
        .iter()
        .find(|(_, class)| class.bytes as usize >= size && class.bytes as usize % align == 0)
        .map_or(0, |(number, _)| number)
}

#[test]
fn every_size_finds_its_class() {
    for size in 0..=MAX_SMALL + 1 {
        assert_eq!(GO.class_of(size), oracle(GO, size, 1), "size {size}");
    }
    assert_eq!(GO.class_of(0), 1);
    assert_eq!(GO.class_of(MAX_SMALL), 67);
    for size in [MAX_SMALL + 1, MAX_SMALL + 128, 1 << 16, isize::MAX as usize, usize::MAX] {
        assert_eq!(GO.class_of(size), 0, "size {size}");
    }
}

#[test]
fn every_size_finds_its_class_at_every_alignment() {
    for (table, shift) in
        [GO, Fine72::CLASSES].into_iter().flat_map(|t| (0..=20).map(move |s| (t, s)))
    {
        let align = 1 << shift;
        for size in 0..=MAX_SMALL + 1 {
            let expected =
                if align <= PAGE_BYTES as usize { oracle(table, size, align) } else { 0 };
            assert_eq!(table.class_for(size, align), expected, "size {size}, align {align}");
            let fine = (size > 0 && size.next_multiple_of(align) <= 1024).then_some(expected);
            assert_eq!(table.fine_class_for(size, align), fine, "size {size}, align {align}");
            let rounded = table.class_by_rounding(size, align);
            let class = table.class_for(size, align);
            assert!(rounded.is_none_or(|found| found == class && found > 0));
            if size > 0 && align <= 8 {
                assert_eq!(rounded.unwrap_or(0), class, "size {size}, align {align}");
            }
        }
    }
}

#[test]
fn the_fine_table_is_the_one_of_go_with_more_tiny_classes() {
    let sizes = |table: &SizeClasses| table.iter().map(|(_, c)| c.bytes).collect::<Vec<_>>();
    let fine = sizes(Fine72::CLASSES);
    assert_eq!(fine[..7], [4, 6, 8, 10, 12, 14, 16]);
    assert_eq!(fine[6..], sizes(GO)[1..]);
    let bytes = |size, align| Fine72::CLASSES.class(Fine72::CLASSES.class_for(size, align)).bytes;
    assert_eq!([bytes(9, 1), bytes(10, 2), bytes(9, 4), bytes(9, 8)], [10, 10, 12, 16]);
    assert_eq!([bytes(1, 1), bytes(5, 1), bytes(5, 4), bytes(0, 8)], [4, 6, 8, 8]);
}

#[test]
fn huge_sizes_and_alignments_have_no_class() {
    for shift in 0..usize::BITS {
        let align = 1 << shift;
        for size in
            [MAX_SMALL + 1, isize::MAX as usize, usize::MAX - 8191, usize::MAX - 1, usize::MAX]
        {
            assert_eq!(GO.class_for(size, align), 0, "size {size}, align {align}");
        }
        if align > PAGE_BYTES as usize {
            assert_eq!(GO.class_for(0, align), 0, "align {align}");
            assert_eq!(GO.class_for(1, align), 0, "align {align}");
        }
    }
}

#[test]
fn alignments_that_are_no_power_of_two_do_no_harm() {
    for align in [0, 3, 7, 9, 12, 24, 100, 1000, 8191, 8193, usize::MAX] {
        for size in (0..=MAX_SMALL + 9).chain([usize::MAX]) {
            assert!(usize::from(GO.class_for(size, align)) <= GO.count());
        }
    }
}

#[test]
fn division_is_exact_for_every_offset_of_every_class() {
    for (number, class) in GO.iter() {
        for offset in 0..class.span_bytes() {
            let index = offset / class.bytes;
            assert_eq!(class.index(offset), index, "class {number}, offset {offset}");
            let is_slot = offset % class.bytes == 0 && index < class.span_slots;
            assert_eq!(
                class.slot_at(offset),
                is_slot.then_some(index),
                "class {number}, offset {offset}"
            );
        }
    }
}

#[test]
fn no_offset_beyond_the_span_is_a_slot() {
    for (number, class) in GO.iter() {
        let end = class.span_bytes();
        let near = end..end + 2 * PAGE_BYTES;
        let multiples = (0..u32::MAX / class.bytes).step_by(997).map(|k| k * class.bytes);
        let far = multiples.filter(|&offset| offset >= end).chain(u32::MAX - 64..=u32::MAX);
        for offset in near.chain(far) {
            assert_eq!(class.slot_at(offset), None, "class {number}, offset {offset}");
        }
    }
}

#[test]
fn a_tail_that_begins_at_a_multiple_of_the_size_is_no_slot() {
    let class = GO.class(GO.class_of(48));
    assert_eq!(class.slot_at(169 * 48), Some(169));
    assert_eq!(class.index(170 * 48), 170);
    assert_eq!(class.slot_at(170 * 48), None);
}

#[test]
fn a_constant_size_has_a_constant_class() {
    const CLASS: u8 = GO.class_of(72);
    const ALIGNED: u8 = GO.class_for(300, 512);
    assert_eq!(GO.class(CLASS).bytes, 80);
    assert_eq!(GO.class(ALIGNED).bytes, 512);
}

#[test]
fn the_rule_makes_the_table_at_run_time_as_well() {
    assert_eq!(SizeClasses::try_generate(&Rule::GO).as_ref(), Ok(GO));
    // A list of sizes gets the shortest spans for these very sizes. The generator keeps the spans it
    // found for the sizes before it raised them, so only the sizes are the same.
    let sizes: Vec<u32> = GO.iter().map(|(_, class)| class.bytes).collect();
    let listed = SizeClasses::try_from_sizes(&Rule::GO, &sizes).unwrap();
    assert!(listed.iter().zip(GO.iter()).all(|((_, a), (_, b))| a.bytes == b.bytes));
    assert_eq!((listed.class(37).pages, GO.class(37).pages), (1, 2));
}
