//! Children with one bug each: how they must end.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::job::say;
use super::limited::{Ended, run};

/// Bytes at the end of a small object's slot that the program does not get.
pub const CANARY: usize = if cfg!(feature = "hardened") { 8 } else { 0 };

/// Seconds in which a misuse ends the process, or it hangs.
pub const AT_ONCE: u64 = 20;

/// Tells the parent the address that the report must name.
pub fn announce(object: *mut u8) {
    say("address", format_args!("{:#x}", object.addr()));
}

/// What a child said as `name=value`.
pub fn said<'a>(ended: &'a Ended, name: &str) -> Option<&'a str> {
    ended.out.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// Runs a child whose bug must end it with exactly one of these lines, given as what they say
/// before the address and after it. What is wrong, if anything.
pub fn run_bug(command: &mut Command, lines: &[(&str, &str)]) -> Option<String> {
    let ended = run(command.env("RUST_BACKTRACE", "1"), AT_ONCE);
    let address = said(&ended, "address").unwrap_or("?");
    let expected: Vec<_> = lines
        .iter()
        .map(|(before, after)| format!("spanalloc: {before} {address}{after}\n"))
        .collect();
    if expected.contains(&ended.err) && died_in_time(&ended) {
        return None;
    }
    let Ended { status, out, err } = ended;
    Some(format!("{status}, {err:?} instead of {expected:?}; {out:?}"))
}

/// Whether SIGABRT ended the process in the call with the bug, before it could say anything more.
pub fn died_in_time(ended: &Ended) -> bool {
    ended.status.signal() == Some(libc::SIGABRT) && said(ended, "survived").is_none()
}

/// Fails if anything is wrong, and shows some of it.
pub fn all_right(wrong: &[String], of: usize) {
    let some: Vec<_> = wrong.iter().take(12).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {of} are wrong:\n{}", wrong.len(), some.join("\n"));
}
