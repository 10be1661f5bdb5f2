//! The options of the environment, and the report of a process that exits.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::job::job;
use common::limited::{passes, run};
use common::native::{Workshop, skipped};
use common::{child as child_called, library, preloaded};

const LIMIT: u64 = 20;

/// A shell script under the library.
fn shell(script: &str) -> Command {
    let mut command = preloaded("/bin/sh");
    command.args(["-c", script]);
    command
}

/// The reports in a text: the lines with which each begins.
fn titles(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("spanalloc: heap of ")).collect()
}

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    let Some(name) = job() else { return };
    match name.as_str() {
        "exits" => {}
        // The report is for the place where the process began.
        "goes away" => std::env::set_current_dir("/").unwrap(),
        "writes over its environment" => {
            unsafe extern "C" {
                static environ: *const *mut libc::c_char;
            }
            // SAFETY: the strings are this process's own, and nobody else reads them now.
            unsafe {
                let mut next = environ;
                while !(*next).is_null() {
                    libc::memset((*next).cast(), i32::from(b'x'), libc::strlen(*next));
                    next = next.add(1);
                }
            }
        }
        // As coreutils do, to find out whether all was written.
        "closes standard error" => {
            // SAFETY: nothing uses standard error any more.
            assert_eq!(unsafe { libc::close(libc::STDERR_FILENO) }, 0);
        }
        "puts a file in all places" => {
            let victim = fs::File::create(std::env::var_os("SPANALLOC_TEST_VICTIM").unwrap());
            let victim = victim.unwrap();
            for place in (2..1000).filter(|place| *place != victim.as_raw_fd()) {
                // SAFETY: nothing uses the other files of this process any more.
                unsafe { libc::dup2(victim.as_raw_fd(), place) };
            }
            // SAFETY: ends the process as `exit` does, without the test's own words.
            unsafe { libc::exit(0) };
        }
        "exits in a thread" => {
            std::thread::spawn(|| std::process::exit(0)).join().unwrap();
        }
        other => panic!("{other}"),
    }
}

#[test]
fn without_options_nothing_is_said() {
    let ended = passes(&mut child_called("exits"), LIMIT);
    assert_eq!(ended.err, "");
}

#[test]
fn a_wrong_option_gets_one_line_and_is_ignored() {
    for (name, value, complaint) in [
        ("SPANALLOC_CHECK", "maybe", "SPANALLOC_CHECK=maybe is not 0 or 1"),
        ("SPANALLOC_STATS", "yes", "SPANALLOC_STATS=yes is not 0 or 1"),
        ("SPANALLOC_MAP", "", "SPANALLOC_MAP= is not 0 or 1"),
        ("SPANALLOC_BACKGROUND", "on", "SPANALLOC_BACKGROUND=on is not 0 or 1"),
        ("SPANALLOC_HUGE_PAGES", "", "SPANALLOC_HUGE_PAGES= is not off, advise or always"),
        (
            "SPANALLOC_THREAD_CACHE",
            "0",
            "SPANALLOC_THREAD_CACHE=0 is not a size, such as 500000, 64k or 2GiB",
        ),
        ("SPANALLOC_REPORT", "", "SPANALLOC_REPORT= is not the name of a file"),
        ("SPANALLOC_REPORT_PID", "x", "SPANALLOC_REPORT_PID=x is not the number of a process"),
        (
            "SPANALLOC_SOFT_LIMIT",
            "2GB",
            "SPANALLOC_SOFT_LIMIT=2GB is not a size, such as 500000, 64k or 2GiB, or cgroup, or cgroup:75%",
        ),
        (
            "SPANALLOC_HARD_LIMIT",
            "0",
            "SPANALLOC_HARD_LIMIT=0 is not a size, such as 500000, 64k or 2GiB, or cgroup, or cgroup:75%",
        ),
        ("SPANALLOC_CHEK", "1", "SPANALLOC_CHEK is not an option"),
    ] {
        let ended = passes(preloaded("/bin/true").env(name, value), LIMIT);
        assert_eq!(ended.err, format!("spanalloc: {complaint}; ignored\n"));
    }
    let mut command = preloaded("/bin/true");
    command.env("SPANALLOC_REQUIRE_PROGRAMS", "1").env("SPANALLOC_DEMO_ALLOCATOR", "x");
    assert_eq!(passes(&mut command, LIMIT).err, "");
}

#[test]
fn programs_run_with_every_choice() {
    for huge in ["off", "advise", "always"] {
        for most in ["1", "64k", "1MiB", "1g"] {
            let mut command = preloaded("/bin/sh");
            command.env("SPANALLOC_HUGE_PAGES", huge).env("SPANALLOC_THREAD_CACHE", most);
            let ended = passes(command.args(["-c", "ls / | sort | wc -l"]), LIMIT);
            assert!(ended.err.is_empty() && !ended.out.is_empty(), "{huge}, {most}: {ended:?}");
        }
    }
}

#[test]
fn limits_are_sizes_and_hold_from_the_start() {
    for size in ["1073741824", "1048576k", "1024m", "1g", "1G", "1024MiB", "1GiB"] {
        let mut command = preloaded("/bin/ls");
        command.env("SPANALLOC_SOFT_LIMIT", size).env("SPANALLOC_HARD_LIMIT", size);
        let ended = passes(command.arg("/"), LIMIT);
        assert!(ended.err.is_empty() && ended.out.contains("usr"), "{size}: {ended:?}");
    }
    // A program that finds no memory says so, in its own words.
    let mut command = preloaded("/usr/bin/perl");
    command.args(["-e", r#"my $x = "a" x $ARGV[0]; print length $x;"#, "30000000"]);
    assert_eq!(passes(&mut command, LIMIT).out, "30000000");
    let ended = run(command.env("SPANALLOC_HARD_LIMIT", "16MiB"), LIMIT);
    assert!(ended.status.code().is_some_and(|code| code != 0), "{ended:?}");
    assert!(ended.out.is_empty() && !ended.err.contains("spanalloc"), "{ended:?}");
}

#[test]
fn the_heap_is_described_at_exit_however_that_comes() {
    for name in ["exits", "exits in a thread", "closes standard error", "goes away"] {
        let ended = passes(child_called(name).env("SPANALLOC_STATS", "1"), LIMIT);
        assert_eq!(titles(&ended.err).len(), 1, "{name}: {ended:?}");
        assert!(ended.err.ends_with(" beside the arenas\n"), "{name}: {ended:?}");
        assert!(ended.err.contains(" size classes, "), "{name}: {ended:?}");
    }
    let mut command = child_called("exits");
    let ended = passes(command.env("SPANALLOC_STATS", "1").env("SPANALLOC_MAP", "1"), LIMIT);
    assert_eq!(titles(&ended.err).len(), 1, "{ended:?}");
    let map = ended.err.split_once(" `- map ").unwrap().1;
    assert!(map.lines().count() > 2, "{map}");
    assert!(map.lines().skip(2).all(|line| line.starts_with("     0x")), "{map}");
    let ended = passes(child_called("exits").env("SPANALLOC_STATS", "0"), LIMIT);
    assert_eq!(ended.err, "");
}

#[test]
fn the_report_goes_to_the_file_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    let mut expected = 0;
    for (name, path) in [
        ("exits", file.as_path()),
        ("goes away", Path::new("report")),
        ("writes over its environment", &file),
        ("closes standard error", &file),
    ] {
        let mut command = child_called(name);
        command.current_dir(&dir).env("SPANALLOC_STATS", "1").env("SPANALLOC_REPORT", path);
        let ended = passes(&mut command, LIMIT);
        assert_eq!(ended.err, "", "{name}");
        expected += 1;
        assert_eq!(titles(&fs::read_to_string(&file).unwrap()).len(), expected, "{name}");
    }
    let nowhere = dir.path().join("nowhere/report");
    let mut command = child_called("exits");
    command.env("SPANALLOC_STATS", "1").env("SPANALLOC_REPORT", &nowhere);
    let line = format!("spanalloc: cannot write the report to {}\n", nowhere.display());
    assert_eq!(passes(&mut command, LIMIT).err, line);
}

#[test]
fn reports_of_many_processes_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    let script = "for i in 1 2 3 4 5 6 7 8; do /bin/ls / >/dev/null & done; wait";
    let mut command = shell(script);
    passes(command.env("SPANALLOC_STATS", "1").env("SPANALLOC_REPORT", &file), LIMIT);
    let text = fs::read_to_string(&file).unwrap();
    let reports: Vec<_> = text.split_inclusive(" beside the arenas\n").collect();
    assert!(reports.len() >= 8, "{text}");
    for report in reports {
        assert!(report.starts_with("spanalloc: heap of "), "{report}");
        assert_eq!(titles(report).len(), 1, "{report}");
    }
}

#[test]
fn only_the_process_that_is_named_reports() {
    let script = "export SPANALLOC_REPORT_PID=$$; /bin/ls /; exec /bin/ls /";
    let ended = passes(shell(script).env("SPANALLOC_STATS", "1"), LIMIT);
    assert_eq!(titles(&ended.err).len(), 1, "{ended:?}");
    assert!(titles(&ended.err)[0].starts_with("spanalloc: heap of ls "), "{ended:?}");
    let mut command = child_called("exits");
    let ended = passes(command.env("SPANALLOC_STATS", "1").env("SPANALLOC_REPORT_PID", "1"), LIMIT);
    assert_eq!(ended.err, "");
}

#[test]
fn a_report_never_goes_into_a_file_of_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    let mut command = child_called("puts a file in all places");
    command.env("SPANALLOC_STATS", "1").env("SPANALLOC_TEST_VICTIM", &victim);
    // Standard error is that file now, so what goes to standard error goes into it, and nothing else.
    let ended = passes(&mut command, LIMIT);
    assert_eq!(titles(&ended.err).len(), 0, "{ended:?}");
    assert_eq!(titles(&fs::read_to_string(&victim).unwrap()).len(), 1);
}

#[test]
fn nobody_who_reads_the_report_does_not_change_how_the_process_ends() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = preloaded("/bin/true");
    command.env("SPANALLOC_STATS", "1").stderr(writer).stdin(Stdio::null());
    assert!(command.status().unwrap().success());
}

#[test]
fn a_privileged_process_has_no_options() {
    let Some(workshop) = Workshop::open() else { return };
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return skipped("only root can make a program that runs with the rights of another user");
    }
    // Where everybody may read: the library is loaded from there.
    fs::set_permissions(workshop.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = workshop.path().join("libspanalloc_c.so");
    fs::copy(library(), &copy).unwrap();
    let include = format!("-I{}/include", env!("CARGO_MANIFEST_DIR"));
    let here = workshop.path().display();
    let options = [include, format!("-L{here}"), format!("-Wl,-rpath,{here}")];
    let options: Vec<_> = options.iter().map(String::as_str).chain(["-lspanalloc_c"]).collect();
    let program = workshop.program("privileged.c", &options);
    let run = |mode: u32| {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(&program);
        command.uid(65_534).gid(65_534).current_dir("/");
        command.env("SPANALLOC_STATS", "1").env("SPANALLOC_CHECK", "maybe");
        passes(&mut command, LIMIT)
    };
    let plain = run(0o755);
    assert!(plain.out.starts_with("privileged=0 "), "{plain:?}");
    assert_eq!(titles(&plain.err).len(), 1, "{plain:?}");
    assert!(plain.err.starts_with("spanalloc: SPANALLOC_CHECK=maybe is not"), "{plain:?}");
    let privileged = run(0o4755);
    if privileged.out.starts_with("privileged=0 ") {
        return skipped("programs with the rights of another user are not run as such here");
    }
    assert!(privileged.out.starts_with("privileged=1 "), "{privileged:?}");
    assert_eq!(privileged.err, "");
}
