//! The command line.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use clap::{Args, Parser, Subcommand, value_parser};

/// A real program on the allocator spanalloc, and a picture of its heap.
///
/// Without a command: demo.
#[derive(Debug, Parser)]
#[command(name = "spanalloc", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) demo: DemoArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Index text with several threads, query it, drop it, and show what the heap looked like
    Demo(DemoArgs),
    /// One run in this process, reported as JSON
    #[command(hide = true)]
    Job(JobArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) text: TextArgs,
    /// Runs on each allocator, one after the other in turns; the medians are shown
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(1..=99))]
    pub(crate) repeat: u16,
    /// Do not run on the system's allocator: one run on spanalloc, in this process
    #[arg(long, conflicts_with = "repeat")]
    pub(crate) no_compare: bool,
    /// Show every size class of the heap, not only the largest
    #[arg(long)]
    pub(crate) all_classes: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    pub(crate) text: TextArgs,
    /// What stands before the progress bar
    #[arg(long, default_value = "")]
    pub(crate) label: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TextArgs {
    /// Files and directories to index [default: the sources of spanalloc and of the crates in cargo's registry]
    pub(crate) paths: Vec<PathBuf>,
    /// Threads that index
    #[arg(long, value_name = "N", default_value_t = default_threads(), value_parser = value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// Most bytes of text to index, as in 500K, 64M or 2G [default: 64M without paths, else no limit]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) max_bytes: Option<u64>,
}

fn default_threads() -> u16 {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    u16::try_from(cores.min(4)).unwrap_or(4)
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" => 10,
        "M" | "MB" => 20,
        "G" | "GB" => 30,
        _ => return Err(format!("{unit} is none of K, M, G")),
    };
    let number: u64 = digits.parse().map_err(|_| String::from("expected a number, as in 64M"))?;
    number.checked_mul(1 << shift).ok_or_else(|| String::from("too many bytes"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_demo() {
        let cli = Cli::try_parse_from(["spanalloc", "--threads", "3", "a", "b"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.demo.text.threads, 3);
        assert_eq!(cli.demo.text.paths, [PathBuf::from("a"), PathBuf::from("b")]);
        let cli = Cli::try_parse_from(["spanalloc", "demo", "--no-compare"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Demo(DemoArgs { no_compare: true, .. }))));
        assert!(Cli::try_parse_from(["spanalloc", "--threads", "0"]).is_err());
        assert!(Cli::try_parse_from(["spanalloc", "--repeat", "0"]).is_err());
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("12"), Ok(12));
        assert_eq!(parse_bytes("3k"), Ok(3 << 10));
        assert_eq!(parse_bytes("64M"), Ok(64 << 20));
        assert_eq!(parse_bytes("2GB"), Ok(2 << 30));
        for wrong in ["", "M", "-1", "1T", "1.5M", "99999999999G"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
