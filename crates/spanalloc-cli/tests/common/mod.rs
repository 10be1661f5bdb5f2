//! What the tests of the command share.
#![allow(dead_code, reason = "each test uses a part of this")]

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

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
    let mut child = command.spawn().unwrap();
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
