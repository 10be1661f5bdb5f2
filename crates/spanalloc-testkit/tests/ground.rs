//! What a ground hands out, and whom it catches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use spanalloc_os::{Mmap, OsSource, Purpose, Request};
use spanalloc_testkit::{Ground, Plot};

const PAGE: usize = 4096;
const PAGES: usize = 256;

fn ground() -> Ground<Mmap> {
    Ground::new(Mmap::new(), PAGES * PAGE).expect("there is a megabyte")
}

fn request(pages: usize, align: usize, purpose: Purpose) -> Request {
    Request { bytes: pages * PAGE, align, hint: 0, purpose }
}

fn arena(os: &Plot<'_, Mmap>, pages: usize) -> NonNull<u8> {
    os.reserve(request(pages, PAGE, Purpose::Arena)).expect("there is room")
}

/// Whether it ends with a panic.
fn is_caught(misuse: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(misuse)).is_err()
}

#[test]
fn arenas_come_from_below_and_metadata_from_above_until_they_meet() {
    let mut ground = ground();
    let start = ground.addresses().start;
    for _ in 0..2 {
        let os = ground.plot();
        let offset = |at: NonNull<u8>| (at.addr().get() - start) / PAGE;
        assert_eq!(offset(arena(&os, 3)), 0);
        let metadata = os.reserve(request(5, PAGE, Purpose::Metadata)).expect("there is room");
        assert_eq!(offset(metadata), PAGES - 5);
        let aligned = os.reserve(request(1, 16 * PAGE, Purpose::Arena)).expect("there is room");
        assert_eq!(offset(aligned), 16);
        assert_eq!(offset(arena(&os, 13)), 3, "what was skipped is not lost");
        assert!(os.reserve(request(PAGES - 21, PAGE, Purpose::Arena)).is_err());
        let rest = arena(&os, PAGES - 22);
        assert_eq!(offset(rest), 17);
        assert!(os.reserve(request(1, PAGE, Purpose::Metadata)).is_err());
        // SAFETY: a part of what was reserved, which nobody uses.
        unsafe { os.release(rest.add(PAGE), 2 * PAGE) }.expect("any part can be released");
        assert_eq!(offset(arena(&os, 2)), 18);
    }
}

#[test]
fn memory_that_becomes_ready_is_zero_whatever_was_in_it() {
    let mut ground = ground();
    for _ in 0..3 {
        let os = ground.plot();
        let at = arena(&os, 130);
        // SAFETY: the pages were reserved, and are Ready while they are used.
        unsafe {
            let bytes = |from: usize, pages: usize| {
                std::slice::from_raw_parts_mut(at.add(from * PAGE).as_ptr(), pages * PAGE)
            };
            os.commit(at.add(PAGE), PAGE).unwrap();
            bytes(1, 1).fill(9);
            os.commit(at, 130 * PAGE).unwrap();
            assert!(bytes(1, 1).iter().all(|byte| *byte == 9), "it was Ready already");
            bytes(1, 1).fill(0);
            assert!(bytes(0, 130).iter().all(|byte| *byte == 0));
            bytes(0, 130).fill(7);
            os.decommit(at.add(60 * PAGE), 10 * PAGE).unwrap();
            os.commit(at.add(60 * PAGE), 10 * PAGE).unwrap();
            assert!(bytes(60, 10).iter().all(|byte| *byte == 0));
            assert!(bytes(70, 60).iter().all(|byte| *byte == 7));
            os.relocate(at.add(70 * PAGE), at.add(60 * PAGE), 10 * PAGE).unwrap();
            assert!(bytes(60, 10).iter().all(|byte| *byte == 7));
            assert!(bytes(70, 10).iter().all(|byte| *byte == 0));
            os.guard(at, PAGE).unwrap();
            os.unguard(at, PAGE).unwrap();
            os.empty(at, PAGE).unwrap();
            os.clear(at.add(100 * PAGE), 30 * PAGE).unwrap();
            assert!(bytes(0, 1).iter().chain(bytes(100, 30).iter()).all(|byte| *byte == 0));
        }
    }
}

#[test]
fn memory_of_large_ranges_is_zero_too() {
    let pages = 16 * PAGES;
    let mut ground = Ground::new(Mmap::new(), 2 * pages * PAGE).expect("there are 32 MB");
    for round in 0..4 {
        let os = ground.plot();
        let at = arena(&os, 2 * pages);
        // SAFETY: the pages were reserved, and are Ready while they are used.
        unsafe {
            let bytes = std::slice::from_raw_parts_mut(at.as_ptr(), pages * PAGE);
            os.commit(at, pages * PAGE).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(7);
            if round % 2 == 0 {
                os.clear(at, pages * PAGE).unwrap();
                assert!(bytes.iter().all(|byte| *byte == 0));
                os.decommit(at, pages * PAGE).unwrap();
            }
            os.commit(at.add(PAGE), PAGE).unwrap();
        }
    }
}

#[test]
fn who_breaks_the_contract_is_caught() {
    let mut ground = ground();
    let os = ground.plot();
    let at = arena(&os, 8);
    // SAFETY: none: the contract is broken, and the source sees that before it does anything.
    unsafe {
        os.commit(at, 2 * PAGE).unwrap();
        os.guard(at, PAGE).unwrap();
        assert!(is_caught(|| os.commit(at.add(7 * PAGE), 2 * PAGE).unwrap()), "not reserved");
        assert!(is_caught(|| os.commit(at.add(1), PAGE).unwrap()), "not whole pages");
        assert!(is_caught(|| os.commit(at, PAGE).unwrap()), "Guarded");
        assert!(is_caught(|| os.decommit(at.add(PAGE), 2 * PAGE).unwrap()), "not Ready");
        assert!(is_caught(|| os.unguard(at, 2 * PAGE).unwrap()), "not Guarded");
        assert!(is_caught(|| os.relocate(at.add(PAGE), at.add(2 * PAGE), PAGE).unwrap()));
        assert!(is_caught(|| os.release(at.add(7 * PAGE), 2 * PAGE).unwrap()), "not reserved");
    }
}

#[test]
fn a_write_to_memory_that_was_given_back_is_noticed() {
    let mut ground = ground();
    for again in [true, false] {
        let os = ground.plot();
        let at = arena(&os, 8);
        // SAFETY: none for the write: the memory is the ground's, and was given back.
        unsafe {
            os.commit(at, 8 * PAGE).unwrap();
            os.decommit(at.add(5 * PAGE), PAGE).unwrap();
            at.add(5 * PAGE + 8).write(0);
            if again {
                assert!(is_caught(|| os.commit(at.add(4 * PAGE), 2 * PAGE).unwrap()));
                at.add(5 * PAGE + 8).write(0xa5);
            } else {
                assert!(is_caught(|| drop(os)));
            }
        }
    }
}

#[test]
fn a_shallow_plot_clears_the_ends_of_the_pages_of_arenas_and_all_of_metadata() {
    let mut ground = ground();
    for _ in 0..2 {
        let os = ground.shallow_plot();
        let metadata = os.reserve(request(1, PAGE, Purpose::Metadata)).expect("there is room");
        for (at, offsets) in
            [(arena(&os, 1), [0, 255, PAGE - 256, PAGE - 1]), (metadata, [0, 300, 2000, 4000])]
        {
            for _ in 0..2 {
                // SAFETY: the page was reserved, and is Ready while it is used.
                unsafe {
                    os.commit(at, PAGE).expect("there is memory");
                    assert!(offsets.iter().all(|&offset| at.add(offset).read() == 0));
                    at.write_bytes(1, PAGE);
                    os.decommit(at, PAGE).expect("it was Ready");
                }
            }
        }
    }
}

#[test]
fn the_rest_of_a_block_is_refused_where_there_are_no_blocks() {
    let mut ground = Ground::new(Mmap::new(), 4 << 20).expect("there are four megabytes");
    for blocks in [true, false] {
        let os = ground.plot().in_blocks(blocks);
        let at = arena(&os, 1024);
        // SAFETY: the pages were reserved, and nobody uses them.
        unsafe {
            assert_eq!(os.commit(at.add(PAGE), (2 << 20) - PAGE).is_ok(), blocks);
            assert_eq!(os.commit(at, 4 << 20).is_ok(), blocks);
            os.commit(at, (2 << 20) + PAGE).expect("it ends elsewhere");
            os.commit(at.add((4 << 20) - (512 << 10)), 512 << 10).expect("it is not much");
        }
    }
}
