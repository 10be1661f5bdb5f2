//! What the tests of the C library share.
#![allow(dead_code, reason = "each test uses a part of this")]

pub mod calls;
pub mod job;
pub mod limited;
pub mod mappings;
pub mod misuse;
pub mod native;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The shared library, as cargo built it for this test: beside the test itself.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test.with_file_name("libspanalloc_c.so");
    assert!(library.exists(), "{} is not there", library.display());
    library
}

/// The shared library as a user builds it for a release, whatever the profile of this test is.
pub fn released() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("released");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--locked", "--release", "-p", "spanalloc-c", "--target-dir"])
        .arg(&target);
    if cfg!(feature = "hardened") {
        command.args(["--features", "hardened"]);
    }
    // It is the build of a user, not of whoever runs this test.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let others = ["CARGO_PROFILE_", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_", "RUSTFLAGS"];
        if others.iter().any(|other| name.starts_with(other)) {
            command.env_remove(&*name);
        }
    }
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("release/libspanalloc_c.so")
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
