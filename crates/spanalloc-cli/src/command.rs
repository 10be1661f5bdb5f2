use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, JobArgs};
use crate::{Choice, Error, demo, job, preload, record, replay};

/// Does what the command line says, in a process that runs on `allocator`; without a subcommand it
/// says how to use it. `run` comes back only if the program cannot be run; `record` with the program's own
/// exit code.
///
/// Exit code 0 if it was done (also when the reader of the output went away), else
/// [`Error::exit_code`], or 2 if the command line is wrong.
#[must_use]
pub fn run(allocator: Choice) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match Cli::parse().command {
        None => Cli::command().print_help().map_err(Error::from),
        Some(Command::Run(args)) => Err(preload::run(&args)),
        Some(Command::Record(args)) => record::run(&args),
        Some(Command::Replay(args)) => replay::run(&args, &mut out),
        Some(Command::Demo(args)) => demo::show(&args, allocator, &mut out),
        Some(Command::Job(args)) => report_job(&args, allocator, &mut out),
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.said_elsewhere().unwrap_or_else(|| {
            // Nothing is left to do if that fails, too.
            let _ = writeln!(io::stderr(), "spanalloc: {error}");
            error.exit_code()
        })),
    }
}

fn report_job(args: &JobArgs, allocator: Choice, out: &mut impl Write) -> Result<(), Error> {
    let outcome = job::run(args, allocator)?;
    let report = serde_json::to_string(&outcome)?;
    Ok(writeln!(out, "{report}")?)
}
