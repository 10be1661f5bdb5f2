//! The machine, the system and the compiler of a comparison.

use std::ffi::CStr;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::SystemTime;

use crate::results::{About, Machine};

/// What is known before a comparison runs.
#[must_use]
pub fn about(rounds: usize, quick: bool) -> About {
    About {
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        command: command_line(),
        rounds,
        quick,
        machine: machine(),
        rustc: rustc(),
        spanalloc: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The C library and its version.
#[must_use]
pub fn libc_version() -> String {
    // SAFETY: it returns a static string.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}

fn machine() -> Machine {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let huge = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let kilobytes = value(&memory, "MemTotal").split(' ').next().map(str::parse);
    Machine {
        cpu: value(&cpus, "model name").to_owned(),
        cores: thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: kilobytes.and_then(Result::ok).unwrap_or(0u64) * 1024,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| UNKNOWN.to_owned(), |release| numbers(&release).to_owned()),
        libc: libc_version(),
        transparent_huge_pages: huge
            .map_or_else(|_| UNKNOWN.to_owned(), |choices| chosen(&choices)),
    }
}

const UNKNOWN: &str = "unknown";

/// The numbers that a release begins with, as in `6.18.44-local`.
fn numbers(release: &str) -> &str {
    let end = release.find(|at: char| !at.is_ascii_digit() && at != '.');
    &release[..end.unwrap_or(release.len())]
}

/// The value of a key in a file of lines `key : value`.
fn value<'a>(file: &'a str, key: &str) -> &'a str {
    file.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map_or(UNKNOWN, |(_, value)| value.trim())
}

/// The choice in brackets, as in `always [madvise] never`.
fn chosen(choices: &str) -> String {
    let inner = choices.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(UNKNOWN, |(choice, _)| choice).to_owned()
}

/// The command as a user types it.
fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p spanalloc-bench -- {}", arguments.join(" "))
}

fn rustc() -> String {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .arg("--version")
        .output();
    output.map_or_else(
        |_| UNKNOWN.to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::{chosen, machine, numbers, value};

    #[test]
    fn a_release_is_its_numbers() {
        assert_eq!([numbers("6.18.44-local\n"), numbers("6.1\n")], ["6.18.44", "6.1"]);
    }

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(value("processor\t: 0\nmodel name\t: A: B\n", "model name"), "A: B");
        assert_eq!(value("", "model name"), "unknown");
        assert_eq!(chosen("always [madvise] never\n"), "madvise");
        let machine = machine();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20);
        assert!(machine.libc.len() > "glibc ".len());
    }
}
