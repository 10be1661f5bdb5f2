//! What the tests of the C library share.
#![allow(dead_code, reason = "each test uses a part of this")]

pub mod calls;
pub mod job;
pub mod mappings;
pub mod misuse;

use std::path::PathBuf;
use std::process::Command;

/// The shared library, as cargo built it for this test: beside the test itself.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test.with_file_name("libspanalloc_c.so");
    assert!(library.exists(), "{} is not there", library.display());
    library
}

/// A command that runs under the library.
pub fn preloaded(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library());
    command
}

/// This test binary again, under the library, as the child called `name`: what the test function
/// `child` finds in the environment variable [`CHILD`].
pub fn child(name: &str) -> Command {
    let mut command = preloaded(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CHILD, name);
    command
}

/// The environment variable that names what a child process does.
pub const CHILD: &str = "SPANALLOC_TEST_CHILD";

pub mod limited;
pub mod native;
