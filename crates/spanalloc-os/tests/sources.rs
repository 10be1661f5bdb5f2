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

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use proptest::prelude::*;
use spanalloc_os::{Counted, Faulty, Fixed, Limited, Mmap, OsError, OsSource, Portable, Verb};
use spanalloc_testkit::amount::{config, length};
use support::{request, returning};

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

fn buffer() -> Vec<MaybeUninit<u8>> {
    vec![MaybeUninit::new(0xEE); 400 << 10]
}

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

/// Requests that make no sense get the error that says so, from every source, and no panic.
fn refuses_nonsense<O: OsSource>(os: &O) {
    let page = os.page_bytes();
    for align in [0, 3, page + 1, usize::MAX] {
        assert_eq!(os.reserve(request(page, align)), Err(OsError::BadAlign { align }));
    }
    let sizes = [0, 1, page - 1, page + 1, usize::MAX, isize::MAX as usize + 1];
    for bytes in sizes {
        assert_eq!(os.reserve(request(bytes, page)), Err(OsError::BadSize { bytes }));
    }
    assert!(os.reserve(request(page, 1 << (usize::BITS - 1))).is_err());
    let huge = (isize::MAX as usize - 2 * page) & !(page - 1);
    for absurd in [request(page, 1 << (usize::BITS - 2)), request(huge, page)] {
        match os.reserve(absurd) {
            // There may be such a range, with 32 bits.
            // SAFETY: reserved here, and not used.
            Ok(at) if usize::BITS == 32 => unsafe { os.release(at, absurd.bytes) }.unwrap(),
            refused => {
                assert_eq!(
                    refused,
                    Err(OsError::OutOfMemory { bytes: absurd.bytes }),
                    "{absurd:?}"
                );
            }
        }
    }
    let at = os.reserve(request(page, 1)).expect("an alignment below a page is a page's");
    assert_eq!(at.addr().get() % page, 0);
    // SAFETY: just reserved.
    unsafe { os.release(at, page).unwrap() };
}

#[test]
fn nonsense_is_refused_by_every_source() {
    refuses_nonsense(&Mmap::new());
    refuses_nonsense(&Portable::new());
    refuses_nonsense(&Fixed::new(&mut buffer()));
    refuses_nonsense(&Counted::new(&Mmap::new()));
    refuses_nonsense(&Limited::new(&Mmap::new(), 1 << 20));
    refuses_nonsense(&Faulty::new(&Portable::new()));
}

#[test]
fn a_buffer_of_any_size_and_place_is_used_to_its_last_whole_page() {
    for bytes in [0, 1, 4095, 4096, 8191, 8192, 12288, 16384, 20480] {
        for skip in [0, 1, 7, 4095] {
            let mut buffer = vec![MaybeUninit::new(1); bytes + skip];
            let start = buffer[skip..].as_ptr().addr();
            let whole = (start + bytes) / 4096 - start.div_ceil(4096).min((start + bytes) / 4096);
            let os = Fixed::new(&mut buffer[skip..]);
            // One page holds the bits of the others.
            let pages = whole.saturating_sub(1);
            assert_eq!(os.available(), pages * 4096);
            for _ in 0..pages {
                let at = os.reserve(request(4096, 1)).unwrap();
                assert!(at.addr().get() >= start && at.addr().get() + 4096 <= start + bytes);
            }
            let refused = os.reserve(request(4096, 1));
            assert_eq!(refused, Err(OsError::OutOfMemory { bytes: 4096 }));
            assert_eq!(os.available(), 0);
        }
    }
}

#[test]
fn a_buffer_takes_its_end_back_and_nothing_else() {
    let mut buffer = buffer();
    let os = Fixed::new(&mut buffer);
    let free = os.available();
    let first = os.reserve(request(8192, 4096)).unwrap();
    let second = os.reserve(request(4096, 4096)).unwrap();
    // SAFETY: reserved above and not used.
    unsafe {
        assert_eq!(os.release(first, 8192), Err(OsError::Unsupported));
        os.commit(second, 4096).unwrap();
        second.write_bytes(7, 4096);
        os.release(second, 4096).unwrap();
        let again = os.reserve(request(4096, 4096)).unwrap();
        assert_eq!(again, second);
        os.commit(again, 4096).unwrap();
        assert_eq!(again.read(), 0, "a page that was released is cleared when it is Ready again");
        os.release(again, 4096).unwrap();
        os.release(first, 8192).unwrap();
    }
    assert_eq!(os.available(), free);
}

#[test]
fn portable_releases_only_whole_reservations() {
    let os = Portable::new();
    let page = os.page_bytes();
    let ranges: Vec<_> =
        (0..3).map(|_| os.reserve(request(4 * page, 16 * page)).unwrap()).collect();
    // SAFETY: reserved above and not used.
    unsafe {
        assert_eq!(os.release(ranges[1], page), Err(OsError::Unsupported));
        assert_eq!(os.release(ranges[1].add(page), 3 * page), Err(OsError::Unsupported));
        for range in [1, 0, 2] {
            os.release(ranges[range], 4 * page).unwrap();
        }
    }
}

#[test]
fn counts_are_exact_for_a_careful_caller() {
    let os = Counted::new(Faulty::new(Mmap::new()));
    let page = os.page_bytes();
    let at = os.reserve(request(8 * page, page)).unwrap();
    // SAFETY: reserved above.
    unsafe {
        os.commit(at, 4 * page).unwrap();
        assert_eq!((os.reserved(), os.committed()), (8 * page, 4 * page));
        os.decommit(at, 2 * page).unwrap();
        assert_eq!(os.committed(), 2 * page);
        os.inner().fail_nth(Verb::Commit, 1);
        assert!(os.commit(at, 2 * page).is_err());
        assert_eq!(os.committed(), 2 * page);
        os.release(at, 8 * page).unwrap();
    }
    assert_eq!((os.reserved(), os.committed()), (0, 0));
    let counts = os.counts();
    assert_eq!((counts.reserves, counts.reserved_bytes), (1, 8 * page));
    assert_eq!((counts.commits, counts.committed_bytes), (1, 4 * page));
    assert_eq!((counts.decommits, counts.decommitted_bytes), (1, 2 * page));
    assert_eq!((counts.releases, counts.released_bytes), (1, 8 * page));
    assert_eq!(counts.failures, 1);
}

#[test]
fn budgets_hold_change_and_come_back() {
    let page = Mmap::new().page_bytes();
    let os = Limited::with_committed(Mmap::new(), 4 * page, 2 * page);
    let at = os.reserve(request(4 * page, page)).unwrap();
    let refused = Err(OsError::OutOfMemory { bytes: page });
    assert_eq!(os.reserve(request(page, page)), refused.map(|()| at));
    // SAFETY: reserved above.
    unsafe {
        os.commit(at, 2 * page).unwrap();
        assert_eq!(os.commit(at.add(2 * page), page), refused);
        os.decommit(at, page).unwrap();
        os.commit(at.add(2 * page), page).unwrap();
        os.set_committed_limit(0);
        assert_eq!(os.commit(at, page), refused);
        assert_eq!((os.committed(), os.committed_limit()), (2 * page, 0));
        os.forget_committed(page);
        assert_eq!(os.committed(), page);
        os.release(at, 4 * page).unwrap();
    }
    assert_eq!((os.reserved(), os.committed()), (0, 0));
    os.set_reserved_limit(5 * page);
    let at = os.reserve(request(5 * page, page)).unwrap();
    // SAFETY: reserved above.
    unsafe { os.release(at, 5 * page).unwrap() };
}

#[test]
fn faults_come_at_the_call_they_were_planned_for() {
    for nth in 1..6 {
        let os = returning(Faulty::new(Mmap::new()));
        let page = os.page_bytes();
        os.inner().fail_nth(Verb::Reserve, nth);
        for call in 1..8 {
            assert_eq!(os.reserve(request(page, page)).is_err(), call == nth);
        }
        os.inner().fail_from(Verb::Reserve, nth);
        for call in 1..8 {
            assert_eq!(os.reserve(request(page, page)).is_err(), call >= nth);
        }
        assert_eq!(os.inner().calls(Verb::Reserve), 14);
        assert_eq!(os.inner().failures(Verb::Reserve), 9 - nth);
        os.inner().heal();
        assert!(os.reserve(request(page, page)).is_ok());
        assert_eq!(os.inner().calls(Verb::Commit), 0);
    }
}

/// A source that says whether it was asked for anything but address space and memory.
fn asks<O: OsSource>(os: &O, at: NonNull<u8>, bytes: usize) -> [bool; 4] {
    // SAFETY: the range is Ready and this test's.
    unsafe {
        os.expect_use(at, bytes);
        os.expect_gaps(at, bytes);
        let cleared = os.clear(at, bytes).is_ok();
        let emptied = os.empty(at, bytes).is_ok();
        let guarded = os.guard(at, bytes).is_ok();
        [cleared, emptied, guarded, guarded && os.unguard(at, bytes).is_ok()]
    }
}

#[test]
#[cfg(target_os = "linux")]
fn every_verb_can_be_made_to_fail() {
    let os = Faulty::new(Mmap::new());
    let bytes = 1 << 20;
    let at = os.reserve(request(bytes, 4096)).unwrap();
    // SAFETY: the range was reserved just now.
    unsafe {
        os.commit(at, bytes).unwrap();
        assert_eq!(asks(&os, at, bytes), [true; 4]);
        assert_eq!(os.resident(at, bytes), 0);
        let verbs = [Verb::Guard, Verb::Clear, Verb::Empty, Verb::Advise, Verb::Inspect];
        verbs.into_iter().for_each(|verb| os.fail_from(verb, 1));
        assert_eq!(asks(&os, at, bytes), [false; 4]);
        assert_eq!(os.resident(at, bytes), bytes, "nobody knows");
        assert_eq!(os.clear(at, bytes), Err(OsError::Unsupported));
        assert_eq!(os.empty(at, bytes), Err(OsError::Unsupported));
        assert_eq!(os.guard(at, bytes), Err(OsError::OutOfMemory { bytes }));
        at.write_bytes(1, bytes);
        assert!(!os.is_filled(at, bytes));
        assert_eq!(verbs.map(|verb| os.failures(verb)), [2, 2, 2, 2, 2]);
        os.heal();
        assert!(os.is_filled(at, bytes));
        os.guard(at, bytes).unwrap();
        os.fail_nth(Verb::Unguard, 1);
        assert_eq!(os.unguard(at, bytes), Err(OsError::OutOfMemory { bytes }));
        os.unguard(at, bytes).unwrap();
        os.release(at, bytes).unwrap();
    }
}

#[test]
fn a_burst_of_failures_ends() {
    let mut buffer = buffer();
    let os = Faulty::new(Fixed::new(&mut buffer));
    os.fail_calls(Verb::Reserve, 2, 3);
    let answers = [(); 6].map(|()| os.reserve(request(4096, 4096)).is_ok());
    assert_eq!(answers, [true, false, false, false, true, true]);
    assert_eq!(os.failures(Verb::Reserve), 3);
}
