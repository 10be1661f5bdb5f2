//! Single properties of the sources and adapters.
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

use spanalloc_os::{Counted, Faulty, Fixed, Limited, Mmap, OsError, OsSource, Portable, Verb};
use support::{buffer, request, returning};

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
    assert_eq!(os.refused_reservations(), 1);
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
