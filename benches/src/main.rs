//! The command: compares allocators, and renders comparisons that were kept.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use spanalloc_bench::compare::{self, Options, RESULTS};
use spanalloc_bench::preload;

/// spanalloc against its peers, in one interleaved run.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the allocators, run the workloads on all of them, and write the results.
    Compare(Compare),
    /// Write the table and the charts of a comparison once more.
    Report {
        /// The JSON that a comparison wrote.
        file: PathBuf,
        /// The directory to write to [default: that of the file].
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Compare {
    /// End within three minutes, once all is built.
    #[arg(long)]
    quick: bool,
    /// Compare the C libraries under programs of the system, by `LD_PRELOAD`.
    #[arg(long)]
    preload: bool,
    /// How often each workload runs on each allocator [default: 7, quick 3].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only workloads whose name contains this, or of this group; may be repeated.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these allocators.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    allocators: Vec<String>,
    /// How long one run of a workload may take [default: 240, quick 60].
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// The directory for the results.
    #[arg(long, default_value = RESULTS)]
    out: PathBuf,
    /// Fail if an allocator or a workload could not be measured.
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Compare(asked) => {
            let compare = if asked.preload { preload::compare } else { compare::compare };
            compare(&Options {
                quick: asked.quick,
                rounds: asked.rounds.map(usize::from),
                only: asked.only,
                allocators: asked.allocators,
                limit: asked.limit,
                out: asked.out,
                strict: asked.strict,
            })
        }
        Command::Report { file, out } => report(&file, out.as_deref()),
    }
}

fn report(file: &Path, out: Option<&Path>) -> Result<(), Box<dyn Error>> {
    println!("{}", compare::report(file, out)?);
    Ok(())
}
