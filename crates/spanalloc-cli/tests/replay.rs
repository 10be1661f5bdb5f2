//! `spanalloc replay`: the numbers are the same in every run, and do not grow.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{assert_line, ended, spanalloc, text};
use serde_json::Value;
use spanalloc_testkit::{Operation, Trace};
use tempfile::TempDir;

/// The recorded programs; `tests/traces/record` records them.
const PROGRAMS: [&str; 3] = ["jq", "python3", "sqlite3"];

/// What may be resident of each program; see [`no_program_has_more_resident_than_its_budget`].
const BUDGET: &str = "tests/traces/budget";

fn traces() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces")
}

fn recorded(program: &str) -> PathBuf {
    traces().join(program).with_extension("trace")
}

fn replay(args: &[&str], trace: &Path) -> Command {
    let mut command = spanalloc();
    command.arg("replay").args(args).arg(trace);
    command
}

/// What a replay prints, which must succeed and say nothing else.
fn shown(command: &mut Command) -> String {
    let output = ended(command, "");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The numbers that are the same in every run.
fn numbers(args: &[&str], trace: &Path) -> Value {
    let shown = shown(&mut replay(&[&["--json"], args].concat(), trace));
    let mut numbers: Value = serde_json::from_str(&shown).unwrap();
    let seconds = numbers.as_object_mut().unwrap().remove("replay_seconds").unwrap();
    assert!(seconds.as_f64().unwrap() > 0.0);
    numbers
}

fn number(numbers: &Value, moment: &str, name: &str) -> u64 {
    numbers[moment][name].as_u64().unwrap()
}

/// Writes a trace of these operations.
fn written(place: &TempDir, operations: &[Operation]) -> PathBuf {
    let path = place.path().join("written.trace");
    fs::write(&path, Trace::new(3, operations).encode()).unwrap();
    path
}

/// Fails where a program has over 2 % more in memory than it had when the budget was written, at its peak
/// or at its end. With `SPANALLOC_WRITE_BUDGET` in the environment the numbers become the budget.
#[test]
fn no_program_has_more_resident_than_its_budget() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(BUDGET);
    let mut found = BTreeMap::new();
    for program in PROGRAMS {
        for policy in ["fast", "checked"] {
            let it = numbers(&["--policy", policy], &recorded(program));
            assert_eq!(it["refused"], 0);
            for moment in ["peak_resident", "end"] {
                let bytes = number(&it, moment, "resident_bytes");
                found.insert(format!("{program} {policy} {moment}"), bytes);
            }
        }
    }
    if std::env::var_os("SPANALLOC_WRITE_BUDGET").is_some() {
        let mut text = String::new();
        for (row, bytes) in &found {
            writeln!(text, "{row} {bytes}").unwrap();
        }
        fs::write(&path, text).unwrap();
        return;
    }
    let budget = fs::read_to_string(&path).unwrap();
    let rows = budget.lines().map(|line| line.rsplit_once(' ').unwrap());
    let budget: BTreeMap<_, u64> = rows.map(|(row, it)| (row, it.parse().unwrap())).collect();
    assert_eq!(budget.len(), found.len(), "{BUDGET} is not of these programs");
    let over: Vec<_> = found
        .iter()
        .filter(|(row, bytes)| **bytes as f64 > budget[row.as_str()] as f64 * 1.02)
        .map(|(row, bytes)| format!("{row}: {bytes} bytes of {}", budget[row.as_str()]))
        .collect();
    assert!(over.is_empty(), "more resident than {BUDGET} allows:\n{}", over.join("\n"));
}

#[test]
fn a_replay_is_the_same_in_every_run() {
    let trace = recorded("python3");
    for args in [&[][..], &["--policy", "checked", "--table", "go67", "--source", "fixed:64M"]] {
        let first = numbers(args, &trace);
        assert_eq!(numbers(args, &trace), first, "{args:?}");
        assert!(first["curve"].as_array().unwrap().len() > 500);
    }
}

#[test]
fn every_composition_keeps_its_promises() {
    for (program, policy, table, source) in [
        ("jq", "fast", "go67", "mmap"),
        ("python3", "fast", "fine72", "fixed:64M"),
        ("python3", "checked", "fine72", "mmap"),
        ("sqlite3", "checked", "go67", "fixed:64M"),
    ] {
        let args = ["--verify", "--policy", policy, "--table", table, "--source", source];
        let shown = shown(&mut replay(&args, &recorded(program)));
        assert!(shown.contains("every object was its own"), "{shown}");
        assert!(!shown.contains("refused"), "{shown}");
    }
}

#[test]
fn objects_that_grow_and_move_leave_nothing_resident_behind() {
    let place = TempDir::new().unwrap();
    let alloc = Operation::Alloc { size: 1 << 20, align: 16 };
    let mut list = vec![alloc, alloc];
    // Neither can grow where it is for long.
    for megabytes in (2..=32).step_by(3) {
        let size = megabytes << 20;
        list.extend([0, 1].map(|index| Operation::Realloc { index, size }));
        list.push(Operation::Release { most: u16::MAX });
    }
    let trace = written(&place, &list);
    for policy in ["fast", "checked"] {
        let it = numbers(&["--verify", "--policy", policy], &trace);
        let metadata = number(&it, "end", "metadata_bytes");
        let resident = number(&it, "end", "resident_bytes") - metadata;
        assert_eq!((number(&it, "end", "live_bytes"), resident), (64 << 20, 64 << 20), "{policy}");
    }
}

#[test]
fn the_numbers_are_those_of_the_operations() {
    let place = TempDir::new().unwrap();
    let large = Operation::Alloc { size: 8 << 20, align: 16 };
    let list = [
        large,
        Operation::Switch { cache: 2 },
        large,
        Operation::Advance { microseconds: 2_000_000 },
        Operation::Free { index: 0 },
        Operation::Release { most: u16::MAX },
        Operation::Advance { microseconds: 500_000 },
        Operation::AllocZeroed { size: 1 << 20, align: 16 },
    ];
    let trace = written(&place, &list);
    let it = numbers(&[], &trace);
    assert_eq!((it["operations"].as_u64(), it["allocations"].as_u64()), (Some(8), Some(3)));
    assert_eq!(number(&it, "peak_live", "live_bytes"), 16 << 20);
    assert_eq!(number(&it, "peak_live", "operation"), 3);
    assert_eq!(number(&it, "end", "microseconds"), 2_500_000);
    assert_eq!(number(&it, "end", "live_bytes"), 9 << 20);
    // What was released is resident no more.
    for (moment, pages) in [("peak_resident", 16 << 20), ("end", 9 << 20)] {
        let metadata = number(&it, moment, "metadata_bytes");
        assert_eq!(number(&it, moment, "resident_bytes"), pages + metadata, "{moment}");
    }
    let shown = shown(&mut replay(&[], &trace));
    for part in ["8 operations, 3 allocations, 3 caches, 2.50 s", "16.0 MB", "ns an operation"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}

#[test]
fn what_a_buffer_has_no_room_for_is_counted_and_the_rest_goes_on() {
    let place = TempDir::new().unwrap();
    let alloc = |size| Operation::Alloc { size, align: 16 };
    let list = [
        alloc(64 << 20),
        alloc(100),
        Operation::Realloc { index: 0, size: 200 },
        Operation::Realloc { index: 1, size: 32 << 20 },
        Operation::Free { index: 1 },
    ];
    let it = numbers(&["--source", "fixed:2M"], &written(&place, &list));
    assert_eq!((it["refused"].as_u64(), number(&it, "end", "live_bytes")), (Some(2), 200));
    let nothing = written(&place, &[]);
    assert_eq!(number(&numbers(&[], &nothing), "end", "operation"), 0);
}

#[test]
fn a_curve_is_drawn() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("curve.svg");
    shown(&mut replay(&["--svg", path.to_str().unwrap()], &recorded("jq")));
    let svg = fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("jq.trace on fast, fine72"), "{svg}");
}

#[test]
fn what_cannot_be_replayed_is_named() {
    let place = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = place.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let good = fs::read(recorded("sqlite3")).unwrap();
    let refused = |path: &Path, parts: &[&str]| {
        let name = path.to_str().unwrap();
        assert_line(&mut replay(&[], path), 2, &[parts, &[name]].concat());
    };
    refused(&place.path().join("missing"), &["cannot read", "No such file"]);
    refused(place.path(), &["cannot read", "not a file"]);
    refused(Path::new("/dev/null"), &["cannot read", "not a file"]);
    refused(&file("text", b"just some text"), &["cannot replay", "not a trace"]);
    refused(&file("empty", b""), &["not a trace"]);
    refused(&file("short", &good[..17]), &["cut off inside of the header"]);
    refused(&file("cut", &good[..good.len() - 1]), &["cut off", "operations are there"]);
    refused(&file("long", &[&good[..], &[0; 3]].concat()), &["3 bytes follow"]);
    let mut future = good.clone();
    future[16] = 9;
    refused(&file("future", &future), &["version 9 of traces is not known"]);

    let trace = recorded("sqlite3");
    let mut command = replay(&["--svg", "/missing/curve.svg"], &trace);
    assert_line(&mut command, 1, &["cannot write /missing/curve.svg: "]);
    for (option, value, part) in [
        ("--policy", "strict", "possible values: fast, checked"),
        ("--table", "go68", "possible values: go67, fine72"),
        ("--source", "fixed:1K", "a buffer has 64K to 64G"),
        ("--source", "heap", "expected mmap"),
    ] {
        let output = ended(&mut replay(&[option, value], &trace), "");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(part), "{part} is not in {message}");
    }
}
