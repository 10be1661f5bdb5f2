//! How a process ends after a misuse.

use crate::Report;

/// Writes the report as one line to standard error, and ends the process with SIGABRT. Nothing is
/// allocated, formatted or unwound; if the line cannot be written, the process ends all the same.
#[cfg(unix)]
#[cold]
#[inline(never)]
pub(crate) fn end_process(report: Report) -> ! {
    crate::system::write_error(report.line().as_bytes());
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

/// Writes the report as one line to standard error, and aborts the process.
#[cfg(not(unix))]
#[cold]
#[inline(never)]
pub(crate) fn end_process(report: Report) -> ! {
    use std::io::Write;
    // Whether it can be written or not, the process ends.
    let _ = std::io::stderr().write_all(report.line().as_bytes());
    std::process::abort()
}
