//! The command line.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

const EXAMPLES: &str = "\
\x1b[1;4mExamples:\x1b[0m
  spanalloc run -- python3 -c 'print(sum(range(10**6)))'
  spanalloc run --stats -- git log --oneline       a report of the heap at the end
  spanalloc run --map --report heap.txt -- make    a map of the heap, into a file
  spanalloc record -o jq.trace -- jq . big.json    what a program allocates, into a file
  spanalloc replay --svg jq.svg jq.trace           what that takes on spanalloc: time, memory
  spanalloc demo ~/books                           a word index, beside the system's malloc

\x1b[1;4mFrom a checkout:\x1b[0m cargo run --release -- run --stats -- CMD ARGS...";

const ABOUT_RUN: &str = "\
The program is started in the place of this command, with the library in LD_PRELOAD. So its exit code, \
its signals, its input and its output are its own, and the programs it starts run on spanalloc, too. \
A double free, or a free of what was never allocated, ends a program with SIGABRT and one line that begins \
with \"spanalloc:\".

A program that ends by a signal or by _exit prints no report.

Programs that are statically linked or setuid do not load the library; they run on the malloc they \
have, and a line says so.";

const EXAMPLES_OF_RUN: &str = "\
\x1b[1;4mExit codes of its own:\x1b[0m
  1    there is no library, or no place for the report
  126  the program cannot be run
  127  there is no such program

\x1b[1;4mExamples:\x1b[0m
  spanalloc run -- python3 -c 'print(sum(range(10**6)))'
  spanalloc run --stats -- gawk 'BEGIN { while (i < 1000000) a[i++]; print length(a) }'
  spanalloc run --map --report heap.txt -- git gc

\x1b[1;4mThe same without this command:\x1b[0m
  SPANALLOC_STATS=1 LD_PRELOAD=/path/of/libspanalloc_c.so CMD ARGS...";

const ABOUT_RECORD: &str = "\
The program runs on its own malloc, and each call is written down: sizes, alignments, threads and times; no \
addresses, names or contents. When it has ended the calls become a trace, which is written to a file of some \
two bytes a call.

The process that is started is recorded, and the program that it becomes by exec; what it forks or starts is \
not. The exit code is the program's, or 128 and the number of the signal that ended it.";

const EXAMPLES_OF_RECORD: &str = "\
\x1b[1;4mExit codes of its own:\x1b[0m
  1    there is no library, nothing was recorded, or the trace cannot be written
  126  the program cannot be run
  127  there is no such program

\x1b[1;4mExamples:\x1b[0m
  spanalloc record -- jq . data.json
  spanalloc record -o build.trace --most 10M -- g++ -c big.cpp";

const ABOUT_REPLAY: &str = "\
The operations of a trace are done, one by one and in one thread, to an allocator that is put together for \
it; each thread of the program has a cache. The clock is the trace's. What counts as resident are the pages \
that objects were in since the allocator got them from the system, as if the program wrote to every byte, \
and the allocator's own tables. So every number but the time is the same in every run.";

const EXAMPLES_OF_REPLAY: &str = "\
\x1b[1;4mExamples:\x1b[0m
  spanalloc replay spanalloc.trace
  spanalloc replay --policy checked --table go67 --source fixed:64M spanalloc.trace
  spanalloc replay --svg curve.svg --json spanalloc.trace > numbers.json";

/// Runs programs on the memory allocator spanalloc.
#[derive(Debug, Parser)]
#[command(name = "spanalloc", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program on spanalloc instead of its malloc
    #[command(long_about = ABOUT_RUN, after_help = EXAMPLES_OF_RUN)]
    Run(RunArgs),
    /// Run a program and write down what it allocates
    #[command(long_about = ABOUT_RECORD, after_help = EXAMPLES_OF_RECORD)]
    Record(RecordArgs),
    /// Replay a recorded program on an allocator put together from the layers, and measure it
    #[command(long_about = ABOUT_REPLAY, after_help = EXAMPLES_OF_REPLAY)]
    Replay(ReplayArgs),
    /// Index text with several threads, query it, drop it, and show what the heap looked like
    Demo(DemoArgs),
    /// One run in this process, reported as JSON
    #[command(hide = true)]
    Job(JobArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// At its end the program describes its heap on stderr: where the bytes are, how full the size classes are
    #[arg(long)]
    pub(crate) stats: bool,
    /// At its end the program draws its arenas on stderr: what each piece of them is used for
    #[arg(long)]
    pub(crate) map: bool,
    /// Write what --stats and --map print to this file; alone, as with --stats
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Trust the program: ignore a wrong free instead of ending the program
    #[arg(long)]
    pub(crate) no_check: bool,
    /// The program, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["CMD", "ARGS"])]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RecordArgs {
    /// Write the trace to this file
    #[arg(long, short, value_name = "FILE", default_value = "spanalloc.trace")]
    pub(crate) output: PathBuf,
    /// Most calls to write down, as in 500K or 10M; each takes 32 bytes of memory while the program runs
    #[arg(long, value_name = "N", default_value = "2M", value_parser = parse_calls)]
    pub(crate) most: usize,
    /// The program, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["CMD", "ARGS"])]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The trace
    #[arg(value_name = "TRACE")]
    pub(crate) trace: PathBuf,
    /// What the caches trust and check
    #[arg(long, value_enum, default_value_t = PolicyChoice::Fast)]
    pub(crate) policy: PolicyChoice,
    /// The size classes
    #[arg(long, value_enum, default_value_t = TableChoice::Fine72)]
    pub(crate) table: TableChoice,
    /// Where memory comes from: `mmap`, or a buffer, as in `fixed:64M`
    #[arg(long, default_value = "mmap", value_parser = parse_source)]
    pub(crate) source: SourceChoice,
    /// Draw the curve of the memory into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Print the numbers and the curve as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// First fill every object and check that nobody else wrote to it
    #[arg(long)]
    pub(crate) verify: bool,
}

/// A policy of the caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyChoice {
    /// As Rust programs: trusts the layouts it is given
    Fast,
    /// As the C library: looks every object up
    Checked,
}

/// A table of size classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableChoice {
    /// The 67 classes of the Go runtime
    Go67,
    /// Those and five more below 16 bytes
    Fine72,
}

/// Where memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceChoice {
    /// The system.
    Mmap,
    /// A buffer of so many bytes.
    Fixed(usize),
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

fn parse_calls(text: &str) -> Result<usize, String> {
    let most = 1 << 30;
    let digits = text.trim_end_matches(['K', 'k', 'M', 'm']);
    let unit = match text.get(digits.len()..) {
        Some("") => 1,
        Some("K" | "k") => 1000,
        Some("M" | "m") => 1_000_000,
        _ => 0,
    };
    let number: Option<usize> = digits.parse().ok().and_then(|it: usize| it.checked_mul(unit));
    let number = number.filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("expected a number from 1 to {most}, as in 500K"))
}

/// The least and the most bytes of a buffer: 64 KB and 64 GB.
const BUFFER_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 30;

fn parse_source(text: &str) -> Result<SourceChoice, String> {
    if text == "mmap" {
        return Ok(SourceChoice::Mmap);
    }
    let Some(size) = text.strip_prefix("fixed:") else {
        return Err(String::from("expected mmap, or a buffer as in fixed:64M"));
    };
    let bytes = parse_bytes(size)?;
    match usize::try_from(bytes) {
        Ok(size) if BUFFER_BYTES.contains(&bytes) => Ok(SourceChoice::Fixed(size)),
        _ => Err(String::from("a buffer has 64K to 64G")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    fn parse(args: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(args.split(' '))
    }

    #[test]
    fn options_of_the_demo_follow_its_name() {
        let Some(Command::Demo(demo)) = parse("spanalloc demo --threads 3 a b").unwrap().command
        else {
            panic!("not the demo");
        };
        assert_eq!(demo.text.threads, 3);
        assert_eq!(demo.text.paths, [PathBuf::from("a"), PathBuf::from("b")]);
        for wrong in ["spanalloc --threads 3", "spanalloc demo --threads 0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("spanalloc").unwrap().command.is_none());
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        for (line, stats, command) in [
            ("spanalloc run --stats -- ls --map -l", true, "ls --map -l"),
            ("spanalloc run ls --stats -- x", false, "ls --stats -- x"),
            ("spanalloc run -- --stats", false, "--stats"),
        ] {
            let Some(Command::Run(run)) = parse(line).unwrap().command else {
                panic!("{line} is not run");
            };
            assert!(run.command.iter().eq(command.split(' ')), "{line}");
            assert_eq!((run.stats, run.map, run.no_check), (stats, false, false));
        }
        for wrong in ["spanalloc run", "spanalloc run --stats --", "spanalloc run --stat ls"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_composition_is_named_by_its_parts() {
        let line = "spanalloc replay --policy checked --table go67 --source fixed:2M a.trace";
        let Some(Command::Replay(replay)) = parse(line).unwrap().command else {
            panic!("not replay");
        };
        assert_eq!((replay.policy, replay.table), (PolicyChoice::Checked, TableChoice::Go67));
        assert_eq!(replay.source, SourceChoice::Fixed(2 << 20));
        for wrong in ["fixed", "fixed:", "fixed:1K", "fixed:65G", "heap"] {
            assert!(parse_source(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_source("mmap"), Ok(SourceChoice::Mmap));
        for wrong in ["spanalloc replay", "spanalloc replay a b", "spanalloc record"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn calls_are_counted_in_thousands() {
        assert_eq!((parse_calls("12"), parse_calls("3k")), (Ok(12), Ok(3000)));
        assert_eq!(parse_calls("20M"), Ok(20_000_000));
        for wrong in ["", "0", "K", "-1", "1G", "2000M", "1kM", "99999999999999999999"] {
            assert!(parse_calls(wrong).is_err(), "{wrong}");
        }
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
