//! Programs with one bug each: the process must end at the very call, with SIGABRT and exactly one
//! line.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::HashSet;
use std::ptr;

use common::calls::{
    aligned_alloc, free, free_aligned_sized, free_sized, malloc, malloc_trim, realloc, usable_size,
};
use common::child as child_called;
use common::job::{job, say};
use common::limited::run;
use common::mappings::{end_of_arena, metadata};
use common::misuse::{AT_ONCE, all_right, announce, died_in_time, run_bug, said};

/// Small, of the size of a page, large: what is asked for, and the class as the line names it.
const SIZES: [(usize, &str); 3] = [(8, " (class 16)"), (4096, " (class 4096)"), (256 << 10, "")];

const TWICE: &str = "double free of";
const FOREIGN: &str = "foreign pointer";
const NO_START: &str = "not an object start";
const MISMATCH: &str = "size mismatch at";

/// A double or invalid free for an object of any size: its name, what the line says before the
/// address, whether it names the class, and the bug.
type Kind = (&'static str, &'static str, bool, fn(usize));

const KINDS: [Kind; 12] = [
    ("twice", TWICE, true, |size| {
        let object = malloc(size);
        announce(object);
        free(object);
        free(object);
    }),
    ("twice with another between", TWICE, true, |size| {
        let (one, two) = (malloc(size), malloc(size));
        announce(one);
        free(one);
        free(two);
        free(one);
    }),
    ("twice with 1024 others between", TWICE, true, |size| {
        let object = malloc(size);
        announce(object);
        free(object);
        // Each is free again, so the object is too, even if it was among them.
        for _ in 0..1024 {
            free(malloc(size));
        }
        free(object);
    }),
    ("1 byte inside", NO_START, true, |size| free_inside(size, 1)),
    ("8 bytes inside", NO_START, true, |size| free_inside(size, 8)),
    ("16 bytes further", NO_START, true, |size| free_inside(size, 16)),
    ("4096 bytes further", NO_START, true, |size| free_inside(size, 4096)),
    ("of the stack", FOREIGN, false, |size| free_foreign(stack(&mut [0; 256 << 10]), size)),
    ("of a static", FOREIGN, false, |size| free_foreign(on_no_heap(), size)),
    ("of a mapping of the program", FOREIGN, false, |size| free_foreign(mapping(), size)),
    ("of no memory", FOREIGN, false, |size| {
        free_foreign(ptr::without_provenance_mut(0xdead_beef), size);
    }),
    ("with the high bits set", FOREIGN, false, |size| {
        free_foreign(malloc(size).map_addr(|address| address | 0xffff << 48), size);
    }),
];

/// Frees what is `distance` bytes behind an object of `size` bytes, and is no object.
fn free_inside(size: usize, distance: usize) {
    let object = with_fresh_slots_behind(size).wrapping_add(distance);
    announce(object);
    free(object);
}

/// Frees what is no object at all, while there are objects of `size` bytes, live and free.
fn free_foreign(object: *mut u8, size: usize) {
    let kept = malloc(size);
    free(malloc(size));
    announce(object);
    free(object);
    free(kept);
}

/// An object behind which lie, in its span, many slots that were never handed out: once the spans
/// with free slots are used up, slots are handed out in the order of their addresses, and the smaller
/// spans have the size of a page.
fn with_fresh_slots_behind(size: usize) -> *mut u8 {
    for number in 0..5000 {
        let first = malloc(size);
        let slot = usable_size(first);
        if slot > 32 << 10 {
            return first;
        }
        if number < 1000 || !first.addr().is_multiple_of(8192) {
            continue;
        }
        let (second, third) = (malloc(size), malloc(size));
        if second == first.wrapping_add(slot) && third == second.wrapping_add(slot) {
            return third;
        }
    }
    panic!("no span was handed out from its start");
}

fn stack(buffer: &mut [u8]) -> *mut u8 {
    let object = buffer.as_mut_ptr();
    object.wrapping_add(object.align_offset(16))
}

fn on_no_heap() -> *mut u8 {
    static ON_NO_HEAP: [u128; 64] = [0; 64];
    ON_NO_HEAP.as_ptr().cast_mut().cast()
}

fn mapping() -> *mut u8 {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping.
    unsafe { libc::mmap(ptr::null_mut(), 1 << 20, rights, flags, -1, 0) }.cast()
}

/// A pointer that is no live object: its name, the lines with which each use of it may end the
/// process, and how to come by it.
type Wrong = (&'static str, &'static [(&'static str, &'static str)], fn() -> *mut u8);

const WRONG: &[Wrong] = &[
    ("a freed object", &[(TWICE, " (class 64)")], || {
        let object = malloc(64);
        free(object);
        object
    }),
    ("a freed large object", &[(TWICE, "")], || {
        let object = malloc(100_000);
        free(object);
        object
    }),
    ("a freed aligned object", &[(TWICE, " (class 4096)")], || {
        let object = aligned_alloc(4096, 64);
        free(object);
        object
    }),
    ("a freed aligned large object", &[(TWICE, "")], || {
        let object = aligned_alloc(1 << 20, 64);
        free(object);
        object
    }),
    ("an object freed by realloc", &[(TWICE, " (class 64)")], || {
        let object = malloc(64);
        assert!(realloc(object, 0).is_null());
        object
    }),
    ("an object that realloc moved", &[(TWICE, " (class 64)")], || {
        let object = malloc(64);
        assert_ne!(realloc(object, 10_000), object);
        object
    }),
    ("inside an object", &[(NO_START, " (class 64)")], || malloc(64).wrapping_add(8)),
    ("one byte inside", &[(NO_START, " (class 32768)")], || malloc(30_000).wrapping_add(1)),
    ("inside a large object", &[(NO_START, "")], || malloc(100_000).wrapping_add(16)),
    ("a page inside a large object", &[(NO_START, "")], || malloc(100_000).wrapping_add(8192)),
    ("the last byte of a large object", &[(NO_START, "")], || {
        let object = malloc(100_000);
        object.wrapping_add(usable_size(object) - 1)
    }),
    ("the stack", &[(FOREIGN, "")], || stack(&mut [0; 64])),
    ("a static", &[(FOREIGN, "")], on_no_heap),
    ("a mapping of the program", &[(FOREIGN, "")], mapping),
    ("no memory", &[(FOREIGN, "")], || ptr::without_provenance_mut(0xdead_beef)),
    ("the address 1", &[(FOREIGN, "")], || ptr::without_provenance_mut(1)),
    ("the last address", &[(FOREIGN, "")], || ptr::without_provenance_mut(usize::MAX)),
    ("with bit 47 set", &[(FOREIGN, "")], || malloc(64).map_addr(|address| address ^ 1 << 47)),
    ("with bit 48 set", &[(FOREIGN, "")], || malloc(64).map_addr(|address| address | 1 << 48)),
    ("with bit 63 set", &[(FOREIGN, "")], || malloc(64).map_addr(|address| address | 1 << 63)),
    ("with the high bits set", &[(FOREIGN, "")], || {
        malloc(64).map_addr(|address| address | 0xffff << 48)
    }),
    ("a slot that comes next", &[(NO_START, " (class 64)")], || {
        with_fresh_slots_behind(64).wrapping_add(64)
    }),
    ("a slot far from handed out", &[(NO_START, " (class 64)")], || {
        with_fresh_slots_behind(64).wrapping_add(100 * 64)
    }),
    ("behind the last slot", &[(NO_START, " (class 48)")], || {
        // A span of 48-byte objects is one page with 170 of them, and 32 bytes behind the last.
        let first = with_fresh_slots_behind(48).wrapping_sub(2 * 48);
        first.wrapping_add(170 * 48)
    }),
    ("a slot of a returned span", &[(TWICE, " (class 64)"), (TWICE, ""), (FOREIGN, "")], || {
        let objects: Vec<_> = (0..20_000).map(|_| malloc(64)).collect();
        let object = objects[10_000];
        objects.into_iter().for_each(free);
        malloc_trim();
        object
    }),
    ("a large object given back", &[(TWICE, ""), (FOREIGN, "")], || {
        let object = malloc(10 << 20);
        free(object);
        malloc_trim();
        object
    }),
    ("metadata", &[(FOREIGN, "")], || ptr::without_provenance_mut(metadata() + 64)),
    ("the guard before metadata", &[(FOREIGN, "")], || {
        ptr::without_provenance_mut(metadata() - 16)
    }),
    ("an unused page of an arena", &[(FOREIGN, "")], || {
        ptr::without_provenance_mut(end_of_arena() - 8192)
    }),
];

/// What is done with a wrong pointer, by name.
type Use = (&'static str, fn(*mut u8));

const USES: [Use; 5] = [
    ("free", free),
    ("realloc", |object| {
        realloc(object, 100);
    }),
    ("realloc to 0", |object| {
        realloc(object, 0);
    }),
    ("realloc to much", |object| {
        realloc(object, 1 << 20);
    }),
    ("malloc_usable_size", |object| {
        usable_size(object);
    }),
];

/// Frees that say a wrong size: name, what the line says behind the address, and the bug.
type Mismatch = (&'static str, &'static str, fn());

/// Announces the object and frees it with `free`.
fn free_with(object: *mut u8, free: impl FnOnce(*mut u8)) {
    announce(object);
    free(object);
}

const MISMATCHES: &[Mismatch] = &[
    ("smaller", " (class 64)", || free_with(malloc(64), |object| free_sized(object, 32))),
    ("larger", " (class 64)", || free_with(malloc(64), |object| free_sized(object, 65))),
    ("much larger", " (class 64)", || free_with(malloc(64), |object| free_sized(object, 40_000))),
    ("absurd", " (class 64)", || free_with(malloc(64), |object| free_sized(object, usize::MAX))),
    ("zero", " (class 64)", || free_with(malloc(64), |object| free_sized(object, 0))),
    ("large as small", "", || free_with(malloc(40_000), |object| free_sized(object, 64))),
    ("another alignment", " (class 64)", || {
        free_with(malloc(64), |object| free_aligned_sized(object, 4096, 64));
    }),
    ("a smaller alignment", " (class 4096)", || {
        free_with(aligned_alloc(4096, 64), |object| free_aligned_sized(object, 64, 64));
    }),
    ("aligned, of another size", " (class 128)", || {
        free_with(aligned_alloc(64, 128), |object| free_aligned_sized(object, 64, 1000));
    }),
];

/// The bug with this name, whichever table it is in.
fn plant(name: &str) {
    for (bug, _, _, plant) in KINDS {
        for (size, _) in SIZES {
            if name == format!("{bug}, {size} bytes") {
                return plant(size);
            }
        }
    }
    for (pointer, _, wrong) in WRONG {
        for (verb, act) in USES {
            if name == format!("{verb} of {pointer}") {
                let object = wrong();
                announce(object);
                return act(object);
            }
        }
    }
    let mismatch = MISMATCHES.iter().find(|mismatch| mismatch.0 == name).unwrap();
    mismatch.2();
}

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    let Some(name) = job() else { return };
    match std::env::var("SPANALLOC_TEST_STDERR").as_deref() {
        Ok("abort handler") => handle_abort(),
        Ok(state) => spoil_stderr(state),
        Err(_) => {}
    }
    plant(&name);
    if std::env::var_os("SPANALLOC_CHECK").is_some() {
        no_address_is_handed_out_twice();
        // Only the heap rounds up to a class: the thread may still enter it.
        assert_eq!(usable_size(malloc(100)), 112);
    }
    say("survived", 1);
}

fn no_address_is_handed_out_twice() {
    for size in [8, 64, 4096, 100_000, 256 << 10] {
        let live: Vec<_> = (0..500).map(|_| malloc(size)).collect();
        let different: HashSet<_> = live.iter().collect();
        assert_eq!(different.len(), live.len(), "{size} bytes");
        live.into_iter().for_each(free);
    }
}

#[test]
fn all_36_double_and_invalid_frees_are_caught_at_once() {
    let mut wrong = Vec::new();
    for (bug, before, has_class, _) in KINDS {
        for (size, class) in SIZES {
            let name = format!("{bug}, {size} bytes");
            let line = (before, if has_class { class } else { "" });
            wrong.extend(
                run_bug(&mut child_called(&name), &[line]).map(|why| format!("{name}: {why}")),
            );
        }
    }
    all_right(&wrong, KINDS.len() * SIZES.len());
}

#[test]
fn every_use_of_a_wrong_pointer_is_caught_at_once() {
    let mut wrong = Vec::new();
    for (pointer, lines, _) in WRONG {
        for (verb, _) in USES {
            let name = format!("{verb} of {pointer}");
            wrong.extend(
                run_bug(&mut child_called(&name), lines).map(|why| format!("{name}: {why}")),
            );
        }
    }
    all_right(&wrong, WRONG.len() * USES.len());
}

#[test]
fn a_free_that_says_a_wrong_size_is_caught_at_once() {
    let mut wrong = Vec::new();
    for (name, after, _) in MISMATCHES {
        let line = (MISMATCH, *after);
        wrong.extend(run_bug(&mut child_called(name), &[line]).map(|why| format!("{name}: {why}")));
    }
    all_right(&wrong, MISMATCHES.len());
}

/// One bug of each kind, for the tests of what else is around them.
const SAMPLE: [&str; 6] = [
    "twice, 8 bytes",
    "twice, 262144 bytes",
    "8 bytes inside, 4096 bytes",
    "of a static, 8 bytes",
    "realloc of a slot of a returned span",
    "another alignment",
];

#[test]
fn a_trusted_program_goes_on() {
    let mut wrong = Vec::new();
    let freed = WRONG
        .iter()
        .flat_map(|(pointer, ..)| USES.iter().map(move |(verb, _)| format!("{verb} of {pointer}")));
    let mismatched = MISMATCHES.iter().map(|(name, ..)| String::from(*name));
    let names: Vec<_> =
        SAMPLE.into_iter().map(String::from).chain(mismatched).chain(freed).collect();
    for name in &names {
        let ended = run(child_called(name).env("SPANALLOC_CHECK", "0"), AT_ONCE);
        let survived = said(&ended, "survived").is_some();
        if !survived || !ended.status.success() || !ended.err.is_empty() {
            wrong.push(format!("{name}: {ended:?}"));
        }
    }
    all_right(&wrong, names.len());
}

/// Leaves standard error as `state` says.
fn spoil_stderr(state: &str) {
    let mut ends = [0; 2];
    let flags = if state == "a full pipe" { 0 } else { libc::O_NONBLOCK };
    // SAFETY: all descriptors are this process's, all buffers readable or writable as needed.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), flags), 0);
        match state {
            "closed" => assert_eq!(libc::close(2), 0),
            "a full device" => {
                let full = libc::open(c"/dev/full".as_ptr(), libc::O_WRONLY);
                assert_eq!(libc::dup2(full, 2), 2);
            }
            "not for writing" => assert_eq!(libc::dup2(ends[0], 2), 2),
            "a closed pipe" => {
                assert_eq!(libc::dup2(ends[1], 2), 2);
                assert_eq!(libc::close(ends[0]), 0);
            }
            "a full pipe that does not wait" | "a full pipe" => {
                libc::fcntl(ends[1], libc::F_SETFL, libc::O_NONBLOCK);
                while libc::write(ends[1], [0_u8; 4096].as_ptr().cast(), 4096) > 0 {}
                libc::fcntl(ends[1], libc::F_SETFL, flags);
                assert_eq!(libc::dup2(ends[1], 2), 2);
            }
            _ => panic!("no state {state}"),
        }
    }
}

const STATES: [&str; 6] = [
    "closed",
    "a full device",
    "not for writing",
    "a closed pipe",
    "a full pipe that does not wait",
    "a full pipe",
];

#[test]
fn whatever_state_standard_error_is_in_the_process_ends() {
    let pairs = STATES.iter().flat_map(|state| SAMPLE.iter().map(move |name| (state, name)));
    // At once, because a process may wait a moment for a reader.
    let wrong: Vec<_> = std::thread::scope(|scope| {
        let children: Vec<_> = pairs
            .map(|(state, name)| {
                scope.spawn(move || {
                    let ended =
                        run(child_called(name).env("SPANALLOC_TEST_STDERR", state), AT_ONCE);
                    let right = died_in_time(&ended) && said(&ended, "address").is_some();
                    (!right).then(|| format!("{name}, {state}: {ended:?}"))
                })
            })
            .collect();
        children.into_iter().filter_map(|child| child.join().unwrap()).collect()
    });
    all_right(&wrong, STATES.len() * SAMPLE.len());
}

/// The program handles SIGABRT, uses the heap while it does, and ends with a code of its own.
fn handle_abort() {
    extern "C" fn handler(_signal: libc::c_int) {
        for size in [8, 64, 4096, 100_000] {
            let objects: [_; 100] = std::array::from_fn(|_| malloc(size));
            objects.into_iter().for_each(free);
        }
        // SAFETY: ends the process.
        unsafe { libc::_exit(7) };
    }
    let handler: extern "C" fn(libc::c_int) = handler;
    // SAFETY: the handler has the right type, and uses nothing but the heap.
    unsafe { libc::signal(libc::SIGABRT, handler as libc::sighandler_t) };
}

#[test]
fn a_handler_of_the_abort_may_use_the_heap() {
    let mut wrong = Vec::new();
    for name in SAMPLE {
        let ended = run(child_called(name).env("SPANALLOC_TEST_STDERR", "abort handler"), AT_ONCE);
        let one_line = ended.err.starts_with("spanalloc: ") && ended.err.lines().count() == 1;
        if ended.status.code() != Some(7) || !one_line {
            wrong.push(format!("{name}: {ended:?}"));
        }
    }
    all_right(&wrong, SAMPLE.len());
}
