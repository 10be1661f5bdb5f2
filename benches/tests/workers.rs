//! The binaries of the contenders run every workload, and a comparison of them has every cell.
#![allow(missing_docs, reason = "a test program")]

use std::process::Command;
use std::time::Duration;

use spanalloc_bench::contenders::Contender;
use spanalloc_bench::results::{ContenderInfo, Sample};
use spanalloc_bench::rounds::{Ready, Rounds, run_with_limit};
use spanalloc_bench::worker::Identity;
use spanalloc_bench::workloads;

const LIMIT: Duration = Duration::from_secs(60);
const BINARIES: [(&str, &str); 4] = [
    ("spanalloc", env!("CARGO_BIN_EXE_on_spanalloc")),
    ("spanalloc checked", env!("CARGO_BIN_EXE_on_spanalloc_checked")),
    ("spanalloc hardened", env!("CARGO_BIN_EXE_on_spanalloc_hardened")),
    ("system", env!("CARGO_BIN_EXE_on_system")),
];

fn output(binary: &str, arguments: &[&str]) -> Result<String, String> {
    run_with_limit(Command::new(binary).args(arguments), LIMIT)
}

#[test]
fn every_workload_runs_in_every_binary() {
    for (name, binary) in BINARIES {
        for workload in workloads::all() {
            let line = output(binary, &[&workload.name, "--test"])
                .unwrap_or_else(|error| panic!("{} on {name}: {error}", workload.name));
            let sample: Sample = serde_json::from_str(&line).unwrap();
            assert!(sample.nanoseconds > 0.0 && sample.nanoseconds.is_finite(), "{line}");
            assert!(sample.cpu_nanoseconds > 0.0, "{line}");
            assert!(sample.peak_rss_bytes > 256 << 10 && sample.minor_faults > 10, "{line}");
            let counts_locks = sample.figures.contains_key("heap locks per million");
            assert_eq!(counts_locks, name.starts_with("spanalloc"), "{line}");
        }
    }
}

#[test]
fn binaries_say_what_they_are() {
    for (name, binary) in BINARIES {
        let identity: Identity =
            serde_json::from_str(&output(binary, &["--about"]).unwrap()).unwrap();
        assert!(identity.version.contains('.') && identity.flaw.is_none(), "{name}: {identity:?}");
        let list = output(binary, &["--list"]).unwrap();
        assert_eq!(list.lines().count(), workloads::all().len());
    }
    let error = output(BINARIES[0].1, &["no-such-workload"]).unwrap_err();
    assert!(error.contains("no such workload"), "{error}");
}

#[test]
fn rounds_fill_the_cells_and_tell_what_failed() {
    let ready = |name: &str, program: &str| Ready {
        contender: Contender::named(name).unwrap(),
        program: program.into(),
        info: ContenderInfo { name: name.into(), version: String::new(), notes: String::new() },
    };
    let mut contenders: Vec<Ready> =
        BINARIES.iter().map(|&(name, binary)| ready(name, binary)).collect();
    // Prints no sample.
    contenders.push(ready("jemalloc", "/bin/true"));
    let workloads = [workloads::named("pair-16384").unwrap()];
    let rounds = Rounds { count: 2, quick: true, limit: LIMIT };
    let (rows, failed) = rounds.run(&workloads, &contenders);
    let samples: Vec<usize> = rows[0].cells.iter().map(|cell| cell.samples.len()).collect();
    let (without, with) = samples.split_last().unwrap();
    assert!(*without == 0 && with.len() == BINARIES.len() && with.iter().all(|count| *count == 2));
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].name, "pair-16384 on jemalloc");
}
