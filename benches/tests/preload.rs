//! The comparison of C libraries, with the system's alone: it needs nothing to be built.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;

use spanalloc_bench::results::Results;

/// Programs that any system has.
const EVERYWHERE: [&str; 1] = ["cat-start"];

#[test]
fn programs_run_and_those_that_are_absent_are_told_of() {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spanalloc-bench"))
        .args(["compare", "--preload", "--quick", "--rounds", "1", "--limit", "120"])
        .args(["--only", "Programs,Start", "--allocators", "system", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let results = fs::read_to_string(out.path().join("preload-compare.json")).unwrap();
    let results: Results = serde_json::from_str(&results).unwrap();
    assert_eq!(results.contenders.len(), 1);
    for row in &results.rows {
        let [sample] = &row.cells[0].samples[..] else { panic!("{}: {said}", row.workload) };
        assert!(sample.nanoseconds > 100_000.0 && sample.peak_rss_bytes > 500_000, "{sample:?}");
    }
    assert!(EVERYWHERE.iter().all(|name| results.rows.iter().any(|row| row.workload == *name)));
    let required = std::env::var_os("SPANALLOC_REQUIRE_PROGRAMS").is_some();
    assert!(!required || results.skipped.is_empty(), "{said}");
    for skipped in &results.skipped {
        assert!(skipped.reason.contains("not on this system"), "{said}");
        assert!(said.contains(&format!("SKIPPED: {}", skipped.name)), "{said}");
    }
    assert_eq!(results.rows.len() + results.skipped.len(), 9);
}
