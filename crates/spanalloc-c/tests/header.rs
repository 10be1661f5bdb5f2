//! `spanalloc.h`: it says what the library has, and a C program can use all of it.
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

use std::path::Path;

use common::limited::passes;
use common::native::Workshop;
use common::{library, preloaded};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The header as it is made from the source.
fn made() -> String {
    let config = cbindgen::Config::from_file(here().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(here().join("src/api.rs"))
        .generate()
        .unwrap();
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_header_is_made_from_the_source() {
    let path = here().join("include/spanalloc.h");
    if std::env::var_os("SPANALLOC_WRITE_HEADER").is_some() {
        std::fs::write(&path, made()).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap();
    assert!(there == made(), "it is not: SPANALLOC_WRITE_HEADER=1 makes it anew:\n{}", made());
}

#[test]
fn a_c_program_uses_all_of_it() {
    let Some(workshop) = Workshop::open() else { return };
    let include = format!("-I{}", here().join("include").display());
    let beside = library().parent().unwrap().display().to_string();
    let (search, run) = (format!("-L{beside}"), format!("-Wl,-rpath,{beside}"));
    for source in ["header.c", "header.cpp"] {
        let options = [&include, &search, &run, "-lspanalloc_c", "-Werror", "-pedantic"];
        let program = workshop.program(source, &options);
        // Linked with the library, and loaded before all others.
        let linked = passes(&mut std::process::Command::new(&program), 20);
        let loaded = passes(&mut preloaded(&program), 20);
        for ended in [linked, loaded] {
            assert!(ended.out.contains("spanalloc: heap of header"), "{ended:?}");
            let has = |part| ended.out.lines().any(|line| line.starts_with(part));
            assert!(has("{\"/memory/classes/heap/objects:bytes\":"), "{ended:?}");
            assert!(has("spanalloc_memory_classes_heap_objects_bytes "), "{ended:?}");
            let lines: Vec<_> = ended.err.lines().collect();
            assert!(lines[0].starts_with("spanalloc: heap of header"), "at exit: {ended:?}");
            assert!(lines[1].starts_with(" `- map "), "the map alone: {ended:?}");
        }
    }
}
