//! Programs with one bug each on the allocator that trusts them: most are found when a magazine is
//! emptied.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/bugs.rs"]
mod bugs;
#[path = "common/children.rs"]
mod children;
#[path = "common/objects.rs"]
mod objects;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::ptr;

use bugs::{Bug, announce, free_wrongly, of_a_static};
use children::CHILD;
use objects::{alloc, free, in_a_thread, realloc};
use spanalloc::Spanalloc;

#[global_allocator]
static ALLOCATOR: Spanalloc = Spanalloc;

/// More objects than two magazines of any class and its depot hold.
const MANY: usize = 2000;

/// Frees `wrong` as an object of `size` bytes, among many objects that are freed rightly, so that
/// the magazine with it is emptied. Says first which address it is.
fn free_among_others(wrong: &[*mut u8], size: usize) {
    free_among(&others(size), wrong, size);
}

/// Many objects of a size.
fn others(size: usize) -> Vec<*mut u8> {
    (0..2 * MANY).map(|_| alloc(size)).collect()
}

/// As [`free_among_others`], with these.
fn free_among(others: &[*mut u8], wrong: &[*mut u8], size: usize) {
    // What is freed first fills the depot, where it may stay.
    let (first, last) = others.split_at(MANY);
    for object in first.iter().chain(wrong).chain(last) {
        free(*object, size);
    }
}

const BUGS: &[Bug] = &[
    ("small_twice", "double free of", " (class 64)", || {
        let object = alloc(64);
        announce(object);
        free_among_others(&[object, object], 64);
    }),
    ("small_twice_with_others_between", "double free of", " (class 48)", || {
        let (one, two) = (alloc(48), alloc(48));
        announce(one);
        free_among_others(&[one, two, one], 48);
    }),
    ("small_twice_long_after", "double free of", " (class 1024)", || {
        let object = alloc(1024);
        announce(object);
        // The first one is in its span by now.
        free_among_others(&[object], 1024);
        let kept: Vec<_> = (0..8).map(|_| alloc(1000)).collect();
        if kept.contains(&object) {
            return;
        }
        free_among_others(&[object], 1024);
    }),
    ("large_twice", "double free of", "", || bugs::twice(100_000)),
    ("tiny_twice", "double free of", " (class 6)", || {
        let object = alloc(5);
        announce(object);
        free_among_others(&[object, object], 5);
    }),
    ("twice_in_two_threads", "double free of", " (class 256)", || {
        let object = alloc(256).expose_provenance();
        println!("address={object:#x}");
        for _ in 0..2 {
            in_a_thread(move || free(ptr::with_exposed_provenance_mut(object), 256));
        }
    }),
    ("in_another_thread_and_here", "double free of", " (class 256)", || {
        let object = alloc(256);
        announce(object);
        let address = object.expose_provenance();
        // An allocation would take in what the other thread freed.
        let others = others(256);
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 256));
        free_among(&others, &[object], 256);
    }),
    ("here_and_in_another_thread", "double free of", " (class 256)", || {
        let object = alloc(256);
        announce(object);
        free_among_others(&[object], 256);
        let address = object.expose_provenance();
        in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), 256));
    }),
    ("of_the_stack", "foreign pointer", "", || {
        let mut local = [0_u8; 64];
        announce(local.as_mut_ptr());
        free_among_others(&[local.as_mut_ptr()], 64);
    }),
    ("of_a_static", "foreign pointer", "", || {
        let object = of_a_static();
        announce(object);
        free_among_others(&[object], 512);
    }),
    ("of_a_static_as_tiny", "foreign pointer", "", || {
        let object = of_a_static();
        announce(object);
        free_among_others(&[object], 3);
    }),
    ("of_a_static_as_large", "foreign pointer", "", || {
        free_wrongly(of_a_static(), 50_000);
    }),
    ("of_a_foreign_mapping", "foreign pointer", "", || {
        // SAFETY: a new mapping.
        let object = unsafe {
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(ptr::null_mut(), 1 << 20, rights, flags, -1, 0)
        };
        announce(object.cast());
        free_among_others(&[object.cast()], 64);
    }),
    ("of_no_memory", "foreign pointer", "", || {
        let object = ptr::without_provenance_mut(0xdead_beef);
        announce(object);
        free_among_others(&[object], 64);
    }),
    ("with_high_bits", "foreign pointer", "", || {
        let object = bugs::with_high_bits(alloc(64));
        announce(object);
        free_among_others(&[object], 64);
    }),
    ("with_high_bits_as_large", "foreign pointer", "", || {
        free_wrongly(alloc(100_000).map_addr(|address| address ^ 1 << (usize::BITS - 1)), 100_000);
    }),
    ("inside_an_object", "not an object start", " (class 64)", || {
        let object = alloc(64).wrapping_add(8);
        announce(object);
        free_among_others(&[object], 64);
    }),
    ("one_byte_inside", "not an object start", " (class 4096)", || {
        let object = alloc(4096).wrapping_add(1);
        announce(object);
        free_among_others(&[object], 4096);
    }),
    ("a_page_inside", "not an object start", "", || {
        free_wrongly(alloc(100_000).wrapping_add(8192), 100_000);
    }),
    ("behind_the_last_object", "not an object start", " (class 48)", || {
        // A span of 48-byte objects is one page with 170 of them, and 32 bytes behind the last.
        let objects: Vec<_> = (0..1000).map(|_| alloc(48)).collect();
        let page = objects[500].map_addr(|address| address & !8191);
        let object = page.wrapping_add(170 * 48);
        announce(object);
        free_among_others(&[object], 48);
    }),
    ("of_another_class", "size mismatch at", " (class 64)", || {
        let object = alloc(64);
        announce(object);
        free_among_others(&[object], 128);
    }),
    ("small_as_tiny", "size mismatch at", " (class 64)", || {
        let object = alloc(64);
        announce(object);
        free_among_others(&[object], 3);
    }),
    ("small_as_large", "size mismatch at", " (class 64)", || {
        free_wrongly(alloc(64), 40_000);
    }),
    ("large_as_small", "size mismatch at", "", || {
        let object = alloc(40_000);
        announce(object);
        free_among_others(&[object], 64);
    }),
    ("realloc_of_a_static", "foreign pointer", "", || {
        let object = of_a_static();
        announce(object);
        realloc(object, 50_000, 60_000);
    }),
];

#[test]
fn child() {
    bugs::run_as_child(BUGS);
}

#[test]
fn every_bug_ends_the_process_with_one_exact_line() {
    bugs::assert_all_end_with_their_line(BUGS);
}

#[test]
fn a_closed_standard_error_still_ends_in_an_abort() {
    use std::process::Stdio;

    let exe = std::env::current_exe().unwrap();
    let status = Command::new("/bin/sh")
        .args(["-c", "exec \"$0\" --exact child --nocapture --test-threads=1 2>&-"])
        .arg(exe)
        .env(CHILD, "of_a_static_as_large")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(libc::SIGABRT));
}
