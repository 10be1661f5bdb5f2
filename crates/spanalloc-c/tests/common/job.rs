//! What a child process knows of its task, and how it answers.

use std::io::Write;

/// What this process is to do, if it is a child. It leaves no core file behind.
pub fn job() -> Option<String> {
    let name = std::env::var(super::CHILD).ok()?;
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is valid for reading.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) }, 0);
    Some(name)
}

/// Tells the parent something in one line, without touching the heap.
pub fn say(name: &str, value: impl std::fmt::Display) {
    let mut line = [0_u8; 200];
    let mut rest = &mut line[..];
    writeln!(rest, "{name}={value}").unwrap();
    let left = rest.len();
    let len = line.len() - left;
    // SAFETY: the line is readable.
    let written = unsafe { libc::write(libc::STDOUT_FILENO, line.as_ptr().cast(), len) };
    assert_eq!(usize::try_from(written), Ok(len));
}

/// Ends a process that has no memory left for a panic, and says why, unless this is so.
pub fn check(good: bool, what: impl std::fmt::Display) {
    if !good {
        say("failed", what);
        // SAFETY: ends the process.
        unsafe { libc::_exit(3) };
    }
}
