//! The command, run as a user runs it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Output, Stdio};

use common::{spanalloc, text};
use serde_json::Value;
use tempfile::TempDir;

/// Three files of text in a directory.
fn some_text() -> (TempDir, Vec<String>) {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("inner")).unwrap();
    let mut files = Vec::new();
    for (name, words) in [("a.txt", 700), ("b.rs", 1300), ("inner/c", 40)] {
        let mut content = String::new();
        for i in 0..words {
            content +=
                &format!("word_{} The{}", i * i % 97, if i % 7 == 0 { "\n" } else { " -- " });
        }
        fs::write(dir.path().join(name), &content).unwrap();
        files.push(content);
    }
    (dir, files)
}

fn naive_words(files: &[String]) -> Vec<String> {
    let apart = |c: char| !c.is_alphanumeric() && c != '_';
    let words = files.iter().flat_map(|text| text.split(apart));
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Runs the hidden subcommand that reports one run as JSON.
fn job(dir: &Path, allocator: &str) -> Value {
    let output = spanalloc()
        .env("SPANALLOC_DEMO_ALLOCATOR", allocator)
        .args(["job", "--threads", "3"])
        .arg(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks that the command ended with code 2 and one line on stderr that holds all of `parts`.
fn assert_refused(output: &Output, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "{message}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn the_demo_counts_right_and_compares() {
    let (dir, files) = some_text();
    let words = naive_words(&files);
    let different: HashSet<_> = words.iter().collect();
    let the = words.iter().filter(|word| *word == "the").count();
    let lines: usize = files.iter().map(|file| file.lines().count()).sum();

    let output = spanalloc().args(["demo", "--repeat", "2"]).arg(dir.path()).output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    let number =
        |n: usize| if n < 1000 { n.to_string() } else { format!("{},{:03}", n / 1000, n % 1000) };
    let summary = format!(
        "{} lines, {} words, {} of them different",
        number(lines),
        number(words.len()),
        number(different.len())
    );
    assert!(shown.contains("indexed 3 files") && shown.contains(&summary), "{shown}");
    assert!(shown.contains(&format!("most frequent: the {}", number(the))), "{shown}");
    assert!(shown.matches("[confirmed]").count() >= 4 && !shown.contains("WRONG"), "{shown}");
    assert!(shown.contains("heap, before the drop") && shown.contains("heap, after the drop"));
    assert!(shown.contains("medians of 2 runs each"), "{shown}");
    for figure in ["time, index", "time, drop", "time, all of it", "memory, peak"] {
        assert!(shown.contains(figure), "{shown}");
    }
}

#[test]
fn without_a_command_it_says_how_to_use_it() {
    let output = spanalloc().output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty());
    for part in ["Usage: spanalloc", "spanalloc run -- python3", "spanalloc demo", "cargo run"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    // Styles are for terminals.
    assert!(!shown.contains('\x1b') && !shown.contains("job"), "{shown}");
}

#[test]
fn one_run_shows_the_whole_heap() {
    let (dir, _) = some_text();
    let args = ["demo", "--no-compare", "--all-classes"];
    let output = spanalloc().args(args).arg(dir.path()).output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("indexed 3 files") && shown.contains("heap, after the drop"));
    assert!(!shown.contains("beside the system's malloc") && !shown.contains("all others"));
}

#[test]
fn the_drop_empties_the_heap() {
    let (dir, files) = some_text();
    let outcome = job(dir.path(), "spanalloc");
    assert_eq!(outcome["words"], naive_words(&files).len());
    let heap = &outcome["heap"];
    let objects = |when: &str| heap[when]["figures"]["objects"].as_u64().unwrap();
    let start = heap["objects_at_start"].as_u64().unwrap();
    // Every line is an object, and every word at least two.
    let least = outcome["lines"].as_u64().unwrap() + 2 * outcome["distinct"].as_u64().unwrap();
    assert!(objects("before_drop") >= least, "{heap}");
    assert!(objects("after_drop") < start + 100, "{heap}");
    for when in ["before_drop", "after_drop"] {
        assert_eq!(heap[when]["adds_up"], true, "{when}");
        // All other threads have ended.
        assert_eq!(heap[when]["figures"]["threads"], 1, "{when}");
    }
}

#[test]
fn the_allocator_is_chosen_once_per_process() {
    let (dir, _) = some_text();
    let ours = job(dir.path(), "spanalloc");
    let theirs = job(dir.path(), "system");
    assert_eq!((&ours["allocator"], &theirs["allocator"]), (&"Spanalloc".into(), &"System".into()));
    // Nothing at all of the other process is spanalloc's.
    assert_eq!(theirs["heap"]["before_drop"]["figures"]["objects"], 0);
    assert_eq!(theirs["heap"]["before_drop"]["figures"]["reserved"], 0);
    for same in ["words", "distinct", "lines", "bytes", "questions", "digest", "text_digest"] {
        assert_eq!(ours[same], theirs[same], "{same}");
    }
}

#[test]
fn a_path_that_does_not_exist_is_named() {
    let (dir, _) = some_text();
    let missing = dir.path().join("no such file");
    let output = spanalloc().arg("demo").arg(dir.path()).arg(&missing).output().unwrap();
    assert_refused(&output, &["cannot read", missing.to_str().unwrap()]);
    let output = spanalloc().arg("job").arg(&missing).output().unwrap();
    assert_refused(&output, &["cannot read", missing.to_str().unwrap()]);
}

#[test]
fn where_there_is_no_text_nothing_is_indexed() {
    let dir = TempDir::new().unwrap();
    let name = dir.path().to_str().unwrap();
    assert_refused(
        &spanalloc().args(["demo", name]).output().unwrap(),
        &["no text found in", name],
    );
    fs::write(dir.path().join("binary"), b"\x7fELF\0\0").unwrap();
    for option in ["--no-compare", "--threads=2"] {
        let output = spanalloc().args(["demo", option, name]).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("no text found in") && message.lines().count() == 1, "{message}");
    }
}

#[test]
fn a_file_without_words_is_indexed() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(dir.path().join("dots"), "...\n\n...").unwrap();
    let output = spanalloc().args(["demo", "--repeat", "1"]).arg(dir.path()).output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("indexed 2 files, 8 B of text, 3 lines, 0 words"), "{shown}");
}

#[test]
fn what_is_not_text_is_reported() {
    let (dir, _) = some_text();
    fs::write(dir.path().join("binary"), b"GIF89a\0\0").unwrap();
    fs::write(dir.path().join("latin1"), b"caf\xe9 au lait").unwrap();
    let output = spanalloc().args(["demo", "--no-compare"]).arg(dir.path()).output().unwrap();
    let shown = text(&output.stdout);
    assert!(shown.contains("indexed 4 files"), "{shown}");
    assert!(shown.contains("1 binary, skipped"), "{shown}");
    assert!(shown.contains("1 not all UTF-8"), "{shown}");
}

#[test]
fn a_limit_of_bytes_is_kept() {
    let (dir, files) = some_text();
    let limit = files[0].len() + files[2].len();
    let limit = limit.to_string();
    let args = ["demo", "--no-compare", "--max-bytes", &limit];
    let output = spanalloc().args(args).arg(dir.path()).output().unwrap();
    let shown = text(&output.stdout);
    assert!(shown.contains("indexed 2 files") && shown.contains("1 over the limit"), "{shown}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let (dir, _) = some_text();
    let mut command = spanalloc();
    command.args(["demo", "--repeat", "1"]).arg(dir.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn help_is_for_everyone_and_wrong_options_are_refused() {
    for (args, parts) in [
        (&["--help"][..], &["run ", "demo "][..]),
        (&["demo", "--help"], &["--threads", "--repeat"]),
        (&["run", "--help"], &["--stats", "--report <FILE>", "LD_PRELOAD", "127"]),
    ] {
        let help = spanalloc().args(args).output().unwrap();
        let shown = text(&help.stdout);
        assert!(help.status.success() && !shown.contains("job"), "{shown}");
        assert!(parts.iter().all(|part| shown.contains(part)), "{shown}");
    }
    for wrong in [
        &["demo", "--threads", "0"][..],
        &["demo", "--repeat", "many"],
        &["demo", "--max-bytes", "1X"],
        &["run", "--stat", "true"],
        &["run"],
        &["--threads", "2"],
    ] {
        assert_eq!(spanalloc().args(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn unreadable_files_are_reported_or_refused() {
    let (dir, _) = some_text();
    let dangling = dir.path().join("inner/dangling");
    symlink("nowhere", &dangling).unwrap();
    symlink("..", dir.path().join("inner/loop")).unwrap();
    let name = dangling.to_str().unwrap();

    let output = spanalloc().args(["demo", "--no-compare"]).arg(dir.path()).output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("indexed 3 files"), "{shown}");
    assert!(shown.contains("1 not readable, skipped") && shown.contains(name), "{shown}");

    assert_refused(&spanalloc().args(["demo", name]).output().unwrap(), &["cannot read", name]);
    assert_refused(
        &spanalloc().args(["demo", "/dev/null"]).output().unwrap(),
        &["/dev/null", "neither"],
    );
}
