//! A program of the system that runs on one library after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::libraries::Library;
use super::process::{Used, command, is_served, run};
use super::redis;
use crate::results::Sample;

/// How long a program that only tells its version may take.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// A program and its work.
#[derive(Debug)]
pub struct Program {
    /// The name of its row.
    pub name: &'static str,
    /// The group of its row.
    pub group: &'static str,
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Arguments with which the same processes start and end at once.
    pub(super) probe: Vec<String>,
    /// How the name of what must get its memory from the library begins.
    pub(super) user: &'static str,
    pub(super) shape: Shape,
}

/// How a program is run.
#[derive(Debug)]
pub(super) enum Shape {
    /// Once; it prints this.
    Whole(Vec<u8>),
    /// So many times; it prints its own status.
    Starts(u32),
    /// As a server; so many requests of each kind are made.
    Server { benchmark: PathBuf, requests: u32 },
}

impl Program {
    /// Runs it for the answer that it must give on every library.
    pub(super) fn with_answer(mut self, place: &Path, plain: &Library) -> Result<Self, String> {
        let (answer, _) = run(&mut self.command(place, plain), Duration::from_secs(120))?;
        if answer.is_empty() {
            return Err("it answers nothing".into());
        }
        self.shape = Shape::Whole(answer);
        Ok(self)
    }

    fn command(&self, place: &Path, library: &Library) -> Command {
        let mut command = command(&self.path, place, library);
        command.args(&self.arguments);
        command
    }

    /// Makes sure that it gets its memory from the library.
    ///
    /// # Errors
    /// It does not.
    pub fn is_served(&self, place: &Path, library: &Library) -> Result<(), String> {
        let mut command = command(&self.path, place, library);
        is_served(command.args(&self.probe), self.user, library, PROBE_LIMIT)
    }

    /// Runs it on a library.
    ///
    /// # Errors
    /// Why it failed, or what is wrong with its answer.
    pub fn sample(
        &self,
        place: &Path,
        library: &Library,
        limit: Duration,
    ) -> Result<Sample, String> {
        match &self.shape {
            Shape::Whole(expected) => {
                let (answer, used) = run(&mut self.command(place, library), limit)?;
                if answer != *expected {
                    return Err("its answer is another one than without the library".into());
                }
                whole(&used)
            }
            Shape::Starts(count) => self.starts(*count, place, library),
            Shape::Server { benchmark, requests } => {
                let server = self.command(place, library);
                whole(&redis::serve(server, benchmark, *requests, limit)?)
            }
        }
    }

    /// Starts it many times. Peak and RSS are what it tells of itself.
    fn starts(&self, count: u32, place: &Path, library: &Library) -> Result<Sample, String> {
        let mut sample = Sample::default();
        let (mut wall, mut cpu, mut rss) = (Duration::ZERO, Duration::ZERO, 0);
        for _ in 0..count {
            let (told, used) = run(&mut self.command(place, library), PROBE_LIMIT)?;
            let told = String::from_utf8_lossy(&told);
            wall += used.wall;
            cpu += used.cpu;
            sample.minor_faults = used.minor_faults;
            sample.peak_rss_bytes = sample.peak_rss_bytes.max(bytes(&told, "VmHWM:")?);
            rss = rss.max(bytes(&told, "VmRSS:")?);
        }
        let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(count);
        sample.nanoseconds = each(cpu);
        sample.cpu_nanoseconds = each(cpu);
        sample.figures.insert("wall, ms".into(), each(wall) / 1e6);
        sample.figures.insert("RSS near the end, KB".into(), rss as f64 / 1024.0);
        Ok(sample)
    }
}

/// The sample of a whole run: one operation, whose time is what was computed for it.
fn whole(used: &Used) -> Result<Sample, String> {
    // Linux counts the peak of this process among those of the processes that it starts.
    let own = bytes(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmHWM:")?;
    if used.peak_rss_bytes <= own {
        let [it, own] = [used.peak_rss_bytes, own].map(|bytes| bytes / 1024);
        return Err(format!("its peak of {it} KB may be that of this program, {own} KB"));
    }
    let nanoseconds = used.cpu.as_secs_f64() * 1e9;
    let wall = ("wall, ms".to_owned(), used.wall.as_secs_f64() * 1e3);
    Ok(Sample {
        nanoseconds,
        cpu_nanoseconds: nanoseconds,
        peak_rss_bytes: used.peak_rss_bytes,
        minor_faults: used.minor_faults,
        latency: None,
        figures: [wall].into(),
    })
}

/// A size in the status that the kernel tells of a process.
fn bytes(status: &str, key: &str) -> Result<u64, String> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|it| it * 1024).ok_or_else(|| format!("the kernel does not tell {key}"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_from_a_status() {
        let status = "Name:\tcat\nVmHWM:\t    1740 kB\nVmRSS:\t    1700 kB\n";
        assert_eq!(bytes(status, "VmHWM:"), Ok(1740 * 1024));
        assert!(bytes(status, "VmSwap:").is_err());
    }
}
