//! The shared library as it is released: what it exports, what it needs, and what its code must not
//! contain. A release build is looked at, whatever build this test is of.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::native::{PLAIN, Workshop, skipped};

/// Everything that is exported, and nothing else.
const EXPORTS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "free",
    "cfree",
    "free_sized",
    "free_aligned_sized",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "valloc",
    "pvalloc",
    "malloc_usable_size",
    "malloc_trim",
    "mallopt",
    "mallinfo",
    "mallinfo2",
    "malloc_info",
    "malloc_stats",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_free",
    "__libc_memalign",
    "__libc_valloc",
    "__libc_pvalloc",
    "__posix_memalign",
    "__libc_mallinfo",
    "__libc_mallopt",
    "_Znwm",
    "_Znam",
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "spanalloc_version",
    "spanalloc_get_snapshot",
    "spanalloc_dump",
    "spanalloc_dump_json",
    "spanalloc_dump_prometheus",
    "spanalloc_release",
    "spanalloc_start_background",
    "spanalloc_set_soft_limit",
    "spanalloc_set_hard_limit",
    "spanalloc_set_limits_by_cgroup",
    "spanalloc_on_pressure",
    "spanalloc_set_thread_cache",
    "spanalloc_set_huge_pages",
    "spanalloc_trust_program",
    "spanalloc_report_at_exit",
];

/// What the library may not need, by the beginning of the name: what allocates, or may, or is part of
/// unwinding, or calls what another library may have replaced by something that allocates.
const FORBIDDEN: &[&str] = &[
    "__tls_get_addr",
    "_Unwind",
    "dlsym",
    "dlopen",
    "mmap",
    "munmap",
    "mprotect",
    "madvise",
    "write",
    "open",
    "printf",
    "strdup",
    "__cxa_thread_atexit",
    "pthread_mutex",
    "pthread_once",
];

/// What may be left of the standard library: a constructor that stores two words.
const LEFT_OF_STD: &str = "std::sys::args::";

/// What a program of the binutils says of a library.
fn output(program: &str, options: &[&str], library: &Path) -> String {
    let output = Command::new(program).args(options).arg(library).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the binutils are there.
fn can_look() -> bool {
    ["readelf", "nm", "objdump"].iter().all(|program| {
        let there = Command::new(program).arg("--version").output().is_ok();
        if !there {
            skipped(&format!("there is no {program}"));
        }
        there
    })
}

/// The names that `nm` lists, without versions.
fn names(options: &[&str], library: &Path) -> BTreeSet<String> {
    let text = output("nm", options, library);
    let name = |line: &str| Some(line.split_whitespace().last()?.split('@').next()?.to_owned());
    text.lines().filter_map(name).collect()
}

fn exported(library: &Path) -> BTreeSet<String> {
    names(&["-D", "--defined-only"], library)
}

fn needed(library: &Path) -> BTreeSet<String> {
    names(&["-D", "--undefined-only"], library)
}

/// The names that are exported and should not be, or the other way round.
fn wrong_exports(library: &Path) -> Vec<String> {
    let (there, wanted) = (exported(library), EXPORTS.iter().map(|name| (*name).to_owned()));
    there.symmetric_difference(&wanted.collect()).cloned().collect()
}

/// What the library needs and may not: an allocator, or what leads to one.
fn wrong_needs(library: &Path) -> Vec<String> {
    let wrong = |name: &String| {
        EXPORTS.contains(&name.as_str()) || FORBIDDEN.iter().any(|start| name.starts_with(start))
    };
    needed(library).into_iter().filter(wrong).collect()
}

/// Places from which a name is called, or read, that another library may define too.
fn calls_of_exports(library: &Path) -> Vec<String> {
    let exported = exported(library);
    let mut wrong = Vec::new();
    // Through a table that the dynamic linker fills in.
    for line in output("readelf", &["-rW"], library).lines() {
        let symbol = line.split_whitespace().nth(4).unwrap_or("");
        // `reallocarray` resizes with what the process has for `realloc`, as glibc's does.
        if symbol == "realloc" && line.contains("GLOB_DAT") {
            continue;
        }
        if exported.contains(symbol.split('@').next().unwrap_or("")) {
            wrong.push(line.to_owned());
        }
    }
    // Directly.
    let mut function = String::new();
    for line in output("objdump", &["-d", "--no-show-raw-insn", "-w"], library).lines() {
        if let Some(name) = line.strip_suffix(">:") {
            function = name.split('<').next_back().unwrap().to_owned();
        }
        let target = line.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>'));
        let Some(target) = target.filter(|_| line.contains("call") || line.contains("j")) else {
            continue;
        };
        let name = target.split('@').next().unwrap();
        if exported.contains(name) && name != function {
            wrong.push(format!("{function}: {}", line.trim()));
        }
    }
    wrong
}

/// Functions and data of the parts of Rust that have no place in an allocator.
fn parts_of_std(library: &Path) -> Vec<String> {
    let text = output("nm", &["-C"], library);
    assert!(text.contains("spanalloc") || text.contains("calloc"), "there are no symbols");
    let name = |line: &str| line.get(19..).unwrap_or_default().to_owned();
    // Those of C++ that the operators look for are in the namespace `std` too, but not here.
    let wrong = |name: &String| {
        let others = name.replace("spanalloc::", "").replace("spanalloc_c::malloc::", "");
        ["core::panicking", "core::fmt", "std::", "alloc::"]
            .iter()
            .any(|part| others.contains(part))
            && !name.starts_with("operator ")
            && !name.starts_with(LEFT_OF_STD)
    };
    let here = |line: &&str| !line.starts_with(' ') && !line.contains(" w ");
    text.lines().filter(here).map(name).filter(wrong).collect()
}

/// What the dynamic linker is not told and should be.
fn missing_flags(library: &Path) -> Vec<&'static str> {
    let dynamic = output("readelf", &["-dW"], library);
    let headers = output("readelf", &["-lW"], library);
    let has = |word: &str| dynamic.lines().any(|line| line.contains(word));
    let stack = headers.lines().find(|line| line.contains("GNU_STACK")).unwrap_or("RWE");
    let libraries = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let only_libc = |line: &str| ["[libc.", "[ld-"].iter().any(|name| line.contains(name));
    let told = [
        ("STATIC_TLS", has("STATIC_TLS")),
        ("NODELETE", has("NODELETE")),
        ("NOW", has("Flags: NOW") || has("BIND_NOW")),
        ("SONAME", has("soname: [libspanalloc_c.so]")),
        ("RELRO", headers.contains("GNU_RELRO")),
        ("a stack that is not executable", !stack.contains("RWE")),
        ("the C library alone", libraries.clone().all(only_libc)),
    ];
    told.into_iter().filter(|(_, told)| !told).map(|(name, _)| name).collect()
}

#[test]
fn the_library_is_what_it_must_be() {
    if !can_look() {
        return;
    }
    let library = common::released();
    assert_eq!(wrong_exports(&library), [""; 0], "exports");
    assert_eq!(wrong_needs(&library), [""; 0], "needs");
    assert_eq!(calls_of_exports(&library), [""; 0], "calls from inside");
    assert_eq!(parts_of_std(&library), [""; 0], "parts of the standard library");
    assert_eq!(missing_flags(&library), [""; 0], "flags");
    let size = std::fs::metadata(&library).unwrap().len();
    assert!(size < 1 << 20, "{size} bytes");
}

#[test]
fn a_library_that_is_not_is_seen_through() {
    let Some(workshop) = Workshop::open().filter(|_| can_look()) else { return };
    let library = workshop.library("bad_library.c", PLAIN);
    let exports = wrong_exports(&library);
    assert!(
        ["extra", "local", "free", "_Znwm"].iter().all(|name| exports.contains(&(*name).into()))
    );
    let needs = wrong_needs(&library);
    for name in ["__tls_get_addr", "dlsym", "free", "realloc"] {
        assert!(needs.contains(&name.into()), "{name}: {needs:?}");
    }
    let calls = calls_of_exports(&library);
    assert!(calls.iter().any(|call| call.contains("malloc")), "{calls:?}");
    assert_eq!(parts_of_std(&library), ["core::panicking::panic"]);
    assert!(missing_flags(&library).starts_with(&["STATIC_TLS", "NODELETE"]));
}
