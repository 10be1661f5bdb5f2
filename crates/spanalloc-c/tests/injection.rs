//! Every call of the system fails in turn, from outside: `strace` has the first one answer ENOMEM, then the
//! second, until the program under the library makes no more. Each fails alone, with those that follow it,
//! and from then on.
//!
//! `SPANALLOC_TEST_FAULTS=all` tries each number of a call, in every way.
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
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::limited::{Ended, run};
use common::misuse::all_right;
use common::native::{PLAIN, Workshop, skipped};

/// Calls that fail in a burst.
const BURST: usize = 5;
/// The most requests that one refused call of the system may cost.
const MOST_REFUSED: i64 = 2;
/// The most bytes that the C library may keep for its threads.
const OF_THREADS: i64 = 2000;
/// How many calls fail, from the one that fails first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    Once,
    Burst,
    Forever,
}

impl Fails {
    /// As `strace` says it.
    fn when(self, first: usize) -> String {
        match self {
            Self::Once => first.to_string(),
            Self::Burst => format!("{first}..{}", first + BURST - 1),
            Self::Forever => format!("{first}+"),
        }
    }

    /// The numbers of the calls that fail first, counted from the start of the program.
    fn numbers(self) -> Vec<usize> {
        const FEW: [usize; 9] = [1, 2, 3, 5, 8, 13, 21, 34, 55];
        if is_full() {
            (1..=10_000).collect()
        } else if cfg!(debug_assertions) {
            FEW.into_iter().step_by(2).collect()
        } else if self == Self::Once {
            (1..=64).collect()
        } else {
            FEW.to_vec()
        }
    }
}

fn is_full() -> bool {
    std::env::var_os("SPANALLOC_TEST_FAULTS").is_some()
}

/// The program whose calls fail.
struct Traced {
    workshop: Workshop,
    program: PathBuf,
}

impl Traced {
    /// None if something is missing that it takes.
    fn new() -> Option<Self> {
        if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
            skipped("there is no strace");
            return None;
        }
        let workshop = Workshop::open()?;
        let program = workshop.program("injection.c", PLAIN);
        Some(Self { workshop, program })
    }

    /// Runs the program under the library and `strace`, and returns what that noted of these calls.
    fn run(&self, traced: &str, inject: Option<&str>, patience: usize) -> (Ended, String) {
        let log = self.workshop.path().join("log");
        let mut command = Command::new("strace");
        command.args(["-qq", "-f", "-e", "signal=none", "-e", &format!("trace={traced}"), "-o"]);
        command.arg(&log);
        if let Some(inject) = inject {
            command.args(["-e", &format!("inject={inject}")]);
        }
        command.args(["-E", &format!("LD_PRELOAD={}", common::library().display())]);
        let ended = run(command.arg(&self.program).arg(patience.to_string()), 300);
        (ended, fs::read_to_string(log).unwrap())
    }

    /// How many of these calls are made before the library is opened, from then until the program begins,
    /// and from then on.
    fn count(&self, call: &str) -> (usize, usize, usize) {
        let (ended, log) = self.run(&format!("{call},openat,write"), None, 1);
        assert!(ended.status.success() && ended.figure("refused") == 0, "{ended:?}");
        let (early, rest) = log.split_once("/libspanalloc_c.so").unwrap();
        let (begin, work) = rest.split_once("write(1, \"main=1").unwrap();
        let calls = |text: &str| text.matches(&format!(" {call}(")).count();
        (calls(early), calls(begin), calls(work))
    }
}

fn came_through(ended: &Ended, fails: Fails) -> bool {
    let most = if fails == Fails::Once { MOST_REFUSED } else { i64::MAX };
    ended.status.success()
        && ended.err.is_empty()
        && ended.figure("refused") <= most
        && ended.figure("left").abs() <= OF_THREADS
}

/// Whether the loader gave up: the library, and says so, or the program before the library ever mapped memory.
fn loader_gave_up(ended: &Ended, log: &str) -> bool {
    ended.err.contains("cannot be preloaded") || !log.contains("MAP_NORESERVE")
}

fn every_call_fails(call: &str) {
    let Some(traced) = Traced::new() else { return };
    let (early, begin, work) = traced.count(call);
    let (mut wrong, mut of, mut last, mut given_up) = (Vec::new(), 0, 0, 0);
    for fails in [Fails::Once, Fails::Burst, Fails::Forever] {
        for number in fails.numbers() {
            let inject = format!("{call}:error=ENOMEM:when={}", fails.when(early + begin + number));
            let patience = if fails == Fails::Forever { 0 } else { BURST };
            let (ended, log) = traced.run(call, Some(&inject), patience);
            if !log.contains("(INJECTED)") {
                break;
            }
            (of, last) = (of + 1, last.max(number));
            if !came_through(&ended, fails) {
                wrong.push(format!("{inject}: {ended:?}"));
            }
        }
    }
    assert!(of > 0, "there was no {call} to fail");
    // What comes before, the loader does.
    for number in 1..=begin {
        let inject = format!("{call}:error=ENOMEM:when={}", early + number);
        let (ended, log) = traced.run(&format!("{call},mmap"), Some(&inject), BURST);
        if loader_gave_up(&ended, &log) {
            given_up += 1;
        } else if !came_through(&ended, Fails::Once) {
            wrong.push(format!("{inject}: {ended:?}"));
        }
    }
    println!(
        "{call}: {work} calls of the program; {of} runs in which one fails, the last the number {last}; \
         {begin} while it is loaded, of which the loader gives up in {given_up}"
    );
    all_right(&wrong, of + begin);
}

#[test]
fn every_mmap() {
    every_call_fails("mmap");
}

#[test]
fn every_munmap() {
    every_call_fails("munmap");
}

#[test]
fn every_mprotect() {
    every_call_fails("mprotect");
}

#[test]
fn every_madvise() {
    every_call_fails("madvise");
}

#[test]
fn every_mremap() {
    every_call_fails("mremap");
}

#[test]
fn every_mincore() {
    every_call_fails("mincore");
}

#[test]
fn every_prctl() {
    every_call_fails("prctl");
}
