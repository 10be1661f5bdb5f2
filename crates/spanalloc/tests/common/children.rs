//! Processes of their own for a test: this test binary again, of which only the test `child` runs.
#![allow(dead_code, reason = "each test uses a part of this")]

use std::process::{Command, Stdio};

/// The environment variable that tells a child what to do.
pub const CHILD: &str = "SPANALLOC_TEST_CHILD";

/// What this process is to do, if it is a child.
pub fn job() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// A child that is to do what `name` says.
pub fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CHILD, name);
    command
}

/// Runs a child, which must end well, and shows what it said.
pub fn run(name: &str) {
    let output = child(name).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{name}: {text}");
    let well = output.status.success() && text.contains("1 passed");
    assert!(well, "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
}
