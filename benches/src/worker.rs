//! What the binary of each contender does: it runs one workload once and prints what it measured.
//!
//! `on_X WORKLOAD [--quick]` prints a line of JSON, a [`Sample`]; `on_X WORKLOAD --test` does so
//! after milliseconds. `on_X --about` prints an [`Identity`], `on_X --list` the names of workloads.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::locks::{self, Locks};
use crate::results::{Latency, Sample};
use crate::workloads::{self, Outcome, Scale};

/// What a contender's binary knows of the allocator in it.
#[derive(Clone, Copy, Debug)]
pub struct Linked {
    /// The version that is linked.
    pub version: fn() -> String,
    /// How it is built and run, where that is not plain.
    pub notes: &'static str,
    /// Why its times would not be those of an optimised build, if so.
    pub flaw: fn() -> Option<String>,
    /// The locks it has taken so far, if it counts them.
    pub locks: Option<fn() -> Locks>,
}

impl Linked {
    /// An allocator that has no flaw and counts no locks.
    #[must_use]
    pub fn new(version: fn() -> String) -> Self {
        Self { version, notes: "", flaw: || None, locks: None }
    }
}

/// What `on_X --about` prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The version that is linked.
    pub version: String,
    /// How it is built and run, where that is not plain.
    pub notes: String,
    /// Why its times would not be those of an optimised build, if so.
    pub flaw: Option<String>,
}

/// The program of a contender's binary.
#[must_use]
pub fn main(linked: &Linked) -> ExitCode {
    if let Some(count) = linked.locks {
        locks::count_with(count);
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let printed = match arguments[..] {
        ["--about"] => print(&Identity {
            version: (linked.version)(),
            notes: linked.notes.to_owned(),
            flaw: (linked.flaw)(),
        }),
        ["--list"] => {
            workloads::all().iter().for_each(|workload| println!("{}", workload.name));
            Ok(())
        }
        [name] => run(name, Scale::Full),
        [name, "--quick"] => run(name, Scale::Quick),
        [name, "--test"] => run(name, Scale::Test),
        _ => Err("usage: WORKLOAD [--quick | --test] | --about | --list".into()),
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn print(value: &impl Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

fn run(name: &str, scale: Scale) -> Result<(), Failure> {
    let workload = workloads::named(name).ok_or("no such workload; see --list")?;
    let outcome = workload.run(scale);
    // First of all, as the rest needs memory too.
    let peak_rss_bytes = peak_rss()?;
    print(&sample(&outcome, peak_rss_bytes, &usage()))
}

/// The sample of a run.
fn sample(outcome: &Outcome, peak_rss_bytes: u64, usage: &libc::rusage) -> Sample {
    let each = |seconds: f64| seconds * 1e9 / outcome.operations as f64;
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let latency = outcome.latency.as_ref().map(|histogram| {
        let percentile = |of| histogram.value_at_quantile(of) as f64;
        Latency { p50: percentile(0.5), p99: percentile(0.99), p999: percentile(0.999) }
    });
    let mut figures: BTreeMap<String, f64> =
        outcome.figures.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    if let Some(locks) = locks::timed() {
        let per_million = |count: usize| count as f64 * 1e6 / outcome.operations as f64;
        figures.insert("central locks per million".into(), per_million(locks.central));
        figures.insert("heap locks per million".into(), per_million(locks.heap));
    }
    Sample {
        nanoseconds: each(outcome.elapsed.as_secs_f64()),
        cpu_nanoseconds: each(seconds(usage.ru_utime) + seconds(usage.ru_stime)),
        peak_rss_bytes,
        minor_faults: usage.ru_minflt.try_into().unwrap_or_default(),
        latency,
        figures,
    }
}

/// The most memory this process held at a time: `VmHWM` of the kernel.
fn peak_rss() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

/// Time and page faults of this process.
fn usage() -> libc::rusage {
    // SAFETY: all zeros are a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing.
    let error = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    assert_eq!(error, 0, "{}", io::Error::last_os_error());
    usage
}
