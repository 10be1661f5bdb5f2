//! An allocator of numbers that is made of a table alone, against a naive one: spans are cut as the table
//! says, addresses are found by its division, and no memory is touched.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use common::{safe_rule, valid_sizes};
use proptest::prelude::*;
use proptest::sample::subsequence;
use spanalloc_classes::{Class, ClassTable, Fine72, Go67, MAX_SMALL, PAGE_BYTES, SizeClasses};
use spanalloc_testkit::amount::{config, length};

#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc {
        size: usize,
        align_log2: u32,
    },
    Free {
        object: usize,
    },
    /// Looks an object up by an address inside of it.
    Find {
        object: usize,
        offset: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![
        6 => 0..300_usize,
        4 => 0..5000_usize,
        3 => 0..=MAX_SMALL + 100,
        1 => Just(MAX_SMALL),
    ];
    prop_oneof![
        5 => (size, prop_oneof![6 => 0..5_u32, 1 => 0..15_u32])
            .prop_map(|(size, align_log2)| Op::Alloc { size, align_log2 }),
        3 => any::<usize>().prop_map(|object| Op::Free { object }),
        3 => any::<[usize; 2]>().prop_map(|[object, offset]| Op::Find { object, offset }),
    ]
}

/// A span, its class, and which of its slots are free.
#[derive(Debug)]
struct Span {
    class: u8,
    base: usize,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Object {
    span: usize,
    slot: u32,
    address: usize,
}

struct Allocator<'a> {
    table: &'a SizeClasses,
    spans: Vec<Span>,
    /// Where the next span goes.
    end: usize,
    live: Vec<Object>,
    /// Bytes that live, first to end.
    extents: BTreeMap<usize, usize>,
}

impl<'a> Allocator<'a> {
    fn new(table: &'a SizeClasses) -> Self {
        let end = 3 * PAGE_BYTES as usize;
        Self { table, spans: Vec::new(), end, live: Vec::new(), extents: BTreeMap::new() }
    }

    fn class(&self, span: usize) -> &'a Class {
        self.table.class(self.spans[span].class)
    }

    /// The class that a search through the whole list finds, or 0.
    fn naive_class(&self, size: usize, align: usize) -> u8 {
        let fits = |bytes: usize| bytes >= size && bytes % align == 0;
        let found = self.table.iter().find(|(_, class)| fits(class.bytes as usize));
        found.filter(|_| align <= PAGE_BYTES as usize).map_or(0, |(number, _)| number)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Alloc { size, align_log2 } => self.alloc(size, 1 << align_log2),
            Op::Free { object } => {
                if let Some(index) = object.checked_rem(self.live.len()) {
                    let object = self.live.swap_remove(index);
                    self.find(object, 0);
                    assert!(self.extents.remove(&object.address).is_some());
                    self.spans[object.span].free.push(object.slot);
                }
            }
            Op::Find { object, offset } => {
                if let Some(index) = object.checked_rem(self.live.len()) {
                    let object = self.live[index];
                    self.find(object, offset % self.class(object.span).bytes as usize);
                }
            }
        }
    }

    fn alloc(&mut self, size: usize, align: usize) {
        let number = self.table.class_for(size, align);
        assert_eq!(number, self.naive_class(size, align), "{size} bytes, aligned to {align}");
        if align == 1 {
            assert_eq!(number, self.table.class_of(size));
        }
        if number == 0 {
            return;
        }
        let found = self.spans.iter().position(|it| it.class == number && !it.free.is_empty());
        let span = found.unwrap_or_else(|| self.cut(number));
        let class = self.class(span);
        let slot = self.spans[span].free.pop().unwrap();
        let address = self.spans[span].base + (slot * class.bytes) as usize;
        let end = address + class.bytes as usize;
        assert!(size <= class.bytes as usize && address % align == 0, "{class:?}");
        assert!(end <= self.spans[span].base + class.span_bytes() as usize, "{class:?}");
        let before = self.extents.range(..end).next_back();
        assert!(before.is_none_or(|(_, end)| *end <= address), "two objects at {address:#x}");
        self.extents.insert(address, end);
        self.live.push(Object { span, slot, address });
    }

    fn cut(&mut self, number: u8) -> usize {
        let class = self.table.class(number);
        assert_eq!(class.span_bytes() % PAGE_BYTES, 0);
        let free = (0..class.span_slots).rev().collect();
        self.spans.push(Span { class: number, base: self.end, free });
        self.end += class.span_bytes() as usize;
        self.spans.len() - 1
    }

    /// The slot of an address is that of its object, and only its first byte is the object's address.
    fn find(&self, object: Object, offset: usize) {
        let class = self.class(object.span);
        let from_base = object.address + offset - self.spans[object.span].base;
        let from_base = u32::try_from(from_base).unwrap();
        assert_eq!(class.index(from_base), object.slot, "{class:?}");
        assert_eq!(class.slot_at(from_base), (offset == 0).then_some(object.slot), "{class:?}");
    }
}

fn run(table: &SizeClasses, ops: &[Op]) {
    let mut allocator = Allocator::new(table);
    ops.iter().for_each(|op| allocator.apply(*op));
    while !allocator.live.is_empty() {
        allocator.apply(Op::Free { object: 0 });
    }
    assert!(allocator.extents.is_empty());
    for span in &allocator.spans {
        assert_eq!(span.free.len(), table.class(span.class).span_slots as usize);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_tables_of_the_project(ops in prop::collection::vec(op(), length())) {
        run(Go67::CLASSES, &ops);
        run(Fine72::CLASSES, &ops);
    }

    #[test]
    fn tables_of_users(
        rule in safe_rule(),
        sizes in subsequence(valid_sizes(), 1..=127),
        ops in prop::collection::vec(op(), length()),
    ) {
        run(&SizeClasses::try_from_sizes(&rule, &sizes).unwrap(), &ops);
    }
}
