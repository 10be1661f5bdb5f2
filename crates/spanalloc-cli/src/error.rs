use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use spanalloc_testkit::{Failure, TraceError};

/// Why the command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path given as an argument does not exist or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Path {
        /// The path as it was given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A path given as an argument is a device, a pipe or a socket.
    #[error("cannot read {}: neither a file nor a directory", .0.display())]
    NotAFile(PathBuf),
    /// A path given as a trace is a directory, a device, a pipe or a socket.
    #[error("cannot read {}: not a file", .0.display())]
    NotATraceFile(PathBuf),
    /// Nothing below the paths is text.
    #[error("no text found in {0}")]
    NoText(String),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The second process could not be started or read.
    #[error("cannot run a process on the {allocator} allocator: {source}")]
    Spawn {
        /// The name of the allocator.
        allocator: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A process ended early.
    #[error("the process on the {allocator} allocator failed: {status}")]
    Process {
        /// The name of the allocator.
        allocator: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// A process reported what cannot be understood.
    #[error("cannot understand the report of a run: {0}")]
    Report(#[from] serde_json::Error),
    /// A query and the plain reading of the text do not agree, or two runs do not.
    #[error("wrong answer: {0}")]
    WrongAnswer(String),
    /// The system does not say which file this command is.
    #[error("cannot tell where this command is: {0}")]
    OwnPlace(#[source] io::Error),
    /// A library is in none of the places where it is looked for.
    #[error("there is no C library; looked for {}", listed(.0))]
    NoLibrary(Vec<PathBuf>),
    /// The C library is where `LD_PRELOAD` cannot name it.
    #[error("LD_PRELOAD cannot hold a path with a space or a colon: {}", .0.display())]
    LibraryPath(PathBuf),
    /// The file for the heap report cannot be written.
    #[error("cannot write the report {}: {source}", path.display())]
    ReportFile {
        /// The file as it was given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no program of this name.
    #[error("{}: command not found", .0.display())]
    NoProgram(OsString),
    /// The program is there and cannot be run.
    #[error("cannot run {}: {source}", name.display())]
    Program {
        /// The program as it was given.
        name: OsString,
        /// What the system says.
        source: io::Error,
    },
    /// A program that cannot be recorded.
    #[error("cannot record {}: it {why}", file.display())]
    NotRecordable {
        /// The file that would run.
        file: PathBuf,
        /// Why the library is not loaded into it, in words.
        why: String,
    },
    /// The memory for a recording cannot be had.
    #[error("no memory for the recording: {0}")]
    Log(#[source] io::Error),
    /// The program ran and called no malloc that could be recorded.
    #[error("nothing was recorded: {} has a malloc of its own, or never called it", .0.display())]
    NothingRecorded(OsString),
    /// A program that ran ended in this way, which it has told itself.
    #[error("the program ended with {0}")]
    Ended(u8),
    /// A file that holds no trace, or a damaged one.
    #[error("cannot replay {}: {source}", path.display())]
    Trace {
        /// The file as it was given.
        path: PathBuf,
        /// What is wrong with it.
        source: TraceError,
    },
    /// The buffer to replay in cannot be had.
    #[error("no memory for a buffer of {bytes} bytes")]
    NoBuffer {
        /// Its size.
        bytes: usize,
    },
    /// A replay with verification found that the allocator broke a promise.
    #[error("the allocator is wrong at {0}")]
    Violation(#[from] Failure),
    /// A curve could not be drawn.
    #[error("cannot draw the curve: {0}")]
    Drawing(String),
    /// A file that the command makes cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file as it was given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// Why the system did not run the program `name`.
    pub(crate) fn cannot_run(name: OsString, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NoProgram(name),
            _ => Self::Program { name, source },
        }
    }

    /// The exit code for this error: 127 if there is no program to run and 126 if it cannot be run,
    /// as shells have it; 2 if a path to read is not there; else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NoProgram(_) => 127,
            Self::Program { .. } => 126,
            Self::Path { .. }
            | Self::NotAFile(_)
            | Self::NoText(_)
            | Self::Trace { .. }
            | Self::NotATraceFile(_) => 2,
            _ => 1,
        }
    }

    /// The exit code of another process, which has said what was wrong.
    pub(crate) fn said_elsewhere(&self) -> Option<u8> {
        match self {
            Self::Ended(code) => Some(*code),
            Self::Process { status, .. } => match status.code() {
                Some(1) => Some(1),
                Some(2) => Some(2),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the reader of the output has gone away, which is no failure.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}
