//! What the tests of the command share.
#![allow(dead_code, reason = "each test uses a part of this")]

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// How long a child may run.
const LIMIT: Duration = Duration::from_secs(60);

/// The command, in an environment that asks nothing of it.
pub fn spanalloc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanalloc"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SPANALLOC_") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs the child with this input to its end, or kills it at the limit.
pub fn ended(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = loop {
        match command.spawn() {
            // A child of another test, about to run, still has a copy open that this one just wrote.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
            child => break child.unwrap(),
        }
    };
    // A child that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let id = child.id().try_into().unwrap();
    let (sender, receiver) = mpsc::channel();
    let waiter = thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(LIMIT) else {
        // SAFETY: a system call without pointers; nobody has waited for the child.
        unsafe { libc::kill(id, libc::SIGKILL) };
        panic!("still runs after {LIMIT:?}: {command:?}");
    };
    waiter.join().unwrap().unwrap();
    output.unwrap()
}

/// Checks that the command ended with `code` and one line on stderr that holds all of `parts`.
pub fn assert_line(command: &mut Command, code: i32, parts: &[&str]) {
    let output = ended(command, "");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.starts_with("spanalloc: "), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    assert!(output.stdout.is_empty());
}

/// Compiles a program; nothing if there is no compiler, which is told, or fails if programs are
/// required.
pub fn compiled(place: &TempDir, source: &str, options: &[&str]) -> Option<PathBuf> {
    let program = place.path().join("program");
    fs::write(program.with_extension("c"), source).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(options).arg("-o").arg(&program).arg(program.with_extension("c"));
    let Ok(output) = compiler.output() else {
        assert!(std::env::var_os("SPANALLOC_REQUIRE_PROGRAMS").is_none(), "cc is not there");
        eprintln!("SKIPPED: cc is not there");
        return None;
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some(program)
}
