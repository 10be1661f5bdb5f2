//! Git, on a repository of hundreds of commits that is made here.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::program::{BOTH, Malloc, Numbers, answer, command, find, is_served, place};

const COMMITS: usize = 400;
const FILES: usize = 120;

/// Git in the directory, with names, dates and settings that depend on nothing else.
fn git(git: &Path, home: &Path, malloc: Malloc, args: &[&str]) -> Command {
    let mut command = command(git, home, malloc);
    command.envs([
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "A"),
        ("GIT_AUTHOR_EMAIL", "a@example.org"),
        ("GIT_AUTHOR_DATE", "1700000000 +0000"),
        ("GIT_COMMITTER_NAME", "C"),
        ("GIT_COMMITTER_EMAIL", "c@example.org"),
        ("GIT_COMMITTER_DATE", "1700000000 +0000"),
    ]);
    command.args(args);
    command
}

/// The history as `git fast-import` reads it: each commit changes a line in some files.
fn history() -> String {
    let mut numbers = Numbers::new();
    let mut files: Vec<Vec<String>> = (0..FILES)
        .map(|file| (0..60).map(|line| format!("file {file} line {line} needle")).collect())
        .collect();
    let mut stream = String::new();
    for commit in 0..COMMITS {
        let (author, time) = (commit % 7, 1_600_000_000 + 60 * commit);
        let message = format!("Change {commit}\n\nBecause of {}.\n", numbers.below(1000));
        write!(
            stream,
            "commit refs/heads/main\nauthor A{author} <a{author}@example.org> {time} +0000\n\
             committer C <c@example.org> {time} +0000\ndata {}\n{message}",
            message.len()
        )
        .unwrap();
        let changed: Vec<usize> = match commit {
            0 => (0..FILES).collect(),
            _ => (0..4).map(|_| numbers.below(FILES)).collect(),
        };
        for file in changed {
            let line = numbers.below(60);
            files[file][line] = format!("file {file} line {line} of commit {commit}");
            let text = files[file].join("\n") + "\n";
            let bytes = text.len();
            write!(stream, "M 100644 inline dir{}/file{file}\ndata {bytes}\n{text}", file % 9)
                .unwrap();
        }
    }
    stream
}

/// Makes the repository and asks it everything; what it says.
fn life_of_a_repository(program: &Path, malloc: Malloc) -> String {
    let home = place();
    let home = home.path();
    let git = |args: &[&str]| answer(&mut git(program, home, malloc, args));
    git(&["init", "-q", "-b", "main"]);
    fs::write(home.join(".git/history"), history()).unwrap();
    let mut import = self::git(program, home, malloc, &["fast-import", "--quiet"]);
    answer(import.stdin(File::open(home.join(".git/history")).unwrap()));
    git(&["reset", "-q", "--hard"]);
    for commit in 0..8 {
        fs::write(home.join(format!("new{commit}")), format!("{commit}\n").repeat(5000)).unwrap();
        git(&["add", "-A"]);
        git(&["commit", "-q", "-m", &format!("By hand {commit}")]);
    }
    git(&["checkout", "-q", "-b", "side", "HEAD~20"]);
    fs::write(home.join("aside"), "aside\n").unwrap();
    git(&["add", "aside"]);
    git(&["commit", "-q", "-m", "Aside"]);
    git(&["checkout", "-q", "main"]);
    git(&["merge", "-q", "--no-edit", "side"]);
    let before = git(&["rev-parse", "HEAD"]);
    // Starts processes, and threads that search for deltas.
    git(&["-c", "pack.threads=4", "gc", "-q", "--prune=now"]);
    assert_eq!(git(&["rev-parse", "HEAD"]), before);
    // With the threads more than the files of one commit need.
    [
        git(&["log", "--format=%H %an %s", "--graph", "--stat"]),
        git(&["log", "-p", "-M", "--reverse", "-60"]),
        git(&["fsck", "--full", "--strict"]),
        git(&["blame", "dir1/file10"]),
        git(&["blame", "-w", "-C", "dir3/file3"]),
        git(&["-c", "grep.threads=4", "grep", "-n", "-E", "line 7 (needle|of commit [0-9]+)"]),
        git(&["cat-file", "--batch-all-objects", "--batch-check"]),
        git(&["rev-list", "--objects", "--all"]),
        git(&["diff", "--stat", "HEAD~100", "HEAD"]),
        git(&["shortlog", "-s", "-n", "HEAD"]),
        git(&["status", "--porcelain"]),
        git(&["rev-list", "--count", "HEAD"]),
    ]
    .join("--\n")
}

#[test]
fn a_repository_lives_the_same_life() {
    let Some(program) = find("git") else { return };
    let [ours, theirs] = BOTH.map(|malloc| life_of_a_repository(&program, malloc));
    assert!(ours == theirs, "the output differs");
    assert!(ours.ends_with(&format!("--\n{}\n", COMMITS + 8 + 2)), "the number of commits");
    assert!(ours.len() > 500_000, "{} bytes of output", ours.len());
}

#[test]
fn git_is_served() {
    let Some(program) = find("git") else { return };
    let home = place();
    let mut command = git(&program, home.path(), Malloc::Spanalloc, &["init", "-q"]);
    is_served(&mut command, &["git"]);
}
