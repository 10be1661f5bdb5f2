//! Programs with one bug each, as children of a test: the process must end at once, with SIGABRT and
//! exactly one line.
#![allow(dead_code, reason = "each test uses a part of this")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// The environment variable that names the bug to a child.
pub const CHILD: &str = "SPANALLOC_TEST_CHILD";

/// Name, what the line says before the address and after it, and the bug itself.
pub type Bug = (&'static str, &'static str, &'static str, fn());

/// Tells the parent the address that the report must name.
pub fn announce(object: *mut u8) {
    println!("address={:#x}", object.addr());
}

/// What a child prints when its bug went unnoticed.
const SURVIVED: &str = "survived";

/// Runs the bug that this process was started for, if it is a child: a test that does nothing else.
pub fn run_as_child(bugs: &[Bug]) {
    let Ok(name) = std::env::var(CHILD) else { return };
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is valid for reading.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) }, 0);
    let (.., bug) = bugs.iter().find(|bug| bug.0 == name).unwrap();
    bug();
    println!("{SURVIVED}");
}

/// Runs each bug in a process of its own: this test binary again, with its test `child`.
pub fn assert_all_end_with_their_line(bugs: &[Bug]) {
    let mut wrong = Vec::new();
    for (name, before, after, _) in bugs {
        let began = Instant::now();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, name)
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        let address = out.lines().find_map(|line| line.split_once("address=")).map(|pair| pair.1);
        let expected = format!("spanalloc: {before} {}{after}\n", address.unwrap_or("?"));
        let aborted = output.status.signal() == Some(libc::SIGABRT);
        let in_time = began.elapsed() < Duration::from_secs(5);
        if err != expected || !aborted || !in_time || out.contains(SURVIVED) {
            let status = output.status;
            wrong.push(format!("{name}: {status}, {err:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), bugs.len(), wrong.join("\n"));
}
