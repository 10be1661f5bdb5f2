//! Runs the workloads: round by round, workload by workload, contender by contender.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use wait_timeout::ChildExt;

use crate::contenders::Contender;
use crate::results::{Cell, ContenderInfo, Row, Sample, Skipped};
use crate::workloads::Workload;

/// What takes longer than this is run in the first round only.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many lines at the end of what a process said tell why it failed.
const REASON_LINES: usize = 5;

/// A contender that takes part.
#[derive(Debug)]
pub struct Ready {
    /// The contender.
    pub contender: Contender,
    /// Its binary.
    pub program: PathBuf,
    /// What the results say of it.
    pub info: ContenderInfo,
}

impl Ready {
    fn takes(&self, workload: &Workload) -> bool {
        self.contender.only.is_none_or(|group| group == workload.group)
    }

    /// The command that runs its binary.
    #[must_use]
    pub fn command(&self) -> Command {
        command(&self.contender, &self.program)
    }
}

/// The command that runs a contender's binary.
#[must_use]
pub fn command(contender: &Contender, program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command.envs(contender.environment.iter().copied());
    command
}

/// How the workloads run.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// How often each runs on each contender.
    pub count: usize,
    /// Whether they are the short ones.
    pub quick: bool,
    /// How long a process may take.
    pub limit: Duration,
}

impl Rounds {
    /// Runs all workloads on all contenders.
    #[must_use]
    pub fn run(&self, workloads: &[Workload], contenders: &[Ready]) -> (Vec<Row>, Vec<Skipped>) {
        let names: Vec<&str> = contenders.iter().map(|ready| &*ready.info.name).collect();
        let mut rows: Vec<Row> = workloads.iter().map(|it| row(it, names.len())).collect();
        let failed = interleave(self.count, &mut rows, &names, |place, column| {
            let (workload, ready) = (&workloads[place], &contenders[column]);
            ready.takes(workload).then(|| self.sample(&workload.name, ready))
        });
        (rows, failed)
    }

    /// Runs a workload on a contender once.
    fn sample(&self, workload: &str, ready: &Ready) -> Result<Sample, String> {
        let mut command = ready.command();
        command.arg(workload);
        if self.quick {
            command.arg("--quick");
        }
        let line = run_with_limit(&mut command, self.limit)?;
        serde_json::from_str(&line).map_err(|error| format!("it printed no sample: {error}"))
    }
}

/// Fills the rows: round by round, row by row, contender by contender, in an order that rotates.
/// `sample` says what a row (the first number) takes on a contender (the second), or nothing where
/// the contender does not take part. What fails leaves an empty cell and is told of; neither that
/// nor what is very slow runs there again.
pub fn interleave(
    count: usize,
    rows: &mut [Row],
    contenders: &[&str],
    mut sample: impl FnMut(usize, usize) -> Option<Result<Sample, String>>,
) -> Vec<Skipped> {
    let mut done: Vec<(usize, usize)> = Vec::new();
    let mut skipped = Vec::new();
    let bar = bar(count * rows.len() * contenders.len());
    for round in 0..count {
        for (place, row) in rows.iter_mut().enumerate() {
            for turn in 0..contenders.len() {
                let column = (turn + round + place) % contenders.len();
                let name = format!("{} on {}", row.workload, contenders[column]);
                bar.inc(1);
                if done.contains(&(place, column)) {
                    continue;
                }
                bar.set_message(name.clone());
                let start = Instant::now();
                match sample(place, column) {
                    None => {}
                    Some(Ok(sample)) => row.cells[column].samples.push(sample),
                    Some(Err(reason)) => {
                        bar.suspend(|| eprintln!("FAILED: {name}: {reason}"));
                        skipped.push(Skipped { name, reason });
                        done.push((place, column));
                        row.cells[column].samples.clear();
                    }
                }
                if start.elapsed() > PATIENCE {
                    done.push((place, column));
                }
            }
        }
    }
    bar.finish_and_clear();
    skipped
}

/// Runs a command that prints no more than a pipe holds, and returns what it printed.
///
/// # Errors
/// Why it did not start, failed, or was ended after the limit.
pub fn run_with_limit(command: &mut Command, limit: Duration) -> Result<String, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("it does not start: {error}"))?;
    let ended = child.wait_timeout(limit).map_err(|error| error.to_string())?;
    if ended.is_none() {
        // An error means that it has just ended by itself.
        let _ended = child.kill();
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if ended.is_none() {
        Err(format!("it was ended after {} s", limit.as_secs()))
    } else if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = last_lines(&String::from_utf8_lossy(&output.stderr), REASON_LINES);
        Err(format!("{}: {said}", output.status))
    }
}

/// The last lines of a text that are not empty.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn row(workload: &Workload, contenders: usize) -> Row {
    Row {
        workload: workload.name.clone(),
        group: workload.group.to_string(),
        threads: workload.threads,
        cells: vec![Cell::default(); contenders],
    }
}

fn bar(length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed} [{bar:40}] {pos}/{len}, {eta} left: {msg}");
    ProgressBar::new(length as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::{interleave, last_lines, run_with_limit};
    use crate::results::{Cell, Row, Sample};

    #[test]
    fn who_comes_first_rotates_and_what_fails_is_left_out() {
        let row = |workload: &str| Row {
            workload: workload.into(),
            group: String::new(),
            threads: 1,
            cells: vec![Cell::default(); 3],
        };
        let mut rows = [row("first"), row("second")];
        let mut calls = Vec::new();
        let failed = interleave(3, &mut rows, &["a", "b", "c"], |place, column| {
            calls.push((place, column));
            match (place, column) {
                (0, 2) => None,
                (1, 0) if calls.len() > 6 => Some(Err("broken".into())),
                _ => Some(Ok(Sample::default())),
            }
        });
        let rounds = [
            [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 0)],
            [(0, 1), (0, 2), (0, 0), (1, 2), (1, 0), (1, 1)],
            [(0, 2), (0, 0), (0, 1), (1, 0), (1, 1), (1, 2)],
        ];
        // The one that failed does not run again.
        let order: Vec<(usize, usize)> = rounds
            .concat()
            .into_iter()
            .enumerate()
            .filter(|it| it.0 != 15)
            .map(|it| it.1)
            .collect();
        assert_eq!(calls, order);
        let samples: [Vec<usize>; 2] =
            rows.map(|row| row.cells.iter().map(|cell| cell.samples.len()).collect());
        assert_eq!(samples, [vec![3, 3, 0], vec![0, 3, 3]]);
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].name, "second on a");
    }

    fn shell(script: &str, limit: Duration) -> Result<String, String> {
        run_with_limit(Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn processes_are_run_and_judged() {
        let limit = Duration::from_secs(60);
        assert_eq!(shell("echo good", limit).unwrap(), "good\n");
        let failed = shell("echo bad; echo reason >&2; exit 3", limit).unwrap_err();
        assert!(failed.contains('3') && failed.contains("reason") && !failed.contains("bad"));
        assert!(run_with_limit(&mut Command::new("/nowhere/at/all"), limit).is_err());
    }

    #[test]
    fn a_process_that_takes_too_long_is_ended() {
        let start = Instant::now();
        let error = shell("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("was ended"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn last_lines_are_the_last_that_say_something() {
        assert_eq!(last_lines("a\n\nb\n \nc\n\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }
}
