//! A misuse ends the process with one line and SIGABRT, whatever standard error is.
#![cfg(all(feature = "portable", unix, not(loom)))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use spanalloc_os::{Counted, Faulty, Fixed, Limited, Misuse, Mmap, OsSource, Portable, Report};

/// What tells a child of this program how to end.
const WAY: &str = "SPANALLOC_TEST_WAY_TO_END";

const REPORT: Report = Report { misuse: Misuse::DoubleFree, address: 0x7f12, class_bytes: 64 };

#[test]
#[ignore = "runs in a child process of the tests below"]
fn ends() {
    let Ok(way) = std::env::var(WAY) else { return };
    // SAFETY: limits and file descriptors of this process, which is about to end.
    unsafe {
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        match way.as_str() {
            "closed" => {
                libc::close(2);
            }
            "broken" => {
                let mut ends = [0; 2];
                libc::pipe(ends.as_mut_ptr());
                libc::close(ends[0]);
                libc::dup2(ends[1], 2);
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            }
            _ => {}
        }
    }
    match way.as_str() {
        "portable" => Portable::new().die(REPORT),
        "adapters" => Counted::new(Limited::new(Faulty::new(&Mmap::new()), 0)).die(REPORT),
        "fixed" => {
            let mut buffer = [MaybeUninit::uninit(); 64];
            Fixed::new(&mut buffer).die(REPORT)
        }
        "other" => {
            fn exit(_: Report) -> ! {
                std::process::exit(42)
            }
            let mut buffer = [MaybeUninit::uninit(); 64];
            Fixed::new(&mut buffer).on_misuse(exit).die(REPORT)
        }
        "foreign" => {
            Mmap::new().die(Report { misuse: Misuse::ForeignPointer, class_bytes: 0, ..REPORT })
        }
        _ => Mmap::new().die(REPORT),
    }
}

fn child(way: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ends", "--ignored", "--nocapture", "--test-threads=1"])
        .env(WAY, way)
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap()
}

#[test]
fn one_exact_line_and_sigabrt() {
    for way in ["mmap", "portable", "adapters", "fixed"] {
        let output = child(way);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{way}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, "spanalloc: double free of 0x7f12 (class 64)\n", "{way}");
    }
    let said = child("foreign").stderr;
    assert_eq!(said, b"spanalloc: foreign pointer 0x7f12\n");
}

#[test]
fn sigabrt_even_if_nobody_can_hear_it() {
    for way in ["closed", "broken"] {
        let output = child(way);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{way}");
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn a_buffer_ends_the_way_it_was_told() {
    let output = child("other");
    assert_eq!(output.status.code(), Some(42));
    assert!(output.stderr.is_empty());
}
