//! Every source and adapter against one naive model: what state each page is in.
#![cfg(all(feature = "portable", not(loom)))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

mod support;

use std::ptr::NonNull;

use proptest::prelude::*;
use spanalloc_os::{Counted, Faulty, Fixed, Limited, Mmap, OsError, OsSource, Portable, Verb};
use spanalloc_testkit::amount::{config, length};
use support::{buffer, request};

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Pages, and log2 of the alignment in pages.
    Reserve(usize, u32),
    /// Which reservation, and which pages of it (as far as it has them).
    Commit(usize, usize, usize),
    Decommit(usize, usize, usize),
    /// From where, to where, and how many.
    Relocate((usize, usize), (usize, usize), usize),
    Write(usize, usize, u8),
    /// The whole of a reservation.
    Release(usize),
    /// Pages of a reservation's front or end.
    ReleasePart(usize, usize, bool),
    /// Plans a fault; only a `Faulty` source does.
    Plan(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (1_usize..24, 0_u32..6).prop_map(|(pages, align)| Op::Reserve(pages, align)),
        5 => (0_usize..8, 0_usize..24, 1_usize..24).prop_map(|(r, at, n)| Op::Commit(r, at, n)),
        3 => (0_usize..8, 0_usize..24, 1_usize..24).prop_map(|(r, at, n)| Op::Decommit(r, at, n)),
        3 => ((0_usize..8, 0_usize..24), (0_usize..8, 0_usize..24), 1_usize..12)
            .prop_map(|(from, to, n)| Op::Relocate(from, to, n)),
        5 => (0_usize..8, 0_usize..24, 1_u8..).prop_map(|(r, at, byte)| Op::Write(r, at, byte)),
        1 => (0_usize..8).prop_map(Op::Release),
        1 => (0_usize..8, 1_usize..8, any::<bool>())
            .prop_map(|(r, n, front)| Op::ReleasePart(r, n, front)),
        1 => (0..Verb::ALL.len(), 1_usize..4).prop_map(|(verb, nth)| Op::Plan(verb, nth)),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Reserved,
    /// Every byte of a Ready page has this value.
    Ready(u8),
    Decommitted,
    /// A refused relocation should have come here.
    Lost,
}

/// The reservations: where each starts, and the states of its pages.
#[derive(Debug, Default)]
struct Model {
    ranges: Vec<(NonNull<u8>, Vec<Page>)>,
}

impl Model {
    fn pages(&self) -> usize {
        self.ranges.iter().map(|(_, pages)| pages.len()).sum()
    }

    fn ready(&self) -> usize {
        let all = self.ranges.iter().flat_map(|(_, pages)| pages);
        all.filter(|page| matches!(page, Page::Ready(_))).count()
    }

    /// A reservation and a part of it that exists, if there is one.
    fn pick(&self, range: usize, at: usize, count: usize) -> Option<(usize, usize, usize)> {
        let range = range % self.ranges.len().max(1);
        let pages = &self.ranges.get(range)?.1;
        let at = at % pages.len();
        let part = &pages[at..pages.len().min(at + count)];
        Some((range, at, part.iter().take_while(|page| **page != Page::Lost).count()))
    }

    /// Ready pages contain what was written to them, all others are left alone.
    fn check(&self, page_bytes: usize) {
        for (start, pages) in &self.ranges {
            for (number, page) in pages.iter().enumerate() {
                if let Page::Ready(byte) = page {
                    // SAFETY: the model says that the page is Ready.
                    let bytes = unsafe {
                        std::slice::from_raw_parts(
                            start.as_ptr().add(number * page_bytes),
                            page_bytes,
                        )
                    };
                    assert!(bytes == vec![*byte; page_bytes], "page {number} is not all {byte}");
                }
            }
        }
    }

    fn overlaps(&self, start: usize, bytes: usize, page_bytes: usize) -> bool {
        self.ranges.iter().any(|(other, pages)| {
            let other = other.addr().get();
            start < other + pages.len() * page_bytes && other < start + bytes
        })
    }
}

/// Runs `ops`, compares after each, and releases what is left where that works.
fn run<O: OsSource>(os: &O, ops: &[Op], plan: impl Fn(Verb, usize), inspect: impl Fn(&Model)) {
    let page = os.page_bytes();
    assert!(page.is_power_of_two());
    let mut model = Model::default();
    for op in ops {
        match *op {
            Op::Reserve(pages, align) => {
                let align = page << align;
                if let Ok(start) = os.reserve(request(pages * page, align)) {
                    assert_eq!(start.addr().get() % align, 0);
                    assert!(!model.overlaps(start.addr().get(), pages * page, page));
                    model.ranges.push((start, vec![Page::Reserved; pages]));
                }
            }
            Op::Commit(range, at, count) => {
                let Some((range, at, count)) = model.pick(range, at, count) else { continue };
                let (start, pages) = &mut model.ranges[range];
                // SAFETY: pages of a reservation.
                if count > 0 && unsafe { os.commit(start.add(at * page), count * page) }.is_ok() {
                    for state in &mut pages[at..at + count] {
                        if !matches!(state, Page::Ready(_)) {
                            *state = Page::Ready(0);
                        }
                    }
                }
            }
            Op::Decommit(range, at, count) => {
                let Some((range, at, count)) = model.pick(range, at, count) else { continue };
                let (start, pages) = &mut model.ranges[range];
                let ready = |page: &&mut Page| matches!(page, Page::Ready(_));
                let count = pages[at..at + count].iter_mut().take_while(ready).count();
                // SAFETY: Ready pages, which nobody uses.
                let done =
                    count > 0 && unsafe { os.decommit(start.add(at * page), count * page) }.is_ok();
                if done {
                    pages[at..at + count].fill(Page::Decommitted);
                }
            }
            Op::Relocate(from, to, count) => {
                let Some((from, from_at, count)) = model.pick(from.0, from.1, count) else {
                    continue;
                };
                let ready = |page: &&Page| matches!(page, Page::Ready(_));
                let source = &model.ranges[from].1[from_at..from_at + count];
                let count = source.iter().take_while(ready).count();
                let Some((to, to_at, count)) = model.pick(to.0, to.1, count) else { continue };
                let target = &model.ranges[to].1[to_at..to_at + count];
                let count = target.iter().take_while(ready).count();
                let apart = from != to || from_at + count <= to_at || to_at + count <= from_at;
                if count == 0 || !apart {
                    continue;
                }
                let moved = model.ranges[from].1[from_at..from_at + count].to_vec();
                // SAFETY: Ready pages that do not overlap.
                let result = unsafe {
                    let (source, target) = (model.ranges[from].0, model.ranges[to].0);
                    os.relocate(source.add(from_at * page), target.add(to_at * page), count * page)
                };
                let target = &mut model.ranges[to].1[to_at..to_at + count];
                match result {
                    Ok(()) => {
                        target.copy_from_slice(&moved);
                        model.ranges[from].1[from_at..from_at + count].fill(Page::Ready(0));
                    }
                    Err(OsError::Unsupported) => {}
                    Err(_) => target.fill(Page::Lost),
                }
            }
            Op::Write(range, at, byte) => {
                let Some((range, at, _)) = model.pick(range, at, 1) else { continue };
                let (start, pages) = &mut model.ranges[range];
                if matches!(pages[at], Page::Ready(_)) {
                    // SAFETY: a Ready page.
                    unsafe { start.add(at * page).write_bytes(byte, page) };
                    pages[at] = Page::Ready(byte);
                }
            }
            Op::Release(range) => {
                let Some((range, ..)) = model.pick(range, 0, 1) else { continue };
                let (start, pages) = &model.ranges[range];
                // SAFETY: a whole reservation, which nobody uses.
                if unsafe { os.release(*start, pages.len() * page) }.is_ok() {
                    model.ranges.remove(range);
                }
            }
            Op::ReleasePart(range, count, front) => {
                let Some((range, _, _)) = model.pick(range, 0, 1) else { continue };
                let (start, pages) = &mut model.ranges[range];
                let count = count.min(pages.len() - 1);
                if count == 0 {
                    continue;
                }
                let at = if front { 0 } else { pages.len() - count };
                // SAFETY: a part of a reservation, which nobody uses.
                if unsafe { os.release(start.add(at * page), count * page) }.is_ok() {
                    pages.drain(at..at + count);
                    if front {
                        // SAFETY: what is left starts there.
                        *start = unsafe { start.add(count * page) };
                    }
                }
            }
            Op::Plan(verb, nth) => plan(Verb::ALL[verb], nth),
        }
        model.check(page);
        inspect(&model);
    }
    plan(Verb::Release, usize::MAX / 2);
    // The newest first: a source that can only take its end back gets it first.
    for (start, pages) in model.ranges.drain(..).rev() {
        // SAFETY: a whole reservation, or what is left of one, which nobody uses.
        let _ = unsafe { os.release(start, pages.len() * page) };
    }
    inspect(&model);
}

fn no_plan(_: Verb, _: usize) {}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn mmap_agrees(ops in prop::collection::vec(op(), length())) {
        run(&Mmap::new(), &ops, no_plan, |_| {});
    }

    #[test]
    fn portable_agrees(ops in prop::collection::vec(op(), length())) {
        run(&Portable::new(), &ops, no_plan, |_| {});
    }

    #[test]
    fn fixed_agrees(ops in prop::collection::vec(op(), length()), skip in 0_usize..5000) {
        let mut buffer = buffer();
        run(&Fixed::new(&mut buffer[skip..]), &ops, no_plan, |_| {});
    }

    #[test]
    fn counted_agrees(ops in prop::collection::vec(op(), length())) {
        let os = Counted::new(Mmap::new());
        run(&os, &ops, no_plan, |model| {
            let page = os.page_bytes();
            assert_eq!(os.reserved(), model.pages() * page);
            assert!(os.committed() <= os.reserved());
            let counts = os.counts();
            assert_eq!(counts.reserved_bytes - counts.released_bytes, os.reserved());
            assert!(counts.committed_bytes - counts.decommitted_bytes >= model.ready() * page);
        });
        prop_assert_eq!((os.reserved(), os.committed()), (0, 0), "all was released at the end");
    }

    #[test]
    fn limited_agrees(ops in prop::collection::vec(op(), length())) {
        let page = Mmap::new().page_bytes();
        let os = Limited::with_committed(Counted::new(Mmap::new()), 64 * page, 40 * page);
        run(&os, &ops, no_plan, |model| {
            assert!(model.pages() <= 64);
            assert_eq!(os.reserved(), model.pages() * page);
            assert_eq!(os.inner().reserved(), os.reserved());
            assert!(os.committed() <= 40 * page);
        });
    }

    #[test]
    fn faulty_agrees(ops in prop::collection::vec(op(), length())) {
        let os = Faulty::new(Counted::new(Portable::new()));
        let plan = |verb, nth| os.fail_nth(verb, nth);
        run(&os, &ops, plan, |model| {
            assert_eq!(os.inner().reserved(), model.pages() * os.page_bytes());
        });
        prop_assert_eq!(os.inner().reserved(), 0, "all was released at the end");
    }
}
