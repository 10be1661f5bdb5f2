//! How much is reserved and made Ready for tables, with a system that gives plenty, little or nothing.

use super::*;

extern crate std;
use std::vec::Vec;

use spanalloc_os::{Counted, Faulty, Limited, Mmap, Verb};

type Allocator = Metadata<<Mmap as OsSource>::Wait>;

const KB: usize = 1 << 10;

fn layout(bytes: usize, align: usize) -> Layout {
    Layout::from_size_align(bytes, align).unwrap()
}

/// A source that may be scarce or fail, and knows what it gave.
type Source = Faulty<Limited<Counted<Mmap>>>;

fn source() -> Source {
    Faulty::new(Limited::new(Counted::new(Mmap::new()), usize::MAX))
}

fn reserved(os: &Source) -> usize {
    os.inner().inner().reserved()
}

/// The allocator's own figures, which must be those of its source.
fn stats(metadata: &Allocator, os: &Source) -> MetadataStats {
    let stats = metadata.stats();
    assert_eq!(stats.reserved, reserved(os));
    assert_eq!(stats.committed, os.inner().inner().committed());
    assert!(stats.in_use <= stats.committed);
    stats
}

#[test]
fn reservations_double_from_256_kilobytes_to_16_megabytes() {
    let (os, metadata) = (source(), Allocator::new());
    let mut steps = Vec::new();
    let mut before = 0;
    while steps.len() < 9 {
        metadata.alloc(&os, layout(60 * KB, 64)).unwrap();
        let now = stats(&metadata, &os).reserved;
        if now != before {
            steps.push((now - before) / KB);
        }
        before = now;
    }
    assert_eq!(steps, [256, 512, 1024, 2048, 4096, 8192, 16384, 16384, 16384]);
}

#[test]
fn memory_becomes_ready_by_64_kilobytes_as_it_is_needed() {
    let (os, metadata) = (source(), Allocator::new());
    for (bytes, ready) in [(1, 64), (64 * KB - 1, 64), (1, 128), (64 * KB, 192), (63 * KB, 192)] {
        metadata.alloc(&os, layout(bytes, 1)).unwrap();
        assert_eq!(stats(&metadata, &os).committed, ready * KB, "after {bytes}");
    }
    let in_use = 1 + (64 * KB - 1) + 1 + 64 * KB + 63 * KB;
    assert_eq!(metadata.stats().in_use, in_use);
}

#[test]
fn if_no_whole_step_can_be_had_what_is_needed_becomes_ready() {
    let (os, metadata) = (source(), Allocator::new());
    let page = os.page_bytes();
    os.inner().set_committed_limit(3 * page);
    assert!(metadata.alloc(&os, layout(page + 1, 1)).is_some());
    assert_eq!(stats(&metadata, &os).committed, 2 * page);
    assert!(metadata.alloc(&os, layout(page + 1, 1)).is_some());
    assert_eq!(stats(&metadata, &os).committed, 3 * page);
    assert_eq!(metadata.alloc(&os, layout(page, 1)), None);
    assert!(metadata.alloc(&os, layout(page - 2, 1)).is_some(), "that much is Ready");
    assert_eq!(stats(&metadata, &os).committed, 3 * page);
}

#[test]
fn a_scarce_system_gives_as_little_as_does() {
    let page = source().page_bytes();
    for pages in 1..40 {
        // From 16 pages on there is a guard at each end.
        let least = if pages < 16 { pages } else { pages + 2 };
        for budget in [least - 1, least, least + 1, least + 2, 2 * least, 64] {
            let (os, metadata) = (source(), Allocator::new());
            os.inner().set_reserved_limit(budget * page);
            let object = metadata.alloc(&os, layout(pages * page, 1));
            assert_eq!(object.is_some(), budget >= least, "{pages} pages of {budget}");
            let stats = stats(&metadata, &os);
            assert!(stats.reserved <= budget * page);
            assert_eq!(stats.in_use, object.map_or(0, |_| pages * page));
            let Some(object) = object else {
                assert_eq!(stats.reserved, 0);
                continue;
            };
            // SAFETY: metadata is readable and writable for ever, and ours alone.
            unsafe {
                assert_eq!(object.add(pages * page - 1).read(), 0);
                object.write_bytes(1, pages * page);
            }
        }
    }
}

#[test]
fn reservations_are_guarded_if_they_have_16_pages_and_room_for_it() {
    let page = source().page_bytes();
    for (pages, budget, guarded) in
        [(1, 15, false), (1, 16, true), (14, 16, true), (15, 16, false), (16, 18, true)]
    {
        let (os, metadata) = (source(), Allocator::new());
        os.inner().set_reserved_limit(budget * page);
        let least = metadata.alloc(&os, layout(pages * page, 1));
        assert!(least.is_some());
        // All that is left is one object more: the guards are no part of it.
        let reserved = stats(&metadata, &os).reserved / page;
        let left = reserved - pages - if guarded { 2 } else { 0 };
        if left > 0 {
            assert!(metadata.alloc(&os, layout(left * page, 1)).is_some());
        }
        assert_eq!(stats(&metadata, &os).reserved / page, reserved);
        assert_eq!(metadata.alloc(&os, layout(1, 1)).is_some(), reserved < budget);
        if reserved == budget {
            assert_eq!(
                stats(&metadata, &os).committed,
                (reserved - 2 * usize::from(guarded)) * page
            );
        }
    }
}

#[test]
fn objects_are_aligned_beyond_pages() {
    let os = source();
    let page = os.page_bytes();
    for shift in 0..20 {
        let (os, metadata) = (source(), Allocator::new());
        let align = 1 << shift;
        metadata.alloc(&os, layout(3, 1)).unwrap();
        for bytes in [1, page, 3 * page] {
            let object = metadata.alloc(&os, layout(bytes, align)).unwrap();
            assert_eq!(object.addr().get() % align, 0);
        }
        // As large as needs a reservation of its own.
        let object = metadata.alloc(&os, layout(600 * KB, align)).unwrap();
        assert_eq!(object.addr().get() % align, 0);
        // SAFETY: metadata is readable and writable for ever, and ours alone.
        assert_eq!(unsafe { object.add(600 * KB - 1).read() }, 0);
        stats(&metadata, &os);
    }
    // What is aligned to a page needs no room to move in.
    os.inner().set_reserved_limit(3 * page);
    assert!(Allocator::new().alloc(&os, layout(3 * page, page)).is_some());
}

#[test]
fn absurd_layouts_are_refused() {
    let (os, metadata) = (source(), Allocator::new());
    let most = isize::MAX as usize;
    const HIGH: usize = 1 << (usize::BITS - 2);
    // Of 32 bits, a system may have a quarter in one piece.
    os.inner().set_reserved_limit(HIGH / 2);
    for (bytes, align) in [(most, 1), (most - 1, 2), (1, HIGH), (most / 2, HIGH / 2)] {
        assert_eq!(metadata.alloc(&os, layout(bytes, align)), None);
    }
    assert_eq!(stats(&metadata, &os), MetadataStats::default());
}

#[test]
fn a_reservation_without_memory_goes_back_or_is_kept_for_later() {
    let (os, metadata) = (source(), Allocator::new());
    os.fail_from(Verb::Commit, 1);
    assert_eq!(metadata.alloc(&os, layout(100, 8)), None);
    assert_eq!(stats(&metadata, &os), MetadataStats::default());
    // If it cannot go back, it serves as soon as there is memory.
    os.fail_from(Verb::Release, 1);
    assert_eq!(metadata.alloc(&os, layout(100, 8)), None);
    assert_eq!(stats(&metadata, &os).reserved, 256 * KB);
    os.heal();
    assert!(metadata.alloc(&os, layout(100, 8)).is_some());
    assert_eq!(stats(&metadata, &os).reserved, 256 * KB);
    assert_eq!(metadata.stats().in_use, 100);
}

#[test]
fn of_two_reservations_the_one_with_more_room_is_kept() {
    let (os, metadata) = (source(), Allocator::new());
    let first = metadata.alloc(&os, layout(KB, 8)).unwrap();
    // So large that less is left behind it than the first one has.
    metadata.alloc(&os, layout(2048 * KB, 8)).unwrap();
    let second = metadata.alloc(&os, layout(KB, 8)).unwrap();
    assert_eq!(second.addr().get(), first.addr().get() + KB);
    // And now less of the first one than of the next.
    let (os, metadata) = (source(), Allocator::new());
    metadata.alloc(&os, layout(200 * KB, 8)).unwrap();
    let third = metadata.alloc(&os, layout(300 * KB, 8)).unwrap();
    assert_eq!(stats(&metadata, &os).reserved, (256 + 512) * KB);
    let fourth = metadata.alloc(&os, layout(KB, 8)).unwrap();
    assert_eq!(fourth.addr().get(), third.addr().get() + 300 * KB);
}

#[test]
fn memory_of_somebody_else_serves_if_it_is_more_than_what_is_at_hand() {
    let (os, metadata) = (source(), Allocator::new());
    let given: Vec<_> =
        (0..3).map(|_| metadata.alloc(&os, layout(64 * KB, 4096)).unwrap()).collect();
    // Of the fourth step of 64 KB only a little is Ready and free.
    let last = metadata.alloc(&os, layout(30 * KB, 8)).unwrap();
    let before = metadata.stats();
    assert_eq!(before.committed - before.in_use, 256 * KB - 2 * os.page_bytes() - 222 * KB);
    // Less is left of the first one, so it serves this object only.
    assert_eq!(metadata.alloc_from(given[0], 64 * KB, layout(60 * KB, 8)), Some(given[0]));
    let next = metadata.alloc(&os, layout(100, 8)).unwrap();
    assert_eq!(next.addr().get(), last.addr().get() + 30 * KB);
    // More is left of the second one.
    assert_eq!(metadata.alloc_from(given[1], 64 * KB, layout(100, 8)), Some(given[1]));
    let next = metadata.alloc(&os, layout(100, 1)).unwrap();
    assert_eq!(next.addr().get(), given[1].addr().get() + 100);
    // Objects begin where they are aligned, and end within.
    let odd = given[2].map_addr(|at| at.checked_add(1).unwrap());
    let aligned = metadata.alloc_from(odd, 64 * KB - 1, layout(100, 64)).unwrap();
    assert_eq!(aligned.addr().get(), given[2].addr().get() + 64);
    assert_eq!(metadata.alloc_from(given[0], 64 * KB, layout(64 * KB + 1, 1)), None);
    let after = metadata.stats();
    let more = 64 * KB + 64 * KB + (64 * KB - 1);
    assert_eq!(after.reserved, before.reserved + more);
    assert_eq!(after.committed, before.committed + more);
    assert_eq!(after.in_use, before.in_use + 60 * KB + 100 + 100 + 100 + 100);
}

#[test]
fn its_lock_is_counted() {
    let (os, metadata) = (source(), Allocator::new());
    assert_eq!(metadata.acquisitions(), 0);
    (0..5).for_each(|_| _ = metadata.alloc(&os, layout(1, 1)));
    assert_eq!(metadata.acquisitions(), 5);
}
