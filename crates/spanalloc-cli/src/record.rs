//! `spanalloc record`: runs a program and writes down what it allocates.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{self, Command, ExitStatus};

use memmap2::MmapMut;
use spanalloc_log::Log;

use crate::args::RecordArgs;
use crate::format::{bytes, count};
use crate::transcript::Transcript;
use crate::{Error, preload, program};

/// The variable that names the log to the recorder.
const VARIABLE: &str = "SPANALLOC_RECORD_LOG";

/// Runs the program and writes its trace. Fails with [`Error::Ended`] if the program did not end with 0.
pub(crate) fn run(args: &RecordArgs) -> Result<(), Error> {
    let library = preload::library(preload::RECORDER)?;
    let mut words = args.command.iter();
    let name = words.next().cloned().unwrap_or_default();
    if let Some((file, why)) = program::unaffected(&name, &library) {
        return Err(Error::NotRecordable { file, why: why.to_string() });
    }
    let unwritable = |source| Error::Write { path: args.output.clone(), source };
    let mut output = File::create(&args.output).map_err(unwritable)?;

    let (file, mut memory) = shared(Log::bytes(args.most)).map_err(Error::Log)?;
    // SAFETY: a new file is zero, and its mapping, which is aligned to a page, outlives the log.
    let log = unsafe { Log::create(memory.as_mut_ptr(), args.most) };
    let place = format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd());
    let preloads = preload::preloads(&library, env::var_os(preload::PRELOAD))?;
    let mut command = Command::new(&name);
    command.args(words).env(preload::PRELOAD, preloads).env(VARIABLE, place);
    let ended = wait_for(&mut command);
    let status = match ended {
        Ok(status) => status,
        Err(source) => {
            discard(&output, &args.output);
            return Err(Error::cannot_run(name, source));
        }
    };
    let code = exit_code(status);
    let written = write(&log, &name, &mut output).map_err(|error| match error {
        Error::Output(source) => unwritable(source),
        other => other,
    });
    if written.is_err() {
        discard(&output, &args.output);
    }
    let told = match written {
        Ok(told) => format!("{told} in {}", args.output.display()),
        // The program's own failure is what counts.
        Err(error) if code != 0 => error.to_string(),
        Err(error) => return Err(error),
    };
    // Nothing is left to do if that fails.
    let _ = writeln!(io::stderr(), "spanalloc: {told}");
    if code == 0 { Ok(()) } else { Err(Error::Ended(code)) }
}

/// Removes an output in which nothing is, unless it is a device.
fn discard(output: &File, path: &Path) {
    if output.metadata().is_ok_and(|it| it.is_file()) {
        // Nothing is left to do if that fails.
        let _ = fs::remove_file(path);
    }
}

/// Memory that another process can map, by the file's number in this one.
fn shared(bytes: usize) -> io::Result<(File, MmapMut)> {
    // SAFETY: the name ends in NUL; the file that it makes is nobody else's.
    let file = unsafe {
        let number = libc::memfd_create(c"spanalloc log".as_ptr(), libc::MFD_CLOEXEC);
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(number)
    };
    file.set_len(bytes as u64)?;
    // SAFETY: nobody cuts the file; what others write to it are the log's atomics.
    let memory = unsafe { MmapMut::map_mut(&file)? };
    Ok((file, memory))
}

/// Runs the program to its end. The terminal's signals are for the program alone.
fn wait_for(command: &mut Command) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    child.wait()
}

/// As shells have it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Makes the trace and writes it; says what it holds.
fn write(log: &Log<'_>, name: &OsStr, output: &mut File) -> Result<String, Error> {
    let total = log.total();
    if total == 0 {
        return Err(Error::NothingRecorded(name.to_owned()));
    }
    let mut transcript = Transcript::new();
    let mut seen = 0;
    for event in log.events() {
        transcript.add(event);
        seen += 1;
    }
    let threads = transcript.threads();
    let trace = transcript.finish();
    let encoded = trace.encode();
    output.write_all(&encoded)?;
    let left_out = match total - seen {
        0 => String::new(),
        more => format!(" ({} more calls did not fit)", count(more)),
    };
    Ok(format!(
        "{} operations of {} thread{}{left_out}, {}",
        count(trace.operations().len() as u64),
        count(threads as u64),
        if threads == 1 { "" } else { "s" },
        bytes(encoded.len() as u64)
    ))
}
