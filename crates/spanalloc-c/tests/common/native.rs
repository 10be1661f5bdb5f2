//! Programs and libraries of the C sources in `tests/c`, compiled into a directory of one test.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A directory with what is compiled for one test. It goes with the value.
pub struct Workshop {
    dir: TempDir,
}

impl Workshop {
    /// None if a C or C++ compiler is missing, which is said aloud; a failure where it must not be.
    pub fn open() -> Option<Self> {
        for compiler in ["cc", "c++"] {
            if Command::new(compiler).arg("--version").output().is_err() {
                skipped(&format!("there is no {compiler}"));
                return None;
            }
        }
        Some(Self { dir: tempfile::tempdir().unwrap() })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The program of a source.
    pub fn program<I: AsRef<OsStr>>(&self, source: &str, options: &[I]) -> PathBuf {
        self.compile(source, Path::new(source).with_extension(""), options)
    }

    /// The shared library of a source.
    pub fn library<I: AsRef<OsStr>>(&self, source: &str, options: &[I]) -> PathBuf {
        let mut all = vec![OsStr::new("-shared"), OsStr::new("-fPIC")];
        all.extend(options.iter().map(AsRef::as_ref));
        self.compile(source, Path::new(source).with_extension("so"), &all)
    }

    fn compile<I: AsRef<OsStr>>(&self, source: &str, name: PathBuf, options: &[I]) -> PathBuf {
        let made = self.path().join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source);
        let compiler = if source.extension() == Some(OsStr::new("cpp")) { "c++" } else { "cc" };
        let output = Command::new(compiler)
            .args(["-O1", "-g", "-fno-builtin", "-Wall", "-Wextra", "-pthread", "-o"])
            .arg(&made)
            .arg(source)
            .args(options)
            .arg("-ldl")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        made
    }
}

/// Says that a test was skipped; fails where no test may be (in CI).
#[track_caller]
pub fn skipped(reason: &str) {
    // The test harness keeps what is printed in tests that pass.
    std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes()).unwrap();
    assert!(std::env::var_os("SPANALLOC_REQUIRE_PROGRAMS").is_none(), "{reason}");
}

/// A command that runs under several libraries, in this order.
pub fn preloaded_with(program: &Path, libraries: &[&Path]) -> Command {
    let mut command = Command::new(program);
    let libraries: Vec<_> = libraries.iter().map(|path| path.to_str().unwrap()).collect();
    command.env("LD_PRELOAD", libraries.join(" "));
    command
}

/// `full` times; fewer where the library is a debug build.
pub fn times(full: u32, debug: u32) -> String {
    (if cfg!(debug_assertions) { debug } else { full }).to_string()
}

/// No options for the compiler.
pub const PLAIN: &[&str] = &[];
