//! Child processes with a time limit. One that hangs is a failure, with the stacks of its threads.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a child ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The number that the child printed as `name=number`.
    pub fn figure(&self, name: &str) -> i64 {
        let found =
            self.out.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {self:?}")).parse().unwrap()
    }
}

/// Runs a child to its end, whatever that is; panics if it takes longer than `seconds`.
#[track_caller]
pub fn run(command: &mut Command, seconds: u64) -> Ended {
    let began = Instant::now();
    // Files rather than pipes: a grandchild that hangs holds no pipe open.
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > Duration::from_secs(seconds) {
            break None;
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let stacks = if status.is_none() { stacks(child.id()) } else { String::new() };
    // SAFETY: kill reads no memory; the group is the child's own, and ends with the child.
    unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
    let ended = Ended {
        status: status.unwrap_or_else(|| child.wait().unwrap()),
        out: text(&mut out),
        err: text(&mut err),
    };
    assert!(status.is_some(), "hangs: {ended:?}\n{command:?}\n{stacks}");
    ended
}

/// Runs a child that must end well.
#[track_caller]
pub fn passes(command: &mut Command, seconds: u64) -> Ended {
    let ended = run(command, seconds);
    assert!(ended.status.success(), "{ended:?}\n{command:?}");
    ended
}

fn text(file: &mut fs::File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The stacks of a process and its descendants, if gdb is there.
fn stacks(process: u32) -> String {
    let mut all = String::new();
    let mut processes = vec![process];
    while let Some(process) = processes.pop() {
        let stacks = Command::new("timeout")
            .args(["20", "gdb", "-batch", "-p", &process.to_string()])
            .args(["-ex", "thread apply all bt 40"])
            .output();
        match stacks {
            Ok(output) => {
                let _ =
                    write!(all, "process {process}:\n{}", String::from_utf8_lossy(&output.stdout));
            }
            Err(error) => {
                let _ = writeln!(all, "process {process}: no gdb, {error}");
            }
        }
        for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten()
        {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            processes
                .extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
    }
    all
}
