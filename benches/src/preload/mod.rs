//! The comparison of C libraries: programs of the system, and workloads of this package, under
//! `LD_PRELOAD`.

mod libraries;
mod process;
mod programs;
mod redis;
mod setup;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;

use self::libraries::Library;
use self::programs::Program;
use self::setup::Setup;
use crate::build;
use crate::compare::{Options, keep};
use crate::contenders::{Contender, SYSTEM};
use crate::machine;
use crate::results::{Cell, Results, Row, Sample, Skipped};
use crate::rounds::interleave;
use crate::workloads::{self, Group, Workload};

/// The group of the rows of workloads of this package.
const C_INTERFACE: &str = "C interface";

/// What a row runs.
enum Job {
    /// A program of the system.
    Program(Program),
    /// A workload.
    Workload(Workload),
}

/// Runs the comparison under `LD_PRELOAD` and writes its results.
///
/// # Errors
/// Nothing could be compared, or the results could not be written.
pub fn compare(options: &Options) -> Result<(), Box<dyn Error>> {
    if cfg!(debug_assertions) {
        eprintln!("WARNING: this is no release build, and its times mean nothing");
    }
    let (libraries, mut skipped) = ready(&chosen(&options.allocators)?);
    if libraries.is_empty() {
        return Err("no library is left to compare".into());
    }
    let place = tempfile::Builder::new().prefix("spanalloc-bench-").tempdir()?;
    let plain = libraries::library(SYSTEM)?;
    let setup = Setup { place: place.path(), quick: options.quick, plain: &plain };
    let (programs, absent) = setup.programs(|name, group| options.asks_for(name, group));
    skipped.extend(absent);
    let mut jobs: Vec<Job> = programs.into_iter().map(Job::Program).collect();
    jobs.extend(selected(options).into_iter().map(Job::Workload));
    if jobs.is_empty() {
        return Err("no program and no workload is left to run".into());
    }
    let runner = Runner {
        place: place.path(),
        worker: if jobs.iter().any(Job::is_workload) { worker()? } else { PathBuf::new() },
        quick: options.quick,
        limit: options.limit(),
    };
    let names: Vec<&str> = libraries.iter().map(|library| &*library.info.name).collect();
    let mut rows: Vec<Row> = jobs.iter().map(|job| job.row(names.len())).collect();
    let mut served = BTreeSet::new();
    let failed = interleave(options.count(), &mut rows, &names, |place, column| {
        let (job, library) = (&jobs[place], &libraries[column]);
        let mut run = || {
            // All workloads are one program.
            let program = (!job.is_workload()).then_some(place);
            if !served.contains(&(program, column)) {
                runner.is_served(job, library)?;
                served.insert((program, column));
            }
            runner.sample(job, library)
        };
        Some(run())
    });
    skipped.extend(failed);
    let contenders = libraries.into_iter().map(|library| library.info).collect();
    let about = machine::about(options.count(), options.quick);
    keep(&Results { about, contenders, skipped, rows }, options, "preload-")
}

/// Where and how jobs run.
struct Runner<'a> {
    place: &'a Path,
    worker: PathBuf,
    quick: bool,
    limit: Duration,
}

impl Runner<'_> {
    /// Makes sure that a job gets its memory from the library.
    fn is_served(&self, job: &Job, library: &Library) -> Result<(), String> {
        match job {
            Job::Program(program) => program.is_served(self.place, library),
            Job::Workload(_) => {
                let mut about = process::command(&self.worker, self.place, library);
                process::is_served(about.arg("--about"), "on_system", library, self.limit)
            }
        }
    }

    fn sample(&self, job: &Job, library: &Library) -> Result<Sample, String> {
        match job {
            Job::Program(program) => program.sample(self.place, library, self.limit),
            Job::Workload(workload) => {
                let mut command = process::command(&self.worker, self.place, library);
                command.arg(&workload.name).args(self.quick.then_some("--quick"));
                let (line, _) = process::run(&mut command, self.limit)?;
                serde_json::from_slice(&line)
                    .map_err(|error| format!("it printed no sample: {error}"))
            }
        }
    }
}

impl Job {
    fn is_workload(&self) -> bool {
        matches!(self, Self::Workload(_))
    }

    /// Its row, without samples.
    fn row(&self, contenders: usize) -> Row {
        let (workload, group, threads) = match self {
            Self::Program(it) => (it.name.to_owned(), it.group, 1),
            Self::Workload(it) => (it.name.clone(), C_INTERFACE, it.threads),
        };
        Row { workload, group: group.to_owned(), threads, cells: vec![Cell::default(); contenders] }
    }
}

/// The binary that runs the workloads: it allocates by the functions of C.
fn worker() -> Result<PathBuf, String> {
    build::build(&Contender::named(SYSTEM).ok_or("there is no worker")?)
}

/// Some workloads of one thread, and their like with more; those of the group of threads go with them.
const WORKLOADS: [&str; 7] = [
    "batch-1000-64-fifo",
    "batch-1000-mixed-random",
    "batch-100000-mixed-random",
    "replace-1000-to-16k",
    "replace-100000-to-256",
    "replace-100000-to-256-t2",
    "replace-100000-to-256-t8",
];

/// The workloads that stand for what is usually run to compare implementations of `malloc`.
fn selected(options: &Options) -> Vec<Workload> {
    let taken = |it: &Workload| it.group == Group::Threads || WORKLOADS.contains(&&*it.name);
    let asked = |it: &Workload| taken(it) && options.asks_for(&it.name, C_INTERFACE);
    workloads::all().into_iter().filter(asked).collect()
}

/// The names of the libraries that were asked for, in the order of the tables.
fn chosen(asked: &[String]) -> Result<Vec<&'static str>, String> {
    let known = libraries::names();
    let mut names = Vec::new();
    for name in asked {
        let full = Contender::named(name).map_or(name.as_str(), |contender| contender.name);
        if !known.contains(&full) {
            return Err(format!("no library is called {name}; there are {}", known.join(", ")));
        }
        names.push(full);
    }
    Ok(known.into_iter().filter(|name| names.is_empty() || names.contains(name)).collect())
}

/// Builds the libraries. Says at once which cannot take part.
fn ready(names: &[&str]) -> (Vec<Library>, Vec<Skipped>) {
    let (mut libraries, mut skipped) = (Vec::new(), Vec::new());
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(200));
    for (number, &name) in names.iter().enumerate() {
        spinner.set_message(format!("building {name} ({} of {})", number + 1, names.len()));
        match libraries::library(name) {
            Ok(library) => libraries.push(library),
            Err(reason) => {
                spinner.suspend(|| eprintln!("SKIPPED: {name}: {reason}"));
                skipped.push(Skipped { name: name.to_owned(), reason });
            }
        }
    }
    spinner.finish_and_clear();
    (libraries, skipped)
}

#[cfg(test)]
mod tests {
    use super::{WORKLOADS, chosen};
    use crate::workloads;

    #[test]
    fn workloads_are_there() {
        assert!(WORKLOADS.iter().all(|name| workloads::named(name).is_some()));
    }

    #[test]
    fn libraries_are_chosen_by_both_names() {
        assert_eq!(chosen(&[]).unwrap().len(), super::libraries::names().len());
        let two = chosen(&["mimalloc2".into(), "spanalloc checked".into()]).unwrap();
        assert_eq!(two, ["spanalloc checked", "mimalloc v2"]);
        assert!(chosen(&["spanalloc".into()]).unwrap_err().contains("there are"));
    }
}
