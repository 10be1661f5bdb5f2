//! What `Mmap` promises of a Linux system beyond the contract of every source.
#![cfg(all(feature = "mmap", target_os = "linux", not(loom)))]
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
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use spanalloc_os::{Futex, Geometry, Mmap, Native, OsError, OsSource, Purpose, Request};
use spanalloc_sync::{Lock, Wait, rank};
use support::{request, returning};

fn set_errno(value: i32) {
    // SAFETY: the thread's own number.
    unsafe { *libc::__errno_location() = value };
}

fn errno() -> i32 {
    // SAFETY: the thread's own number.
    unsafe { *libc::__errno_location() }
}

/// The rights of the mapping that `at` lies in, as `/proc/self/maps` shows them.
fn rights(at: NonNull<u8>) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&at.addr().get())
    });
    line.unwrap().split(' ').nth(1).unwrap().to_owned()
}

/// How many of `pages` pages from `at` are in memory.
fn resident(at: NonNull<u8>, pages: usize) -> usize {
    let mut there = vec![0_u8; pages];
    let bytes = pages * Mmap::new().page_bytes();
    // SAFETY: `there` has a byte for each page.
    assert_eq!(unsafe { libc::mincore(at.as_ptr().cast(), bytes, there.as_mut_ptr()) }, 0);
    there.iter().filter(|page| **page & 1 == 1).count()
}

#[test]
fn reserved_space_has_no_rights_and_committed_space_has() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let at = os.reserve(request(64 * page, page)).unwrap();
    assert_eq!(rights(at), "---p");
    // SAFETY: reserved above.
    unsafe { os.commit(at, 4 * page).unwrap() };
    assert_eq!(rights(at), "rw-p");
    assert_eq!(resident(at, 64), 0, "what is committed is not filled in");
}

#[test]
fn decommit_gives_the_memory_back() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let at = os.reserve(request(64 * page, page)).unwrap();
    // SAFETY: reserved above.
    unsafe {
        os.commit(at, 64 * page).unwrap();
        at.write_bytes(1, 64 * page);
        assert_eq!(resident(at, 64), 64);
        os.decommit(at, 63 * page).unwrap();
    }
    assert_eq!(resident(at, 64), 1);
}

#[test]
fn locked_memory_is_decommitted_too() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let at = os.reserve(request(2 * page, page)).unwrap();
    // SAFETY: reserved above.
    unsafe {
        os.commit(at, 2 * page).unwrap();
        at.write_bytes(1, 2 * page);
        assert_eq!(libc::mlock(at.as_ptr().cast(), page), 0);
        os.decommit(at, page).unwrap();
        os.commit(at, page).unwrap();
        assert_eq!(at.read(), 0);
        assert_eq!(at.add(page).read(), 1, "the page beside it is as it was");
    }
}

/// Whether a byte may be read: the kernel copies it, or says that it cannot.
fn readable(at: NonNull<u8>) -> bool {
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: at.as_ptr().cast(), iov_len: 1 };
    // SAFETY: one byte is written, to `byte`.
    unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) == 1 }
}

#[test]
fn a_guard_is_no_memory_until_it_is_taken_away() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let at = os.reserve(request(4 * page, page)).unwrap();
    // SAFETY: reserved above and used by this test alone.
    unsafe {
        os.commit(at, 4 * page).unwrap();
        at.write_bytes(1, 4 * page);
        let third = at.add(2 * page);
        for _ in 0..3 {
            os.guard(third, page).unwrap();
            assert_eq!(
                [readable(at), readable(third), readable(at.add(3 * page))],
                [true, false, true]
            );
            os.unguard(third, page).unwrap();
            third.write_bytes(7, page);
        }
        // What cannot be marked loses its rights instead.
        assert_eq!(libc::mlock(third.as_ptr().cast(), page), 0);
        os.guard(third, page).unwrap();
        assert!(!readable(third));
        os.unguard(third, page).unwrap();
        third.write_bytes(7, page);
        assert_eq!((at.read(), at.add(3 * page).read()), (1, 1));
    }
}

#[test]
fn what_is_hardly_in_memory_is_cleared_by_giving_it_back() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let at = os.reserve(request(256 * page, page)).unwrap();
    // SAFETY: reserved above and used by this test alone.
    unsafe {
        os.commit(at, 256 * page).unwrap();
        at.write(1);
        at.add(255 * page).write(1);
        os.clear(at, 256 * page).expect("two pages of 256 are there");
        assert_eq!((at.read(), at.add(255 * page).read()), (0, 0));
        at.write_bytes(1, 256 * page);
        assert_eq!(os.clear(at, 256 * page), Err(OsError::Unsupported), "all of it is there");
        assert!((0..256 * page).all(|byte| at.add(byte).read() == 1));
        let small = 16 * page;
        os.decommit(at, small).unwrap();
        os.commit(at, small).unwrap();
        assert_eq!(os.clear(at, small), Err(OsError::Unsupported), "not worth a call");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn it_is_known_whether_a_range_is_filled() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let bytes = 256 * page;
    let at = os.reserve(request(bytes, page)).unwrap();
    assert!(!os.is_filled(at, bytes), "nothing is there");
    // SAFETY: reserved above and used by this test alone.
    unsafe {
        os.commit(at, bytes).unwrap();
        at.write_bytes(1, bytes / 2);
        assert!(os.is_filled(at, bytes / 2) && !os.is_filled(at, bytes), "half of it is");
        at.write_bytes(1, bytes);
        assert!(os.is_filled(at, bytes), "all of it is");
        assert!((0..bytes).all(|byte| at.add(byte).read() == 1), "as it was");
        os.decommit(at, bytes).unwrap();
        assert!(!os.is_filled(at, bytes), "it was given back");
    }
}

#[test]
fn what_was_touched_is_resident() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let at = os.reserve(request(600 * page, page)).unwrap();
    // SAFETY: reserved above and used by this test alone.
    unsafe {
        os.commit(at, 600 * page).unwrap();
        assert_eq!(os.resident(at, 600 * page), 0);
        for touched in [0, 255, 256, 599] {
            at.add(touched * page).write(1);
        }
        assert_eq!(os.resident(at, 600 * page), 4 * page);
        assert_eq!(os.resident(at.add(page), 255 * page), page);
        os.decommit(at, 256 * page).unwrap();
        assert_eq!(os.resident(at.add(256 * page), 344 * page), 2 * page);
    }
}

#[test]
fn memory_is_moved_without_a_copy_and_leaves_zeros() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let at = os.reserve(request(64 * page, page)).unwrap();
    set_errno(4711);
    // SAFETY: reserved above and used by this test alone.
    unsafe {
        os.commit(at, 64 * page).unwrap();
        at.write_bytes(7, 16 * page);
        let target = at.add(40 * page);
        os.relocate(at, target, 16 * page).expect("the kernel moves memory");
        assert_eq!((resident(at, 16), resident(target, 16)), (0, 16));
        assert_eq!([rights(at), rights(target)], ["rw-p", "rw-p"]);
        assert!((0..16 * page).all(|byte| target.add(byte).read() == 7));
        assert!((0..16 * page).all(|byte| at.add(byte).read() == 0));
        // Half of this was moved, so it is two mappings.
        let (mixed, target) = (at.add(48 * page), at.add(16 * page));
        mixed.write(9);
        assert_eq!(os.relocate(mixed, target, 16 * page), Err(OsError::Unsupported));
        assert_eq!((mixed.read(), target.read()), (9, 0));
    }
    assert_eq!(errno(), 4711);
}

/// Whether this process is for the test with this name alone. If not, the test is run in one that is.
fn is_alone(name: &str) -> bool {
    const CHILD: &str = "SPANALLOC_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    assert!(command.args(["--exact", name]).env(CHILD, name).status().unwrap().success());
    false
}

#[test]
fn arenas_come_one_behind_the_other() {
    const ARENA: usize = Native::ARENA_BYTES;
    // Other tests reserve arenas, too.
    if !is_alone("arenas_come_one_behind_the_other") {
        return;
    }
    let os = returning(Mmap::new());
    let first = os.reserve(request(ARENA, ARENA)).unwrap().addr().get();
    for number in 1..10 {
        let hint = first + number * ARENA;
        let next = os.reserve(Request { hint, ..request(ARENA, ARENA) }).unwrap();
        assert_eq!(next.addr().get(), hint);
    }
}

/// Kilobytes that this process has locked.
fn locked() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn of_a_program_that_locks_its_memory_only_ready_pages_are_locked() {
    // The lock is for all of a process's memory.
    if !is_alone("of_a_program_that_locks_its_memory_only_ready_pages_are_locked") {
        return;
    }
    // SAFETY: concerns the memory of this process, which is short-lived.
    if unsafe { libc::mlockall(libc::MCL_FUTURE) } != 0 {
        eprintln!("SKIPPED: this user may not lock memory");
        return;
    }
    let before = locked();
    let os = returning(Mmap::new());
    let at = os.reserve(request(64 << 20, 64 << 20)).unwrap();
    assert!(locked() < before + 1024, "address space is not locked");
    // SAFETY: reserved above and used by this test alone.
    unsafe {
        os.commit(at, 2 << 20).unwrap();
        assert!((2048..3072).contains(&(locked() - before)));
        os.decommit(at, 2 << 20).unwrap();
        assert!(locked() < before + 1024, "what is given back is not locked");
        os.commit(at, 1 << 20).unwrap();
        assert!((1024..2048).contains(&(locked() - before)));
    }
}

#[test]
fn mappings_are_named_if_the_kernel_knows_names() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let request = |purpose| Request { bytes: 4 * page, align: page, hint: 0, purpose };
    let arena = os.reserve(request(Purpose::Arena)).unwrap();
    let metadata = os.reserve(request(Purpose::Metadata)).unwrap();
    // SAFETY: gives a mapping of ours the name it has.
    let known = unsafe {
        let name = c"spanalloc arena";
        let (at, bytes) = (arena.as_ptr(), 4 * page);
        libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, at, bytes, name.as_ptr()) == 0
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert_eq!(maps.contains("[anon:spanalloc arena]"), known);
    assert_eq!(maps.contains("[anon:spanalloc metadata]"), known);
    assert_ne!(arena, metadata);
}

#[test]
fn a_hint_is_a_wish_and_never_replaces_a_mapping() {
    let os = returning(Mmap::new());
    let page = os.page_bytes();
    let taken = os.reserve(request(4 * page, page)).unwrap();
    let wish = Request { hint: taken.addr().get(), ..request(4 * page, page) };
    let other = os.reserve(wish).unwrap();
    assert!(other.addr().get().abs_diff(taken.addr().get()) >= 4 * page);
}

#[test]
fn no_verb_changes_errno() {
    let os = Mmap::new();
    let page = os.page_bytes();
    set_errno(77);
    let huge = usize::MAX / page * page;
    assert!(os.reserve(request(huge, page)).is_err());
    let odd = NonNull::new(std::ptr::without_provenance_mut(1)).unwrap();
    let at = os.reserve(request(page, page)).unwrap();
    // SAFETY: reserved above; once released, the page is named again to see the error.
    unsafe {
        os.commit(at, page).unwrap();
        os.decommit(at, page).unwrap();
        os.release(at, page).unwrap();
        assert!(os.commit(odd, page).is_err());
        assert!(os.release(odd, page).is_err());
    }
    let word = AtomicU32::new(1);
    Futex::wait(&word, 0);
    Futex::wake_one(&word);
    assert_eq!(errno(), 77);
}

#[test]
fn a_futex_sleeps_until_it_is_woken() {
    let word = Arc::new(AtomicU32::new(0));
    let sleeper = {
        let word = Arc::clone(&word);
        std::thread::spawn(move || {
            let start = Instant::now();
            while word.load(std::sync::atomic::Ordering::Acquire) == 0 {
                Futex::wait(&word, 0);
            }
            start.elapsed()
        })
    };
    std::thread::sleep(Duration::from_millis(50));
    word.store(1, std::sync::atomic::Ordering::Release);
    Futex::wake_one(&word);
    assert!(sleeper.join().unwrap() >= Duration::from_millis(20));
}

#[test]
fn a_lock_that_waits_in_the_kernel_excludes() {
    let lock = Arc::new(Lock::<u64, Futex, { rank::HEAP }>::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let lock = Arc::clone(&lock);
            std::thread::spawn(move || {
                for _ in 0..5000 {
                    let mut guard = lock.lock();
                    let before = *guard;
                    std::hint::black_box(&guard);
                    *guard = before + 1;
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(*lock.lock(), 20_000);
}

#[test]
fn random_numbers_differ() {
    let os = Mmap::new();
    set_errno(7);
    let numbers: std::collections::HashSet<u64> = (0..1000).map(|_| os.random()).collect();
    assert_eq!((numbers.len(), errno()), (1000, 7));
}

/// Of each of 16 reservations for an arena, and of each for metadata, how far it lies below the program's
/// other mappings, in units of 64 MB.
#[cfg(target_pointer_width = "64")]
fn places(os: &impl OsSource, purpose: Purpose) -> std::collections::HashSet<usize> {
    let top = NonNull::from(&Mmap::new).addr().get();
    let place = |_| {
        let bytes = os.page_bytes();
        let at = os.reserve(Request { purpose, ..request(bytes, bytes) }).unwrap();
        top.abs_diff(at.addr().get()) >> 26
    };
    (0..16).map(place).collect()
}

#[cfg(target_pointer_width = "64")]
#[test]
fn what_is_scattered_lies_everywhere() {
    let os = returning(Mmap::scattered());
    for purpose in [Purpose::Arena, Purpose::Metadata] {
        let places = places(&os, purpose);
        // Two of them are at one of 2^18 places once in 2,000 runs, three never.
        assert!(places.len() >= 15, "{places:?}");
        let (least, most) = (places.iter().min().unwrap(), places.iter().max().unwrap());
        assert!(most - least > 1 << 14, "over a sixteenth of the range at least: {places:?}");
    }
    let os = returning(Mmap::new());
    assert!(places(&os, Purpose::Metadata).len() <= 2, "side by side");
}
