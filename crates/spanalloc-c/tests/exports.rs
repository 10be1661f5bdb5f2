//! Each function that the library exports does what the one of glibc or libstdc++ does: those that
//! C and C++ programs call every moment are tested in `bad_input.rs`, the others here.
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

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use common::limited::{passes, run};
use common::native::{PLAIN, Workshop};
use common::{library, preloaded};

/// Seconds that a scenario may take.
const LIMIT: u64 = 60;

/// The number behind `before` in a line of `text`.
fn number(line: &str, before: &str) -> usize {
    let from = line.find(before).unwrap_or_else(|| panic!("no {before} in {line}")) + before.len();
    let digits: String = line[from..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {before} in {line}"))
}

/// Runs the C scenarios in a program that was made to run on the library.
fn run_scenarios(command: impl Fn() -> Command) {
    for scenario in ["names", "numbers", "trimming", "parameters"] {
        let ended = passes(command().arg(scenario), LIMIT);
        assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", ""), "{scenario}");
    }
    check_description(&passes(command().arg("description"), LIMIT).out);
    // The least that the C library gives a thread; frames of a debug build are larger.
    let stack = if cfg!(debug_assertions) { "131072" } else { "16384" };
    passes(command().args(["small stack", stack]), LIMIT);
    let ended = passes(command().arg("stats"), LIMIT);
    assert!(ended.err.starts_with("spanalloc: heap of exports (process "), "{}", ended.err);
    assert!(ended.err.ends_with("beside the arenas\n") && ended.out.is_empty(), "{}", ended.err);
}

/// What `malloc_info` writes is XML, in the form of glibc, and adds up.
fn check_description(text: &str) {
    let mut open = Vec::new();
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("</") {
            Some(close) => assert_eq!(open.pop(), close.strip_suffix('>'), "{text}"),
            None if line.ends_with("/>") => assert_eq!(line.matches('"').count() % 2, 0, "{line}"),
            None => {
                let name = line.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
                open.push(name.unwrap_or_else(|| panic!("{line}")).split(' ').next().unwrap());
            }
        }
    }
    assert!(open.is_empty(), "{text}");
    assert!(text.starts_with("<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n"), "{text}");

    let lines = |start: &'static str| text.lines().filter(move |line| line.starts_with(start));
    let mut slots = 0;
    let mut last = 0;
    for line in lines("  <size ") {
        let [from, to] = ["from=\"", "to=\""].map(|name| number(line, name));
        assert!(last < from && from <= to, "{line}");
        assert_eq!(number(line, "total=\""), to * number(line, "count=\""), "{line}");
        (slots, last) = (slots + number(line, "total=\""), to);
    }
    let [fast, rest] = ["fast", "rest"].map(|kind| {
        let found: Vec<_> = text.lines().filter(|line| line.contains(kind)).collect();
        assert_eq!(found.len(), 2, "{text}");
        number(found[0], "size=\"")
    });
    assert!(slots > 0 && fast <= slots && slots <= fast + rest, "{text}");
    let large = lines("<total type=\"mmap\"").next().unwrap();
    assert!(number(large, "count=\"") >= 1 && number(large, "size=\"") >= 1 << 20, "{large}");
    let system: Vec<_> = lines("<system type=\"current\"").collect();
    assert!(number(system[0], "size=\"") >= fast + rest, "{text}");
}

#[test]
fn every_function_of_c_does_what_its_manual_says() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("exports.c", PLAIN);
    run_scenarios(|| preloaded(&program));
}

#[test]
fn a_program_can_have_the_library_inside() {
    let Some(workshop) = Workshop::open() else { return };
    let archive = library().with_file_name("libspanalloc_c.a");
    let archive = archive.to_str().unwrap();
    for options in [&[archive, "-lm"][..], &[archive, "-lm", "-static"]] {
        let program = workshop.program("exports.c", options);
        run_scenarios(|| Command::new(&program));
        let mut command = Command::new(&program);
        let ended = passes(command.arg("names").env("SPANALLOC_STATS", "1"), LIMIT);
        assert!(ended.err.starts_with("spanalloc: heap of exports"), "at exit: {}", ended.err);
    }
}

#[test]
fn every_operator_of_cxx_is_there_with_memory_and_without() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("operators.cpp", PLAIN);
    for scenario in ["forms", "refusals", "handlers"] {
        let ended = passes(preloaded(&program).arg(scenario), LIMIT);
        assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", ""), "{scenario}");
    }
    // Where the library is found later than libstdc++, the operators are those of libstdc++.
    passes(Command::new(&program).arg("refusals"), LIMIT);
}

fn dies_with(program: &Path, scenario: &str, before: &str, after: &str) {
    let ended = run(preloaded(program).arg(scenario), 5);
    assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{scenario}: {ended:?}");
    let right = ended.err.starts_with(before) && ended.err.ends_with(after);
    assert!(right && ended.err.lines().count() == 1, "{scenario}: {ended:?}");
}

#[test]
fn a_delete_that_is_wrong_ends_the_process() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("operators.cpp", PLAIN);
    let mismatch = "spanalloc: size mismatch at 0x";
    dies_with(&program, "wrong size", mismatch, " (class 64)\n");
    dies_with(&program, "wrong alignment", mismatch, " (class 64)\n");
    dies_with(&program, "twice", "spanalloc: double free of 0x", " (class 64)\n");
}

#[test]
fn without_a_way_to_throw_the_process_ends() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("nothrow.c", PLAIN);
    let line = "spanalloc: no memory for operator new, and no std::bad_alloc to throw\n";
    dies_with(&program, "", line, line);
}
