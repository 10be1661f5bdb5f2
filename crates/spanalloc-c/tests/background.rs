//! Memory that goes back: by the background thread, and on demand.
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

use std::fs;
use std::process::Command;
use std::ptr;
use std::time::{Duration, Instant};

use common::calls::{free, malloc, malloc_trim};
use common::job::{check, job, say};
use common::limited::passes;
use common::native::{PLAIN, Workshop, times};

const MB: usize = 1 << 20;
const PEAK: usize = 1024 * MB;
/// How long an idle process is waited for: twice what is promised, for a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// How many background threads this process has.
fn background_threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name == "spanalloc\n").count()
}

/// As [`background_threads`], once such a thread had the time to say its name.
fn background_threads_soon() -> usize {
    let began = Instant::now();
    while background_threads() == 0 && began.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(5));
    }
    background_threads()
}

fn start_background() -> libc::c_int {
    // SAFETY: the library is loaded, and its function has this signature.
    unsafe {
        let function = libc::dlsym(libc::RTLD_DEFAULT, c"spanalloc_start_background".as_ptr());
        assert!(!function.is_null());
        std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> libc::c_int>(function)()
    }
}

/// Fills 1 GB with small and large objects, frees them all, and returns what was in memory.
fn peak() -> usize {
    let mut first: *mut *mut u8 = ptr::null_mut();
    for sizes in [[24, 100, 1000, 9000, 30_000], [40_000, 130_000, 700_000, MB + 5, 9 * MB]] {
        // As many bytes of each size.
        for size in sizes {
            for _ in 0..PEAK / 10 / size + 1 {
                let object = malloc(size);
                // SAFETY: the object has this size; each begins with the address of the one before.
                unsafe {
                    object.write_bytes(1, size);
                    object.cast::<*mut *mut u8>().write(first);
                }
                first = object.cast();
            }
        }
    }
    let peak = resident();
    while !first.is_null() {
        // SAFETY: the object is live.
        let next = unsafe { first.read() }.cast();
        free(first.cast());
        first = next;
    }
    peak
}

/// Forks some times while there is much to give back. Each child allocates, and has no background thread but
/// its own.
fn fork_often() {
    for round in 0..times(100, 50).parse::<usize>().unwrap() {
        let objects = [(); 20].map(|()| {
            let object = malloc(MB);
            // SAFETY: the object has this size.
            unsafe { object.write_bytes(1, MB) };
            object
        });
        objects.into_iter().for_each(free);
        // SAFETY: the child calls only what works in the child of a process with threads.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let object = malloc(5 * MB);
            // SAFETY: the object has this size.
            unsafe { object.write_bytes(2, 5 * MB) };
            free(object);
            check(malloc_trim() == 1, "nothing to trim");
            let tasks = || fs::read_dir("/proc/self/task").unwrap().count();
            check(tasks() == 1, "a child of one thread");
            if round % 4 == 0 {
                check(start_background() == 0, "no thread");
                check(tasks() == 2, "the thread is not there");
            }
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the place is writable.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
}

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    let Some(name) = job() else { return };
    match name.as_str() {
        "waits" => {
            let peak = peak();
            let began = Instant::now();
            while resident() >= peak / 20 && began.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(100));
            }
            say("milliseconds", began.elapsed().as_millis());
            say("peak", peak);
            say("left", resident());
        }
        "trims" => {
            let peak = peak();
            assert_eq!(malloc_trim(), 1);
            say("peak", peak);
            say("left", resident());
        }
        "forks" => fork_often(),
        "counts" => {
            say("before", background_threads_soon());
            assert_eq!([start_background(), start_background()], [0, 0]);
            say("after", background_threads_soon());
        }
        other => panic!("{other}"),
    }
}

fn in_background(name: &str) -> Command {
    let mut command = common::child(name);
    command.env("SPANALLOC_BACKGROUND", "1");
    command
}

#[track_caller]
fn leaves_little(command: &mut Command) {
    let ended = passes(command, 120);
    let [peak, left] = ["peak", "left"].map(|name| ended.figure(name));
    assert!(peak > PEAK as i64 && left < peak / 20, "{ended:?}");
}

#[test]
fn an_idle_process_is_small_after_ten_seconds() {
    leaves_little(&mut in_background("waits"));
}

#[test]
fn a_trimmed_process_is_small() {
    leaves_little(&mut common::child("trims"));
}

#[test]
fn there_is_one_thread_and_only_if_it_is_wanted() {
    for (background, before) in [("0", 0), ("1", 1)] {
        let mut command = common::child("counts");
        let ended = passes(command.env("SPANALLOC_BACKGROUND", background), 20);
        assert_eq!((ended.figure("before"), ended.figure("after")), (before, 1), "{ended:?}");
    }
}

#[test]
fn it_starts_in_a_program_of_large_thread_local_variables() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("big_tls.c", PLAIN);
    for background in ["0", "1"] {
        let mut command = common::preloaded(&program);
        let ended = passes(command.env("SPANALLOC_BACKGROUND", background), 20);
        assert!(ended.err.is_empty(), "{ended:?}");
    }
}

#[test]
fn a_child_of_a_fork_allocates_and_may_start_its_own() {
    passes(&mut in_background("forks"), 120);
}

#[test]
fn forks_of_all_kinds_beside_the_thread() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("fork.c", PLAIN);
    for scenario in ["children", "threads", "two_at_once", "in_signal_handler"] {
        let mut command = common::preloaded(&program);
        command.args([scenario, &times(60, 30)]).env("SPANALLOC_BACKGROUND", "1");
        passes(&mut command, 150);
    }
}

#[test]
fn programs_run_beside_the_thread() {
    let mut command = common::preloaded("/bin/sh");
    command.args(["-c", "ls / | cat | wc -l; exec /bin/true"]).env("SPANALLOC_BACKGROUND", "1");
    let ended = passes(&mut command, 20);
    assert!(ended.err.is_empty(), "{ended:?}");
}
