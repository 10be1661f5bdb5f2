//! `spanalloc run`: the program is itself, but for its malloc.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{assert_line, compiled, ended, spanalloc, text};
use tempfile::TempDir;

const LIBRARY: &str = "libspanalloc_c.so";

/// The library that cargo built with the command.
fn library() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_spanalloc")).with_file_name("deps").join(LIBRARY)
}

/// `spanalloc run` with these arguments.
fn run(args: &[&str]) -> Command {
    let mut command = spanalloc();
    command.arg("run").args(args);
    command
}

/// The output of a program that must succeed and say nothing.
fn answer(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = ended(command, "");
    assert!(status.success(), "{status}: {}", text(&stderr));
    assert_eq!(text(&stderr), "");
    text(&stdout)
}

#[test]
fn the_exit_is_the_programs() {
    for code in [0, 1, 7, 255] {
        let output = ended(&mut run(&["--", "sh", "-c", &format!("exit {code}")]), "");
        assert_eq!(output.status.code(), Some(code));
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    }
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGABRT] {
        let output = ended(&mut run(&["--", "sh", "-c", &format!("kill -{signal} $$")]), "");
        assert_eq!(output.status.signal(), Some(signal));
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn input_and_output_are_the_programs() {
    let input = "some lines\n".repeat(10_000);
    let output = ended(&mut run(&["--", "sh", "-c", "tail -n 1; echo told >&2"]), &input);
    assert_eq!(text(&output.stdout), "some lines\n");
    assert_eq!(text(&output.stderr), "told\n");
    // What looks like an option of the command is the program's after its name.
    assert_eq!(answer(&mut run(&["printf", "%s.", "--stats", "--", "-h"])), "--stats.--.-h.");
}

#[test]
fn the_program_and_what_it_starts_have_the_library() {
    let maps = answer(&mut run(&["sh", "-c", "cat /proc/$$/maps; echo; cat /proc/self/maps; :"]));
    let library = library();
    for process in maps.split("\n\n") {
        assert!(process.contains(library.to_str().unwrap()), "{process}");
    }
    assert_eq!(maps.split("\n\n").count(), 2, "{maps}");
}

// The process that reports is told by its number, which the program keeps.
#[test]
fn options_become_the_environment() {
    let place = TempDir::new().unwrap();
    let report = place.path().canonicalize().unwrap().join("report");
    let set_with = |inherited: &[(&str, &str)], options: &[&str]| {
        let mut command = run(options);
        command.args(["--", "sh", "-c", "echo pid=$$; env"]).current_dir(place.path());
        command.envs(inherited.iter().copied());
        // What the program reports is not looked at here.
        let output = text(&ended(&mut command, "").stdout);
        let id = output.lines().find_map(|line| line.strip_prefix("pid=")).unwrap().to_owned();
        let mut lines: Vec<_> = output.lines().filter(|it| it.starts_with("SPANALLOC_")).collect();
        lines.sort_unstable();
        lines.join(" ").replace(&format!("PID={id}"), "PID=own")
    };
    let set = |options: &[&str]| set_with(&[], options);
    assert_eq!(set(&[]), "");
    assert_eq!(set(&["--no-check"]), "SPANALLOC_CHECK=0");
    assert_eq!(set(&["--stats"]), "SPANALLOC_REPORT_PID=own SPANALLOC_STATS=1");
    assert_eq!(set(&["--map"]), "SPANALLOC_MAP=1 SPANALLOC_REPORT_PID=own");
    let file = format!("SPANALLOC_REPORT={}", report.display());
    let expected = format!("{file} SPANALLOC_REPORT_PID=own SPANALLOC_STATS=1");
    assert_eq!(set(&["--report", "report"]), expected);
    let expected = format!("SPANALLOC_MAP=1 {file} SPANALLOC_REPORT_PID=own");
    assert_eq!(set(&["--map", "--report", "./report"]), expected);
    // An outer run asked for something else.
    let outer =
        [("SPANALLOC_REPORT", "outer"), ("SPANALLOC_MAP", "1"), ("SPANALLOC_REPORT_PID", "1")];
    assert_eq!(set_with(&outer, &["--stats"]), set(&["--stats"]));
    assert_eq!(
        set_with(&outer, &[]),
        "SPANALLOC_MAP=1 SPANALLOC_REPORT=outer SPANALLOC_REPORT_PID=1"
    );
}

// Both programs exit with C's `exit`, which the library reports at; some shells do not.
#[test]
fn the_report_is_of_the_program_alone() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("report"), "of an earlier run").unwrap();
    let args = ["--report", "report", "--", "env", "--chdir=/", "sort", "/proc/self/status"];
    answer(run(&args).current_dir(place.path()));
    let report = fs::read_to_string(place.path().join("report")).unwrap();
    assert!(report.starts_with("spanalloc: heap of sort "), "{report}");
    assert!(report.contains(" |- arenas ") && !report.contains(" `- map "), "{report}");

    // What the program starts does not report.
    let args =
        ["--report", "report", "--", "find", ".", "-maxdepth", "0", "-exec", "cat", "{}/report"];
    answer(run(&args).arg(";").current_dir(place.path()));
    let report = fs::read_to_string(place.path().join("report")).unwrap();
    assert!(report.starts_with("spanalloc: heap of find "), "{report}");
    assert_eq!(report.matches("heap of").count(), 1, "{report}");

    let output = ended(&mut run(&["--map", "--", "env", "--", "cat"]), "some input");
    let report = text(&output.stderr);
    assert_eq!(text(&output.stdout), "some input");
    assert!(
        report.starts_with("spanalloc: heap of cat ") && report.contains(" `- map "),
        "{report}"
    );
}

#[test]
fn what_is_preloaded_already_comes_after_the_library() {
    let mut command = run(&["sh", "-c", "echo $LD_PRELOAD"]);
    command.env("LD_PRELOAD", "libm.so.6");
    assert_eq!(answer(&mut command).trim(), format!("{}:libm.so.6", library().display()));
    // The command itself under the library, and asked for reports, stays silent.
    command.env("LD_PRELOAD", library()).env("SPANALLOC_STATS", "1");
    command.env("SPANALLOC_REPORT_PID", "1");
    assert_eq!(answer(&mut command).trim(), library().display().to_string());
}

#[test]
fn what_cannot_be_run_is_named() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("no program");
    fs::write(&file, "text").unwrap();
    let file = file.to_str().unwrap();
    assert_line(&mut run(&["no-such-program", "-x"]), 127, &["no-such-program", "not found"]);
    assert_line(&mut run(&["./no-such-program"]), 127, &["./no-such-program", "not found"]);
    assert_line(&mut run(&[file]), 126, &["cannot run", file]);
    assert_line(&mut run(&["/"]), 126, &["cannot run /"]);
    let mut command = run(&["--report", "missing/report", "true"]);
    assert_line(command.current_dir(place.path()), 1, &["cannot write", "missing/report"]);
}

/// Copies what will be run. Not by this process: what another test starts at this moment would have the file open for
/// writing, too, until it is a program of its own, and nobody can run such a file.
fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let copied = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status().unwrap();
    assert!(copied.success());
}

#[test]
fn the_library_is_found_in_an_installed_tree_or_missed() {
    let place = TempDir::new().unwrap();
    let installed = |name: &str| {
        let bin = place.path().join(name).join("bin");
        fs::create_dir_all(&bin).unwrap();
        copy_program(env!("CARGO_BIN_EXE_spanalloc"), bin.join("spanalloc"));
        let mut command = Command::new(bin.join("spanalloc"));
        command.args(["run", "--", "cat", "/proc/self/maps"]);
        (bin, command)
    };
    let (bin, mut command) = installed("tree");
    let parts = ["bin/deps/libspanalloc_c.so", "bin/libspanalloc_c.so", "lib/libspanalloc_c.so"];
    assert_line(&mut command, 1, &parts);
    for directory in ["../lib", ".", "deps"] {
        fs::create_dir_all(bin.join(directory)).unwrap();
        let library = bin.join(directory).canonicalize().unwrap().join(LIBRARY);
        fs::copy(self::library(), &library).unwrap();
        assert!(answer(&mut command).contains(library.to_str().unwrap()), "{directory}");
    }

    let (bin, mut command) = installed("a space");
    fs::copy(library(), bin.join(LIBRARY)).unwrap();
    assert_line(&mut command, 1, &["LD_PRELOAD cannot hold", "a space/bin"]);
}

#[test]
fn a_wrong_free_ends_the_program_unless_it_is_trusted() {
    let place = TempDir::new().unwrap();
    let source = "#include <stdlib.h>
        int main(void) { void *volatile object = malloc(50); free(object); free(object); return 5; }";
    let Some(program) = compiled(&place, source, &[]) else { return };
    let program = program.to_str().unwrap();
    let output = ended(&mut run(&[program]), "");
    let line = text(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{line}");
    assert!(line.starts_with("spanalloc: double free of 0x"), "{line}");
    assert!(line.ends_with(" (class 64)\n") && line.lines().count() == 1, "{line}");
    let output = ended(&mut run(&["--no-check", program]), "");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(5), String::new()));
}

#[test]
fn a_static_program_runs_and_is_noticed() {
    let place = TempDir::new().unwrap();
    let Some(program) = compiled(&place, "int main(void) { return 3; }", &["-static"]) else {
        return;
    };
    let (script, text) = (place.path().join("script"), place.path().join("text"));
    fs::write(&text, format!("#!{} -x\n", program.display())).unwrap();
    copy_program(text, &script);
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    for file in [&program, &script] {
        let parts = [program.to_str().unwrap(), "is statically linked"];
        assert_line(&mut run(&[file.to_str().unwrap()]), 3, &parts);
    }
    // As it is called by its name alone.
    let mut command = run(&["program"]);
    assert_line(command.env("PATH", place.path()), 3, &["/program is statically linked"]);
}

#[test]
fn a_setuid_program_runs_and_is_noticed() {
    let place = TempDir::new().unwrap();
    let program = place.path().join("cat");
    copy_program("/bin/cat", &program);
    // SAFETY: reads a number of this process.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED: only root makes a program that runs as another user");
        return;
    }
    chown(&program, Some(65534), None).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    let output = ended(&mut run(&[program.to_str().unwrap(), "/proc/self/maps"]), "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("is setuid or setgid"), "{}", text(&output.stderr));
    assert!(!text(&output.stdout).contains(LIBRARY), "it was loaded");
}
