//! Publication of an arena against lookups, every interleaving.
//!
//! The production [`Window`] runs over a table of shim atomics that the model makes. Whether an entry
//! is Ready is modelled by a cell for each page of entries: the writer writes it (commits) before it
//! opens the window, a reader reads it whenever the window names an entry of that page; loom reports
//! a read that is not ordered after the write.
#![cfg(loom)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

use std::ptr;

use loom::sync::Arc;
use loom::thread;
use spanalloc_os::Window;
use spanalloc_sync::atomic::AtomicPtr;
use spanalloc_sync::cell::UnsafeCell;
use spanalloc_testkit::models::{Fault, check, explored, with_fault};

/// Index of the table's first entry; the table has `PAGES` pages of one entry each.
const FIRST: usize = 10;
const PAGES: usize = 3;

struct Model {
    window: Window<UnsafeCell<u32>>,
    table: [AtomicPtr<UnsafeCell<u32>>; PAGES],
    committed: [UnsafeCell<bool>; PAGES],
    values: [UnsafeCell<u32>; PAGES],
}

// SAFETY: the cells are what the model checks; loom reports every racing access to one.
unsafe impl Sync for Model {}
// SAFETY: as above.
unsafe impl Send for Model {}

impl Model {
    /// A model whose table is placed; nothing is open.
    fn new() -> Arc<Self> {
        let model = Arc::new(Self {
            window: Window::new(),
            table: [const { AtomicPtr::new(ptr::null_mut()) }; PAGES],
            committed: [const { UnsafeCell::new(false) }; PAGES],
            values: [const { UnsafeCell::new(0) }; PAGES],
        });
        // loom's objects are made before there are threads, as memory is there before it is found.
        for page in 0..PAGES {
            assert!(model.table[page].load(spanalloc_sync::atomic::Ordering::Relaxed).is_null());
            // SAFETY: no other thread yet.
            model.committed[page].with_mut(|committed| unsafe { *committed = false });
            // SAFETY: no other thread yet.
            model.values[page].with_mut(|value| unsafe { *value = 0 });
        }
        assert!(model.window.get(FIRST).is_null());
        model
    }

    fn place(&self) {
        // SAFETY: one writer; the window is empty; the table lives as long as the model.
        unsafe { self.window.place(self.table.as_ptr().cast_mut(), FIRST) };
    }

    fn commit(&self, page: usize) {
        // SAFETY: one writer; loom reports a reader at the same time.
        self.committed[page].with_mut(|committed| unsafe { *committed = true });
    }

    fn open(&self, pages: std::ops::Range<usize>) {
        // SAFETY: one writer; the model committed these pages; the window only grows.
        unsafe { self.window.open(FIRST + pages.start, FIRST + pages.end) };
    }

    fn publish(&self, page: usize) {
        // SAFETY: nobody has found the value yet; loom reports it if somebody has.
        self.values[page].with_mut(|value| unsafe { *value = 42 });
        let value = ptr::from_ref(&self.values[page]).cast_mut();
        // SAFETY: one writer.
        unsafe { self.window.publish(FIRST + page, value) };
    }

    /// Whether the window names a page's entry; reads whether it is committed if it does.
    fn is_open(&self, page: usize) -> bool {
        let open = self.window.entry(FIRST + page).is_some();
        if open {
            // SAFETY: the window named the entry, so nobody commits its page any more.
            assert!(self.committed[page].with(|committed| unsafe { *committed }));
        }
        open
    }

    /// Looks a page up and reads the value it finds; returns whether it found one.
    fn look_up(&self, page: usize) -> bool {
        let value = self.window.get(FIRST + page);
        if value.is_null() {
            return false;
        }
        // SAFETY: a value that was published lives as long as the model.
        assert_eq!(unsafe { &*value }.with(|value| unsafe { *value }), 42);
        true
    }
}

/// The entry is Ready already; its value is published while another thread looks.
fn value_against_lookup() {
    let model = Model::new();
    model.place();
    model.commit(1);
    model.open(1..2);
    let writer = {
        let model = Arc::clone(&model);
        thread::spawn(move || model.publish(1))
    };
    model.look_up(1);
    model.look_up(1);
    writer.join().unwrap();
    assert!(model.look_up(1));
}

/// The table is placed and opened, and its first value is published, while another thread looks.
fn opening_against_lookup() {
    let model = Model::new();
    let writer = {
        let model = Arc::clone(&model);
        thread::spawn(move || {
            model.place();
            model.commit(1);
            model.open(1..2);
            model.publish(1);
        })
    };
    model.is_open(1);
    model.look_up(1);
    assert!(!model.is_open(0) && !model.is_open(2));
    writer.join().unwrap();
    assert!(model.is_open(1) && model.look_up(1));
}

/// The window grows below and then above while another thread looks at both ends.
fn growth_against_lookup() {
    let model = Model::new();
    model.place();
    model.commit(1);
    model.open(1..2);
    let writer = {
        let model = Arc::clone(&model);
        thread::spawn(move || {
            model.commit(0);
            model.open(0..2);
            model.commit(2);
            model.open(0..3);
        })
    };
    model.is_open(2);
    model.is_open(0);
    assert!(model.is_open(1), "what was open stays open");
    writer.join().unwrap();
    assert!(model.is_open(0) && model.is_open(1) && model.is_open(2));
}

/// Two threads look while a value is published: both see all of it or nothing.
fn two_lookups() {
    let model = Model::new();
    model.place();
    model.commit(1);
    model.open(1..2);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let model = Arc::clone(&model);
            thread::spawn(move || model.look_up(1))
        })
        .collect();
    model.publish(1);
    for reader in readers {
        reader.join().unwrap();
    }
}

// Exhaustive: 17 interleavings.
#[test]
fn a_value_is_seen_whole() {
    explored("value", check(value_against_lookup), 15);
}

// Exhaustive: 18,619 interleavings.
#[test]
fn an_entry_that_is_found_is_ready() {
    explored("opening", check(opening_against_lookup), 18_000);
}

// Exhaustive: 10,243 interleavings.
#[test]
fn a_growing_window_never_names_what_is_not_ready() {
    explored("growth", check(growth_against_lookup), 10_000);
}

// Exhaustive: 398 interleavings.
#[test]
fn two_readers_see_a_value_whole() {
    explored("two lookups", check(two_lookups), 380);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_publication_of_the_value_is_noticed() {
    with_fault(Fault::PublishRelaxed, value_against_lookup);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_growth_of_the_window_is_noticed() {
    with_fault(Fault::PublishRelaxed, growth_against_lookup);
}
