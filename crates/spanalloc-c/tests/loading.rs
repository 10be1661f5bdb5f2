//! How the library comes into a process: late, beside others, linked in; and what runs at the exit.
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
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use common::limited::{Ended, passes, run};
use common::native::{PLAIN, Workshop, preloaded_with, skipped, times};

/// Compiled so that calls go through a table that is filled before functions are chosen.
const NO_PLT: &[&str] = &["-fno-plt"];

#[test]
fn late_with_1600_bytes_of_static_tls_taken_and_it_stays() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("late.c", PLAIN);
    let tls = workshop.library("late_tls.c", PLAIN);
    passes(Command::new(program).arg(tls).arg(common::library()), 30);
}

#[test]
fn modules_with_thread_locals_come_and_go() {
    const MODULES: usize = 40;
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("modules.c", PLAIN);
    let module = workshop.library("module.c", PLAIN);
    for number in 0..MODULES {
        fs::copy(&module, workshop.path().join(format!("module{number}.so"))).unwrap();
    }
    let arguments = [&MODULES.to_string(), &times(20, 20)];
    passes(common::preloaded(program).arg(workshop.path()).args(arguments), 90);
}

/// Runs an ordinary program under our library and another one, which says its name at the end. The
/// system relocates the last library of such a list first.
#[track_caller]
fn beside(name: &str, ours: &Path) {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("program.c", PLAIN);
    let other = workshop.library(&format!("{name}.c"), NO_PLT);
    for order in [[ours, &other], [&other, ours]] {
        let ended = passes(&mut preloaded_with(&program, &order), 30);
        assert_eq!(ended.out, format!("program {name} "), "{order:?}");
    }
}

#[test]
fn beside_a_library_whose_constructor_allocates() {
    beside("constructor", &common::library());
}

/// Ours is called before it is relocated if it is the first. That is for release builds: others call
/// even the smallest functions through a table that is empty then.
#[test]
fn beside_a_library_that_allocates_while_it_is_relocated() {
    beside("resolver", &common::released());
}

#[test]
fn beside_a_library_that_wraps_mmap() {
    beside("wrapper", &common::library());
}

#[test]
fn objects_and_functions_at_the_exit() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("exit.cpp", PLAIN);
    for _ in 0..times(50, 20).parse().unwrap() {
        let ended = passes(&mut common::preloaded(&program), 30);
        assert_eq!(ended.out, "ended");
    }
}

#[test]
fn with_very_many_environment_variables() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("program.c", PLAIN);
    let mut command = common::preloaded(program);
    for number in 0..20_000 {
        command.env(format!("VARIABLE_{number}"), "value".repeat(number % 10));
    }
    assert_eq!(passes(&mut command, 30).out, "program ");
}

#[test]
fn errno_is_left_alone() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("errno.c", PLAIN);
    for kind in ["ask", "refuse"] {
        passes(common::preloaded(&program).arg(kind), 60);
    }
}

/// The line of a program that freed an object twice, and died of it: its slot has 64 bytes in any build.
#[track_caller]
fn died_of_the_double_free(ended: &Ended) {
    assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{ended:?}");
    let address = ended.err.strip_prefix("spanalloc: double free of 0x");
    let address = address.and_then(|rest| rest.strip_suffix(" (class 64)\n"));
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(address.is_some_and(hex), "{ended:?}");
}

/// The static library stands beside the shared one.
fn archive() -> std::path::PathBuf {
    common::library().with_extension("a")
}

#[test]
fn linked_into_a_program() {
    let Some(workshop) = Workshop::open() else { return };
    for kind in [&[] as &[&str], &["-static"]] {
        let mut options = vec![archive().into_os_string()];
        options.extend(kind.iter().map(Into::into));
        let program = workshop.program("program.c", &options);
        assert_eq!(passes(&mut Command::new(program), 30).out, "program ");
        let program = workshop.program("fork.c", &options);
        passes(Command::new(program).args(["threads", "20"]), 60);
        let program = workshop.program("twice.c", &options);
        died_of_the_double_free(&run(&mut Command::new(program), 30));
    }
}

/// The program has the library as its own, since no other way leads into such a process.
#[test]
fn options_count_for_nothing_in_a_setuid_program() {
    const NOBODY: u32 = 65534;
    let Some(workshop) = Workshop::open() else { return };
    // SAFETY: geteuid reads no memory.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED: only root can make a program that runs as another user");
        return;
    }
    let directory = workshop.path().to_str().unwrap();
    let library = format!("{directory}/libspanalloc_c.so");
    fs::copy(common::library(), &library).unwrap();
    let program = workshop.program("twice.c", &[&library, &format!("-Wl,-rpath,{directory}")]);
    let mode =
        |path: &Path, bits| fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    mode(workshop.path(), 0o755);
    let as_nobody = || {
        let mut command = Command::new(&program);
        command.env("SPANALLOC_CHECK", "0").uid(NOBODY).gid(NOBODY);
        run(&mut command, 30)
    };

    mode(&program, 0o755);
    let trusted = as_nobody();
    assert_eq!(trusted.figure("secure"), 0);
    assert_eq!(trusted.figure("survived"), 1);

    mode(&program, 0o4755);
    let secure = as_nobody();
    if secure.figure("secure") == 0 {
        skipped("the file system of the temporary directory knows no setuid programs");
        return;
    }
    died_of_the_double_free(&secure);
}
