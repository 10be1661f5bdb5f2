//! How much address space an arena gets when the source refuses more and more.
#![cfg(all(feature = "mmap", not(loom)))]
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

use spanalloc_os::{
    Any32, Any64, Counted, Faulty, Fixed, Geometry, Limited, Mmap, OsError, OsSource, Verb,
    reserve_arena,
};
use support::returning;

const MB: usize = 1 << 20;

#[test]
fn plenty_gives_whole_aligned_arenas() {
    let os = returning(Mmap::new());
    for (need, bytes) in [(1, 64 * MB), (64 * MB, 64 * MB), (64 * MB + 1, 128 * MB)] {
        let range = reserve_arena::<Any64, _>(&os, need, 0).unwrap();
        assert_eq!(range.bytes, bytes);
        assert_eq!(range.address.addr().get() % Any64::ARENA_BYTES, 0);
    }
    let range = reserve_arena::<Any32, _>(&os, 5 * MB, 0).unwrap();
    assert_eq!(range.bytes, 8 * MB);
    assert_eq!(range.address.addr().get() % Any32::ARENA_BYTES, 0);
}

#[test]
fn a_hint_next_to_an_arena_is_taken_if_it_is_free() {
    let os = returning(Mmap::new());
    // Of three neighbouring arenas the middle one is given back, so it is free, unless another
    // thread of this program maps something there at that moment.
    let honoured = (0..20).any(|_| {
        let three = reserve_arena::<Any32, _>(os.inner(), 12 * MB, 0).unwrap();
        // SAFETY: nobody uses it.
        unsafe { os.inner().release(three.address.add(4 * MB), 4 * MB).unwrap() };
        let middle = three.address.addr().get() + 4 * MB;
        let range = reserve_arena::<Any32, _>(&os, 1, middle).unwrap();
        range.address.addr().get() == middle
    });
    assert!(honoured);
}

#[test]
fn scarcity_gives_halves_then_the_need_then_the_error() {
    let page = Mmap::new().page_bytes().max(8 << 10);
    for (budget, need, bytes) in [
        (64 * MB, 1, Some(64 * MB)),
        (64 * MB - 1, 1, Some(32 * MB)),
        (17 * MB, 1, Some(16 * MB)),
        (17 * MB, 9 * MB, Some(16 * MB)),
        (17 * MB, 17 * MB, Some(17 * MB)),
        (17 * MB, 16 * MB, Some(16 * MB)),
        (4 * MB, 1, Some(4 * MB)),
        (4 * MB - 1, 1, Some(page)),
        (4 * MB - 1, 3 * MB + 1, Some((3 * MB + 1).next_multiple_of(page))),
        (4 * MB - 1, 4 * MB, None),
        (65 * MB, 65 * MB, Some(65 * MB)),
        (65 * MB, 66 * MB, None),
        (0, 1, None),
    ] {
        let os = returning(Limited::new(Mmap::new(), budget));
        match reserve_arena::<Any64, _>(&os, need, 0) {
            Ok(range) => {
                assert_eq!(Some(range.bytes), bytes, "{need} of {budget}");
                assert_eq!(range.address.addr().get() % page, 0);
            }
            Err(error) => {
                assert_eq!(None, bytes, "{need} of {budget}");
                let least = need.next_multiple_of(page);
                assert_eq!(error, OsError::OutOfMemory { bytes: least });
            }
        }
    }
}

#[test]
fn every_refusal_leads_to_the_next_try_and_reserves_nothing() {
    for refusals in 0..6 {
        let os = returning(Faulty::new(Counted::new(Mmap::new())));
        os.inner().fail_from(Verb::Reserve, 1);
        assert!(reserve_arena::<Any64, _>(&os, 1, 0).is_err());
        // 64, 32, 16, 8 and 4 MB, and the need.
        assert_eq!(os.inner().calls(Verb::Reserve), 6);
        assert_eq!(os.inner().inner().reserved(), 0);
        os.inner().heal();
        for nth in 1..=refusals {
            os.inner().fail_nth(Verb::Reserve, nth);
            let expected = if nth == 1 { 32 * MB } else { 64 * MB };
            assert_eq!(reserve_arena::<Any64, _>(&os, 1, 0).unwrap().bytes, expected);
            os.inner().heal();
        }
    }
}

#[test]
fn no_size_is_tried_twice() {
    for (need, tries) in
        [(32 * MB, 2), (16 * MB, 3), (16 * MB - 1, 3), (16 * MB + 1, 3), (4 * MB, 5)]
    {
        let os = Faulty::new(Mmap::new());
        os.fail_from(Verb::Reserve, 1);
        assert!(reserve_arena::<Any64, _>(&os, need, 0).is_err());
        assert_eq!(os.calls(Verb::Reserve), tries, "{need}");
    }
}

#[test]
fn absurd_needs_are_errors() {
    let os = Mmap::new();
    for need in [0, usize::MAX, usize::MAX - 8191, isize::MAX as usize + 1, isize::MAX as usize] {
        let refused = reserve_arena::<Any64, _>(&os, need, 0);
        assert_eq!(refused, Err(OsError::BadSize { bytes: need }), "{need:#x}");
    }
    // Sensible numbers that no machine has; half of what 32 bits can name, one may have once.
    let most = isize::MAX as usize - 64 * MB + 1;
    let once = reserve_arena::<Any64, _>(&os, most, 0);
    assert!(once.is_err() || usize::BITS == 32);
    assert!(reserve_arena::<Any32, _>(&os, most, 0).is_err());
    if let Ok(range) = once {
        // SAFETY: reserved above, and not used.
        unsafe { os.release(range.address, range.bytes) }.unwrap();
    }
}

#[test]
fn a_buffer_gives_the_arena_it_has_room_for() {
    let mut buffer = vec![MaybeUninit::uninit(); 9 * MB];
    let os = Fixed::new(&mut buffer);
    assert_eq!(reserve_arena::<Any64, _>(&os, 1, 0).unwrap().bytes, 8 * MB);
    assert_eq!(reserve_arena::<Any64, _>(&os, 1, 0).unwrap().bytes, 8 << 10);
    assert!(reserve_arena::<Any64, _>(&os, 2 * MB, 0).is_err());
}
