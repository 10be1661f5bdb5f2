//! Programs of the system: found, run under the library or without it, in a bounded time.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common;

/// How long a program may run; a library without optimisation is several times slower than one with.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Whose `malloc` a program runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malloc {
    Spanalloc,
    System,
}

pub const BOTH: [Malloc; 2] = [Malloc::Spanalloc, Malloc::System];

/// A directory for the files of a test, removed at its end.
pub fn place() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("spanalloc-").tempdir().unwrap()
}

/// Where the program is; nothing if the system has none, which is told, or fails if programs are
/// required.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var_os("SPANALLOC_REQUIRE_PROGRAMS").is_some();
        assert!(!required, "{name} is required and is not on this system");
        // Not by a macro, whose output the test harness keeps to itself.
        let told = format!("SKIPPED: {name} is not on this system\n");
        std::io::stderr().write_all(told.as_bytes()).unwrap();
    }
    found
}

/// The program in the directory `home`, with no environment but the one that is set here.
pub fn command(program: impl AsRef<OsStr>, home: &Path, malloc: Malloc) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    if malloc == Malloc::Spanalloc {
        command.env("LD_PRELOAD", common::library());
    }
    command
        .envs([("LC_ALL", "C"), ("TZ", "UTC")])
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("TMPDIR", home)
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// How a program ended, and what it wrote.
pub struct Ended {
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub err: String,
}

/// Runs the program to its end, or kills it at the limit, with all it started.
pub fn run(command: &mut Command) -> Ended {
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = command.process_group(0).spawn().unwrap();
    let status = wait(&mut child, LIMIT);
    let err = String::from_utf8_lossy(&written(&mut err)).into_owned();
    let Some(status) = status else {
        kill_group(&child);
        panic!("still runs after {LIMIT:?}: {command:?}, {err}");
    };
    Ended { status, out: written(&mut out), err }
}

/// What a program wrote to this file.
fn written(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Waits for the end of the child; nothing if it does not come in time.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        let status = child.try_wait().unwrap();
        if status.is_some() || began.elapsed() > limit {
            return status;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills the child, which leads a group of processes, and that group.
pub fn kill_group(child: &Child) {
    let group = i32::try_from(child.id()).unwrap();
    // SAFETY: a system call without pointers.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}

/// The standard output of a program that must succeed, and about which the library says nothing.
pub fn answer(command: &mut Command) -> String {
    let ended = run(command);
    assert!(ended.status.success(), "{}: {command:?}, {}", ended.status, ended.err);
    is_silent(&ended.err);
    String::from_utf8(ended.out).unwrap()
}

/// Nothing on this standard error is from the library.
pub fn is_silent(err: &str) {
    assert!(!err.lines().any(|line| line.starts_with("spanalloc:")), "{err}");
}

/// Runs the program under the library and without it, as `prepare` says; its output is the same.
pub fn same_answer(
    program: impl AsRef<OsStr>,
    home: &Path,
    mut prepare: impl FnMut(&mut Command) -> &mut Command,
) -> String {
    let [ours, theirs] = BOTH.map(|malloc| answer(prepare(&mut command(&program, home, malloc))));
    assert!(ours == theirs, "{:?}: {}", program.as_ref(), difference(&ours, &theirs));
    ours
}

/// The first lines that differ.
fn difference(ours: &str, theirs: &str) -> String {
    let mut pairs = ours.lines().zip(theirs.lines()).enumerate();
    match pairs.find(|(_, (ours, theirs))| ours != theirs) {
        Some((line, (ours, theirs))) => format!("line {line}: {ours:?} instead of {theirs:?}"),
        None => format!("{} bytes instead of {}", ours.len(), theirs.len()),
    }
}

/// The names that allocate and free: all of them are the library's, or two heaps are mixed.
const ALLOCATOR: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "free",
    "cfree",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "valloc",
    "pvalloc",
    "malloc_usable_size",
    "malloc_trim",
    "mallinfo",
    "mallinfo2",
    "_Znwm",
    "_Znam",
    "_ZnwmRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdlPvSt11align_val_t",
];

/// Runs the program under the library and proves, by the dynamic linker's own account, that in each
/// of its processes every name of [`ALLOCATOR`] is the library's, and that each of `users`, the names
/// of executables or of libraries in these processes, uses `malloc` or `free`.
pub fn is_served(command: &mut Command, users: &[&str]) {
    let report = place();
    command.env("LD_BIND_NOW", "1").env("LD_DEBUG", "bindings");
    answer(command.env("LD_DEBUG_OUTPUT", report.path().join("process")));
    let mut served = BTreeSet::new();
    for process in fs::read_dir(report.path()).unwrap() {
        let lines = fs::read(process.unwrap().path()).unwrap();
        let lines = String::from_utf8_lossy(&lines);
        let ours = |file: &str| file.ends_with("/libspanalloc_c.so");
        let bindings: BTreeSet<_> = lines.lines().filter_map(binding).collect();
        for &(user, provider, name) in bindings.iter().filter(|(.., name)| ALLOCATOR.contains(name))
        {
            // An executable that takes a function's address may lend the others its own entry of it,
            // and may bring operators that call `malloc`.
            let lent = || bindings.iter().any(|&(u, p, n)| u == provider && n == name && ours(p));
            let lent = || lent() || name.starts_with("_Z") && !provider.contains(".so");
            assert!(ours(provider) || lent(), "{command:?}: {user} has {name} of {provider}");
            if name == "malloc" || name == "free" {
                served.insert(user.rsplit('/').next().unwrap_or(user).to_owned());
            }
        }
    }
    for user in users {
        assert!(served.iter().any(|name| name.starts_with(user)), "{user} is not in {served:?}");
    }
}

/// The parts of "binding file USER [0] to PROVIDER [0]: normal symbol `NAME'".
fn binding(line: &str) -> Option<(&str, &str, &str)> {
    let (user, rest) = line.split_once("binding file ")?.1.split_once(" [0] to ")?;
    let (provider, rest) = rest.split_once(" [0]: normal symbol `")?;
    Some((user, provider, rest.split_once('\'')?.0))
}

/// Numbers that look random and are the same in every run.
pub struct Numbers(u64);

impl Numbers {
    pub fn new() -> Self {
        Self(1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}
