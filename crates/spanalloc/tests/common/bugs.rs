//! Programs with one bug each, as children of a test: the process must end at once, with SIGABRT and
//! exactly one line.
#![allow(dead_code, reason = "each test uses a part of this")]

use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::time::{Duration, Instant};

use crate::children::{child, job};
use crate::objects::{alloc, free, in_a_thread};

/// Name, what the line says before the address and after it, and the bug itself.
pub type Bug = (&'static str, &'static str, &'static str, fn());

/// Tells the parent the address that the report must name.
pub fn announce(object: *mut u8) {
    println!("address={:#x}", object.addr());
}

/// What a child prints when its bug went unnoticed.
const SURVIVED: &str = "survived";

/// Runs the bug that this process was started for, if it is a child: a test that does nothing else.
pub fn run_as_child(bugs: &[Bug]) {
    let Some(name) = job() else { return };
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is valid for reading.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) }, 0);
    let (.., bug) = bugs.iter().find(|bug| bug.0 == name).unwrap();
    bug();
    println!("{SURVIVED}");
}

/// Runs each bug in a process of its own.
pub fn assert_all_end_with_their_line(bugs: &[Bug]) {
    let mut wrong = Vec::new();
    for (name, before, after, _) in bugs {
        let began = Instant::now();
        let output = child(name).env("RUST_BACKTRACE", "1").output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        let address = out.lines().find_map(|line| line.split_once("address=")).map(|pair| pair.1);
        let expected = format!("spanalloc: {before} {}{after}\n", address.unwrap_or("?"));
        let aborted = output.status.signal() == Some(libc::SIGABRT);
        let in_time = began.elapsed() < Duration::from_secs(5);
        if err != expected || !aborted || !in_time || out.contains(SURVIVED) {
            let status = output.status;
            wrong.push(format!("{name}: {status}, {err:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), bugs.len(), wrong.join("\n"));
}

/// Something that is on no heap.
static ON_NO_HEAP: [u64; 64] = [0; 64];

pub fn of_a_static() -> *mut u8 {
    ON_NO_HEAP.as_ptr().cast_mut().cast()
}

/// Frees an address as an object of this size, and says first which one it is.
pub fn free_wrongly(object: *mut u8, size: usize) {
    announce(object);
    free(object, size);
}

pub fn twice(size: usize) {
    let object = alloc(size);
    announce(object);
    free(object, size);
    free(object, size);
}

pub fn twice_with_another_between(size: usize) {
    let (one, two) = (alloc(size), alloc(size));
    announce(one);
    free(one, size);
    free(two, size);
    free(one, size);
}

fn free_in_a_thread(object: *mut u8, size: usize) {
    let address = object.expose_provenance();
    in_a_thread(move || free(ptr::with_exposed_provenance_mut(address), size));
}

pub fn here_and_in_another_thread(size: usize) {
    let object = alloc(size);
    announce(object);
    free(object, size);
    free_in_a_thread(object, size);
}

pub fn in_another_thread_and_here(size: usize) {
    let object = alloc(size);
    announce(object);
    free_in_a_thread(object, size);
    free(object, size);
}

pub fn in_two_other_threads(size: usize) {
    let object = alloc(size);
    announce(object);
    free_in_a_thread(object, size);
    free_in_a_thread(object, size);
}

/// Frees an object that a thread made and freed that is gone.
pub fn in_a_thread_that_is_gone(size: usize) {
    let (send, receive) = std::sync::mpsc::channel();
    in_a_thread(move || {
        let object = alloc(size);
        // Something else keeps the span from going back to the heap.
        let other = alloc(size);
        free(object, size);
        send.send((object.expose_provenance(), other.expose_provenance())).unwrap();
    });
    let (object, _) = receive.recv().unwrap();
    free_wrongly(ptr::with_exposed_provenance_mut(object), size);
}

pub fn of_the_stack(size: usize) {
    let mut local = [0_u8; 64];
    free_wrongly(local.as_mut_ptr(), size);
}

/// An object's address with bits that no address has.
pub fn with_high_bits(object: *mut u8) -> *mut u8 {
    object.map_addr(|address| address | usize::MAX << (usize::BITS - 16))
}
