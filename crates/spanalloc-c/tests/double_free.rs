//! Double frees in which several threads take part: the second free ends the process, whoever
//! frees first, and no address is ever handed out to two.
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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::calls::{free, malloc};
use common::job::{job, say};
use common::limited::run;
use common::misuse::{AT_ONCE, CANARY, all_right, announce, died_in_time, run_bug, said};

/// What is asked for in the ten runs of each order, and the class as the line names it.
const SIZES: [(usize, &str); 10] = [
    (8, " (class 16)"),
    (17, " (class 32)"),
    (64 - CANARY, " (class 64)"),
    (256 - CANARY, " (class 256)"),
    (1000, " (class 1024)"),
    (4096 - CANARY, " (class 4096)"),
    (20_000, " (class 20480)"),
    (32_768 - CANARY, " (class 32768)"),
    (50_000, ""),
    (256 << 10, ""),
];

/// A thread that frees for others. Nothing is allocated on the way, so that what was freed is not
/// handed out again by the test itself.
struct Worker(&'static AtomicUsize);

impl Worker {
    fn new() -> Self {
        let inbox: &AtomicUsize = Box::leak(Box::default());
        thread::spawn(move || {
            loop {
                let object = inbox.load(Ordering::Acquire);
                if object != 0 {
                    free_here(object);
                    inbox.store(0, Ordering::Release);
                }
                thread::yield_now();
            }
        });
        let worker = Self(inbox);
        // Whatever a thread does at its first use of the heap is done.
        worker.free(allocated(8));
        worker
    }

    /// Frees the object in the worker's thread, which lives on.
    fn free(&self, object: usize) {
        self.0.store(object, Ordering::Release);
        while self.0.load(Ordering::Acquire) != 0 {
            thread::yield_now();
        }
    }
}

/// An object among others, which live on, so that its span does.
fn allocated(size: usize) -> usize {
    let [_, object, _] = std::array::from_fn(|_| malloc(size));
    object.expose_provenance()
}

fn free_here(object: usize) {
    free(ptr::with_exposed_provenance_mut(object));
}

fn announced(object: usize) -> usize {
    announce(ptr::with_exposed_provenance_mut(object));
    object
}

/// An order in which two frees of one object come: its name, and the frees.
type Order = (&'static str, fn(usize));

const ORDERS: [Order; 7] = [
    ("its owner, then another", |size| {
        let other = Worker::new();
        let object = announced(allocated(size));
        free_here(object);
        other.free(object);
    }),
    ("another, then its owner", |size| {
        let other = Worker::new();
        let object = announced(allocated(size));
        other.free(object);
        free_here(object);
    }),
    ("two others", |size| {
        let (one, two) = (Worker::new(), Worker::new());
        let object = announced(allocated(size));
        one.free(object);
        two.free(object);
    }),
    ("one that ended, then its owner", |size| {
        let object = announced(allocated(size));
        thread::spawn(move || free_here(object)).join().unwrap();
        free_here(object);
    }),
    ("two others after its owner ended", |size| {
        let (one, two) = (Worker::new(), Worker::new());
        let object = announced(thread::spawn(move || allocated(size)).join().unwrap());
        one.free(object);
        two.free(object);
    }),
    ("its owner, which ends, then another", |size| {
        let other = Worker::new();
        let object = thread::spawn(move || {
            let object = announced(allocated(size));
            free_here(object);
            object
        });
        other.free(object.join().unwrap());
    }),
    ("twice by a thread that ends", |size| {
        free_twice_at_the_end_of_a_thread(announced(allocated(size)));
    }),
];

/// The end of a thread frees this object twice, after its cache is gone: later keys come later.
fn free_twice_at_the_end_of_a_thread(object: usize) {
    unsafe extern "C" fn twice(object: *mut libc::c_void) {
        free(object.cast());
        free(object.cast());
    }
    let end = thread::spawn(move || {
        free(malloc(64));
        let mut key = 0;
        let object = ptr::with_exposed_provenance::<libc::c_void>(object);
        // SAFETY: the key is valid for writing, its destructor has the right type.
        unsafe {
            assert_eq!(libc::pthread_key_create(&raw mut key, Some(twice)), 0);
            assert_eq!(libc::pthread_setspecific(key, object), 0);
        }
    });
    end.join().unwrap();
}

/// Races of two frees, by name: whether the owner is one of the two, and what is asked for.
const RACES: [(&str, bool, usize, &str); 4] = [
    ("the owner and another at once", true, 64 - CANARY, " (class 64)"),
    ("two others at once", false, 64 - CANARY, " (class 64)"),
    ("the owner of a large object and another at once", true, 256 << 10, ""),
    ("two others that free a large object at once", false, 256 << 10, ""),
];

/// What the line may say of such a race, before the address. With the feature `hardened` a thread wipes a small
/// object, its canary too, before the slot becomes free. So the other one may find a live slot without its canary,
/// which is what an overflow leaves: it cannot know which of the two it was. A large object has no canary.
fn told_as(class: &str) -> &'static [&'static str] {
    match (cfg!(feature = "hardened"), class) {
        (false, _) | (true, "") => &["double free of"],
        (true, _) => &["double free of", "heap overflow of"],
    }
}

/// Two threads free one object at the same moment. The process may go on until the free is taken
/// in by the owner, but never hands out an address twice.
fn race(with_owner: bool, size: usize) {
    static READY: AtomicUsize = AtomicUsize::new(0);
    let object = announced(allocated(size));
    let free_at_once = move || {
        READY.fetch_add(1, Ordering::Relaxed);
        while READY.load(Ordering::Relaxed) < 2 {
            std::hint::spin_loop();
        }
        free_here(object);
    };
    let other = thread::spawn(free_at_once);
    if with_owner {
        free_at_once();
    } else {
        thread::spawn(free_at_once).join().unwrap();
    }
    other.join().unwrap();
    let live: Vec<_> = (0..10_000).map(|_| malloc(size)).collect();
    let different: HashSet<_> = live.iter().collect();
    if different.len() < live.len() {
        say("handed_out_twice", live.len() - different.len());
    }
    live.into_iter().for_each(free);
}

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    let Some(name) = job() else { return };
    for (_, with_owner, size, _) in RACES.iter().filter(|race| race.0 == name) {
        race(*with_owner, *size);
    }
    for (order, double_free) in ORDERS {
        for (size, _) in SIZES {
            if name == format!("{order}, {size} bytes") {
                double_free(size);
            }
        }
    }
    say("survived", 1);
}

#[test]
fn double_frees_across_threads_are_caught_in_every_order() {
    let mut wrong = Vec::new();
    for (order, _) in ORDERS {
        for (size, class) in SIZES {
            let name = format!("{order}, {size} bytes");
            let why = run_bug(&mut common::child(&name), &[("double free of", class)]);
            wrong.extend(why.map(|why| format!("{name}: {why}")));
        }
    }
    all_right(&wrong, ORDERS.len() * SIZES.len());
}

#[test]
fn two_frees_at_once_are_caught_before_an_address_is_handed_out_twice() {
    let mut wrong = Vec::new();
    let rounds = 50;
    for round in 0..rounds {
        for (name, _, _, class) in RACES {
            let ended = run(&mut common::child(name), AT_ONCE);
            let address = said(&ended, "address").unwrap_or("?");
            let right = told_as(class)
                .iter()
                .any(|what| ended.err == format!("spanalloc: {what} {address}{class}\n"));
            let twice = said(&ended, "handed_out_twice").is_some();
            if !died_in_time(&ended) || !right || twice {
                wrong.push(format!("{name}, round {round}: {ended:?}"));
            }
        }
    }
    all_right(&wrong, RACES.len() * rounds);
}
