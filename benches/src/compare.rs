//! The command `compare`: builds the contenders, runs the rounds, writes the results.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;

use crate::contenders::{ALL, Contender, HARDENED};
use crate::results::{ContenderInfo, Results, Skipped};
use crate::rounds::{Ready, Rounds, command, run_with_limit};
use crate::worker::Identity;
use crate::workloads::{self, Workload};
use crate::{build, chart, machine, markdown};

/// Rounds, unless the command line says otherwise.
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
/// How long a binary may take to tell what it is.
const ABOUT_LIMIT: Duration = Duration::from_secs(20);

/// Where results are kept, unless the command line says otherwise.
pub const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");

/// The end of the name of the file that keeps a comparison.
const COMPARISON: &str = "compare.json";

/// What is compared, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether the workloads are the short ones.
    pub quick: bool,
    /// How often each workload runs.
    pub rounds: Option<usize>,
    /// Only the workloads whose name contains one of these, or whose group is one of these.
    pub only: Vec<String>,
    /// Only these allocators.
    pub allocators: Vec<String>,
    /// How many seconds a process may take.
    pub limit: Option<u64>,
    /// The directory for the results.
    pub out: PathBuf,
    /// Whether it is an error that something was not measured.
    pub strict: bool,
}

impl Options {
    /// How often each workload runs.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { QUICK_ROUNDS } else { ROUNDS })
    }

    /// How long a process may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit.unwrap_or(if self.quick { 60 } else { 240 }))
    }

    /// Whether a row of this name and group is asked for.
    #[must_use]
    pub fn asks_for(&self, name: &str, group: &str) -> bool {
        let is = |part: &String| name.contains(part.as_str()) || group.eq_ignore_ascii_case(part);
        self.only.is_empty() || self.only.iter().any(is)
    }
}

/// Runs a comparison and writes its results.
///
/// # Errors
/// Nothing could be compared, or the results could not be written.
pub fn compare(options: &Options) -> Result<(), Box<dyn Error>> {
    if cfg!(debug_assertions) {
        eprintln!("WARNING: this is no release build, and its times mean nothing");
    }
    let workloads = selected(options)?;
    let (contenders, mut skipped) = ready(&chosen(&options.allocators)?);
    if contenders.is_empty() {
        return Err("no allocator is left to compare".into());
    }
    let rounds = Rounds { count: options.count(), quick: options.quick, limit: options.limit() };
    let (rows, failed) = rounds.run(&workloads, &contenders);
    skipped.extend(failed);
    let contenders = contenders.into_iter().map(|ready| ready.info).collect();
    let about = machine::about(rounds.count, options.quick);
    let results = Results { about, contenders, skipped, rows };
    keep(&results, options, "")
}

/// Writes what was measured with its table and charts, under names that begin with `prefix`; prints
/// the table, and what was not measured.
///
/// # Errors
/// The files cannot be written; or, if the options are strict, something was not measured.
pub fn keep(results: &Results, options: &Options, prefix: &str) -> Result<(), Box<dyn Error>> {
    let out = &options.out;
    fs::create_dir_all(out)?;
    let json = serde_json::to_string_pretty(results)? + "\n";
    fs::write(out.join(format!("{prefix}{COMPARISON}")), json)?;
    println!("{}", render(results, out, prefix)?);
    for Skipped { name, reason } in &results.skipped {
        eprintln!("SKIPPED: {name}: {reason}");
    }
    match results.skipped.len() {
        skipped @ 1.. if options.strict => Err(format!("{skipped} not measured").into()),
        _ => Ok(()),
    }
}

/// Writes the table and the charts of earlier results once more, into the directory they are in
/// unless another is given. Returns the table.
///
/// # Errors
/// The results cannot be read, or the rest cannot be written.
pub fn report(file: &Path, out: Option<&Path>) -> Result<String, Box<dyn Error>> {
    let results: Results = serde_json::from_str(&fs::read_to_string(file)?)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let prefix = name.strip_suffix(COMPARISON).unwrap_or_default();
    render(&results, out.or(file.parent()).unwrap_or(Path::new(".")), prefix)
}

/// Writes the table and the charts, and returns the table.
fn render(results: &Results, out: &Path, prefix: &str) -> Result<String, Box<dyn Error>> {
    let table = markdown::render(results);
    fs::create_dir_all(out)?;
    let file = |name: &str| out.join(format!("{prefix}{name}"));
    fs::write(file("compare.md"), &table)?;
    fs::write(file("time.svg"), chart::time(results)?)?;
    fs::write(file("memory.svg"), chart::memory(results)?)?;
    Ok(table)
}

/// The workloads that were asked for.
fn selected(options: &Options) -> Result<Vec<Workload>, String> {
    let asked = |it: &Workload| options.asks_for(&it.name, &it.group.to_string());
    let workloads: Vec<Workload> = workloads::all().into_iter().filter(asked).collect();
    if workloads.is_empty() {
        return Err(format!("no workload is called {}", options.only.join(" or ")));
    }
    Ok(workloads)
}

/// The contenders that were asked for, in the order of the tables.
fn chosen(names: &[String]) -> Result<Vec<Contender>, String> {
    let mut asked = Vec::new();
    for name in names {
        let known = || ALL.map(|contender| contender.name).join(", ");
        let contender = Contender::named(name)
            .ok_or_else(|| format!("no allocator is called {name}; there are {}", known()))?;
        asked.push(contender.name);
    }
    let by_default = |it: &Contender| asked.is_empty() && it.name != HARDENED;
    let is_asked = |it: &Contender| by_default(it) || asked.contains(&it.name);
    Ok(ALL.into_iter().filter(is_asked).collect())
}

/// Builds the contenders and asks them what they are. Says at once who cannot take part.
fn ready(contenders: &[Contender]) -> (Vec<Ready>, Vec<Skipped>) {
    let (mut ready, mut skipped) = (Vec::new(), Vec::new());
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(200));
    for (number, contender) in contenders.iter().enumerate() {
        let name = contender.name;
        spinner.set_message(format!("building {name} ({} of {})", number + 1, contenders.len()));
        match prepare(contender) {
            Ok(it) => ready.push(it),
            Err(reason) => {
                spinner.suspend(|| eprintln!("SKIPPED: {name}: {reason}"));
                skipped.push(Skipped { name: name.to_owned(), reason });
            }
        }
    }
    spinner.finish_and_clear();
    (ready, skipped)
}

fn prepare(contender: &Contender) -> Result<Ready, String> {
    let program = build::build(contender)?;
    let said = run_with_limit(command(contender, &program).arg("--about"), ABOUT_LIMIT)?;
    let identity: Identity = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    if let Some(flaw) = identity.flaw {
        return Err(flaw);
    }
    let info = ContenderInfo {
        name: contender.name.to_owned(),
        version: identity.version,
        notes: identity.notes,
    };
    Ok(Ready { contender: *contender, program, info })
}

#[cfg(test)]
mod tests {
    use super::{Options, chosen, selected};
    use crate::contenders::ALL;
    use crate::workloads::{self, Group};

    fn strings(of: &[&str]) -> Vec<String> {
        of.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn contenders_are_chosen_by_both_names() {
        assert_eq!(chosen(&[]).unwrap().len(), ALL.len() - 1);
        assert_eq!(chosen(&strings(&["spanalloc hardened"])).unwrap().len(), 1);
        let two = chosen(&strings(&["mimalloc v3", "spanalloc_checked"])).unwrap();
        let names: Vec<&str> = two.iter().map(|contender| contender.name).collect();
        assert_eq!(names, ["spanalloc checked", "mimalloc v3"]);
        assert!(chosen(&strings(&["system", "malloc"])).unwrap_err().contains("called malloc;"));
    }

    #[test]
    fn workloads_are_selected_by_parts_and_groups() {
        let selected =
            |parts: &[&str]| selected(&Options { only: strings(parts), ..Options::default() });
        assert_eq!(selected(&[]).unwrap().len(), workloads::all().len());
        let pairs = selected(&["pairs"]).unwrap();
        assert!(!pairs.is_empty() && pairs.iter().all(|it| it.group == Group::Pairs));
        let some = selected(&["pair-64", "batch"]).unwrap();
        assert!(some.iter().all(|it| it.name.contains("pair-64") || it.name.contains("batch")));
        assert!(selected(&["no such thing"]).is_err());
    }
}
