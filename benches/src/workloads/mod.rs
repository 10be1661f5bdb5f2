//! The workloads: what a program asks of its allocator, in many shapes.
//!
//! A workload runs on the global allocator of the program it is part of. It does the same
//! operations in every run: random numbers have fixed seeds. Its own data is small compared with
//! what it allocates, so that the memory of the process is the allocator's.

mod batches;
mod large;
mod measure;
mod object;
mod pairs;
mod programs;
mod replacement;
mod threads;
mod tiny;

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// How much of a workload is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Milliseconds, for tests of the workload itself.
    Test,
    /// About a twentieth of a second.
    Quick,
    /// About half a second.
    Full,
}

impl Scale {
    /// The part of `operations` that is run at this scale.
    fn of(self, operations: u64) -> u64 {
        match self {
            Self::Test => (operations / 4096).max(64),
            Self::Quick => operations / 16,
            Self::Full => operations,
        }
    }
}

/// What kind of workload a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// One object is allocated and freed, again and again.
    Pairs,
    /// Many objects are allocated, then all are freed.
    Batches,
    /// Random ones of many live objects are replaced.
    Replacement,
    /// Objects go from thread to thread, and threads come and go.
    Threads,
    /// Objects of many pages.
    Large,
    /// Memory an object takes: tiny ones, and what fits where others were freed.
    Tiny,
    /// What programs do, allocating on the way.
    Programs,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What one run of a workload found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How many operations were timed.
    pub operations: u64,
    /// The time they took: computed by the thread, or on the wall if there are several threads.
    pub elapsed: Duration,
    /// Nanoseconds of some single operations.
    pub latency: Option<Histogram<u64>>,
    /// What else was measured, by name.
    pub figures: Vec<(&'static str, f64)>,
}

impl Outcome {
    fn new(operations: u64, elapsed: Duration) -> Self {
        Self { operations, elapsed, latency: None, figures: Vec::new() }
    }

    fn with_latency(self, latency: Histogram<u64>) -> Self {
        Self { latency: Some(latency), ..self }
    }
}

/// A row of the comparison.
pub struct Workload {
    /// Its name: unique, and without spaces. That of several threads ends in their number.
    pub name: String,
    /// What kind it is.
    pub group: Group,
    /// How many threads allocate at the same time.
    pub threads: usize,
    run: Box<dyn Fn(Scale) -> Outcome + Send + Sync>,
}

impl Workload {
    fn new(
        name: impl Into<String>,
        group: Group,
        threads: usize,
        run: impl Fn(Scale) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let mut name = name.into();
        if threads > 1 {
            name += &format!("-t{threads}");
        }
        Self { name, group, threads, run: Box::new(run) }
    }

    /// Runs it once.
    #[must_use]
    pub fn run(&self, scale: Scale) -> Outcome {
        (self.run)(scale)
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, threads: {})", self.name, self.group, self.threads)
    }
}

/// All workloads, in the order of the table.
#[must_use]
pub fn all() -> Vec<Workload> {
    let mut all = pairs::all();
    all.extend(batches::all());
    all.extend(replacement::all());
    all.extend(threads::all());
    all.extend(large::all());
    all.extend(tiny::all());
    all.extend(programs::all());
    all
}

/// The workload of this name.
#[must_use]
pub fn named(name: &str) -> Option<Workload> {
    all().into_iter().find(|workload| workload.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Group, all, named};

    #[test]
    fn names_are_unique_and_lead_to_workloads() {
        let all = all();
        let names: HashSet<&str> = all.iter().map(|workload| workload.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|name| !name.contains(char::is_whitespace)));
        let found = named("larson-t8").expect("a row of the table");
        assert_eq!((found.group, found.threads), (Group::Threads, 8));
        assert!(named("larson-t3").is_none());
    }
}
