//! `spanalloc record`: what a program allocates is in the trace, and the program is itself.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{assert_line, compiled, ended, spanalloc, text};
use spanalloc_testkit::{Operation, Trace};
use tempfile::TempDir;

/// Sizes from here on are the program's own; what the C library allocates for itself is smaller.
const OWN: usize = 1_000_000;

/// `spanalloc record` in a directory of its own.
fn record(place: &TempDir, args: &[&str]) -> Command {
    let mut command = spanalloc();
    command.current_dir(place.path()).arg("record").args(args);
    command
}

fn trace(place: &Path) -> Trace {
    Trace::decode(&fs::read(place).unwrap()).unwrap()
}

/// What a trace says of the program's own objects, each named by the size it had first: what was done
/// to it, with which cache.
fn told(trace: &Trace) -> Vec<String> {
    let (mut live, mut cache, mut lines) = (Vec::<usize>::new(), 0, Vec::new());
    let mut tell = |name: usize, line: String| {
        if name >= OWN {
            lines.push(line);
        }
    };
    for operation in trace.operations() {
        match *operation {
            Operation::Alloc { size, align } => {
                tell(size, format!("{cache}: alloc {size} {align}"));
                live.push(size);
            }
            Operation::AllocZeroed { size, align } => {
                tell(size, format!("{cache}: zeroed {size} {align}"));
                live.push(size);
            }
            Operation::Realloc { index, size } => {
                tell(live[index as usize], format!("{cache}: realloc {size}"));
                live[index as usize] = size;
            }
            Operation::Free { index } => {
                let size = live.swap_remove(index as usize);
                tell(size, format!("{cache}: free {size}"));
            }
            Operation::Switch { cache: to } => cache = to,
            Operation::Restart { cache } => tell(OWN, format!("{cache}: end")),
            Operation::Advance { .. } => {}
            _ => panic!("{operation:?}"),
        }
    }
    lines
}

const SOURCE: &str = r#"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile from_thread;

static void *thread(void *arg) {
    from_thread = malloc(6000006);
    free(malloc(6000007));
    return arg;
}

int main(int argc, char **argv) {
    void *volatile a = malloc(1000001);
    a = realloc(a, 2000002);
    if (realloc(a, (size_t)-1 / 2) || malloc((size_t)-1 / 2) || calloc((size_t)-1 / 2, 3)) return 90;
    void *volatile z = calloc(3, 1000003), *p;
    for (int i = 0; i < 3000009; i++) if (((char *)z)[i]) return 91;
    if (posix_memalign(&p, 4096, 5000005) || (size_t)p % 4096) return 92;
    if (posix_memalign(&p, 3, 5000005) != 22) return 93;
    if (malloc_usable_size(p) < 5000005) return 94;
    pid_t child = fork();
    if (!child) {
        for (int i = 0; i < 100; i++) if (!malloc(7777777)) _exit(1);
        if (argc > 1 && !strcmp(argv[1], "exec")) execl("/bin/true", "true", NULL);
        _exit(5);
    }
    int status;
    waitpid(child, &status, 0);
    pthread_t other;
    pthread_create(&other, NULL, thread, NULL);
    pthread_join(other, NULL);
    free(from_thread);
    free(realloc(aligned_alloc(65536, 8000008), 9000009));
    free(z);
    if (argc > 1 && !strcmp(argv[1], "kill")) kill(getpid(), SIGKILL);
    if (argc > 1 && !strcmp(argv[1], "_exit")) _exit(7);
    return 7;
}
"#;

/// What a trace of the program tells.
const TOLD: [&str; 13] = [
    "0: alloc 1000001 16",
    "0: realloc 2000002",
    "0: zeroed 3000009 16",
    "0: alloc 5000005 4096",
    "1: alloc 6000006 16",
    "1: alloc 6000007 16",
    "1: free 6000007",
    "1: end",
    "0: free 6000006",
    "0: alloc 8000008 65536",
    "0: realloc 9000009",
    "0: free 9000009",
    "0: free 3000009",
];

#[test]
fn every_call_of_the_program_is_in_the_trace_however_it_ends() {
    let place = TempDir::new().unwrap();
    let Some(program) = compiled(&place, SOURCE, &["-pthread"]) else { return };
    let program = program.to_str().unwrap();
    for (how, code) in [("return", 7), ("_exit", 7), ("exec", 7), ("kill", 128 + libc::SIGKILL)] {
        let output = ended(&mut record(&place, &["--", program, how]), "");
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}");
        let said = line.starts_with("spanalloc: ") && line.contains(" operations of 2 threads, ");
        assert!(said && line.ends_with(" in spanalloc.trace\n"), "{line}");
        let trace = trace(&place.path().join("spanalloc.trace"));
        assert_eq!(trace.caches(), 2);
        let mut found = told(&trace);
        // The first thread ends with the process, which a return may tell.
        found.retain(|line| line != "0: end");
        assert_eq!(found, TOLD, "{how}");
    }
}

#[test]
fn the_program_that_a_program_becomes_is_recorded() {
    let place = TempDir::new().unwrap();
    let Some(program) = compiled(&place, SOURCE, &["-pthread"]) else { return };
    let script = format!("true; (exec {0}); exec {0}", program.display());
    let output = ended(&mut record(&place, &["-o", "a.trace", "--", "sh", "-c", &script]), "");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(told(&trace(&place.path().join("a.trace"))).len(), TOLD.len());
}

#[test]
fn input_and_output_are_the_programs() {
    let place = TempDir::new().unwrap();
    let input = "some lines\n".repeat(10_000);
    let args = ["--output", "sort.trace", "--", "sh", "-c", "sort -r | tail -n 1; echo told >&2"];
    let Output { status, stdout, stderr } = ended(&mut record(&place, &args), &input);
    assert!(status.success());
    assert_eq!(text(&stdout), "some lines\n");
    assert!(text(&stderr).starts_with("told\nspanalloc: "), "{}", text(&stderr));
}

#[test]
fn a_recording_ends_where_it_is_full() {
    let place = TempDir::new().unwrap();
    let output = ended(&mut record(&place, &["--most", "20", "--", "sort", "/dev/null"]), "");
    let line = text(&output.stderr);
    assert!(output.status.success() && line.contains(" more calls did not fit), "), "{line}");
    let trace = trace(&place.path().join("spanalloc.trace"));
    let calls = trace.operations().iter().filter(|it| !matches!(it, Operation::Advance { .. }));
    assert!((10..=20).contains(&calls.count()), "{trace:?}");
}

#[test]
fn what_cannot_be_recorded_is_named_and_leaves_no_file() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("no program");
    fs::write(&file, "text").unwrap();
    let file = file.to_str().unwrap();
    let mut missing = record(&place, &["no-such-program", "-x"]);
    assert_line(&mut missing, 127, &["no-such-program: command not found"]);
    assert_line(&mut record(&place, &[file]), 126, &["cannot run", file]);
    let parts = ["cannot write missing/a.trace: "];
    assert_line(&mut record(&place, &["-o", "missing/a.trace", "true"]), 1, &parts);
    assert!(!place.path().join("spanalloc.trace").exists());
    let Some(program) = compiled(&place, "int main(void) { return 3; }", &["-static"]) else {
        return;
    };
    let parts = ["cannot record", "it is statically linked"];
    assert_line(&mut record(&place, &[program.to_str().unwrap()]), 1, &parts);
    assert!(!place.path().join("spanalloc.trace").exists());
}

#[test]
fn a_program_that_never_allocates_has_no_trace() {
    let place = TempDir::new().unwrap();
    let Some(program) = compiled(&place, "int main(void) { return 0; }", &[]) else { return };
    let program = program.to_str().unwrap();
    assert_line(&mut record(&place, &[program]), 1, &["nothing was recorded", program]);
    assert!(!place.path().join("spanalloc.trace").exists());
}
