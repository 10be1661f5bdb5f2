//! The other allocators, and the checks that they are the optimised builds of themselves.

use std::ffi::CStr;
use std::ptr;

use mimalloc::MiMalloc;
use snmalloc_rs::SnMalloc;
use tikv_jemallocator::Jemalloc;

use crate::contender::{Contender, Entry};

/// In the order of the table.
pub(crate) const PEERS: [Entry; 3] =
    [Entry::of::<Mimalloc>(), Entry::of::<TikvJemalloc>(), Entry::of::<Snmalloc>()];

struct Mimalloc;

impl Contender for Mimalloc {
    const NAME: &'static str = "mimalloc";
    type Allocator = MiMalloc;
    const ALLOCATOR: MiMalloc = MiMalloc;

    fn version() -> String {
        // The number has the form 30302 for 3.3.2.
        let number = MiMalloc.version();
        format!(
            "v{}.{}.{}, not secure, no debug build",
            number / 10_000,
            number / 100 % 100,
            number % 100
        )
    }

    fn flaw() -> Option<String> {
        if MiMalloc.version() < 30_000 {
            return Some("version 3 is not what was linked".into());
        }
        // What the assertions of the debug build print.
        assertions(["mimalloc: assertion", "failed: at"])
    }
}

struct TikvJemalloc;

impl Contender for TikvJemalloc {
    const NAME: &'static str = "jemalloc";
    type Allocator = Jemalloc;
    const ALLOCATOR: Jemalloc = Jemalloc;

    fn version() -> String {
        let mut text: *const std::ffi::c_char = ptr::null();
        let mut size = size_of_val(&text);
        // SAFETY: "version" reads one pointer to a static string into `text`.
        let version = unsafe {
            let old = (&raw mut text).cast();
            match tikv_jemalloc_sys::mallctl(
                c"version".as_ptr(),
                old,
                &mut size,
                ptr::null_mut(),
                0,
            ) {
                0 => CStr::from_ptr(text).to_string_lossy().into_owned(),
                error => format!("unknown, mallctl says {error}"),
            }
        };
        version.split('-').next().unwrap_or_default().to_owned()
    }

    fn flaw() -> Option<String> {
        let mut debug = true;
        let mut size = size_of_val(&debug);
        // SAFETY: "config.debug" reads one bool into `debug`.
        let error = unsafe {
            let old = (&raw mut debug).cast();
            tikv_jemalloc_sys::mallctl(c"config.debug".as_ptr(), old, &mut size, ptr::null_mut(), 0)
        };
        (error != 0 || debug).then(|| "it was configured with --enable-debug".into())
    }
}

struct Snmalloc;

impl Contender for Snmalloc {
    const NAME: &'static str = "snmalloc";
    type Allocator = SnMalloc;
    const ALLOCATOR: SnMalloc = SnMalloc;

    fn version() -> String {
        "crate snmalloc-rs 0.7.6, no debug build".into()
    }

    fn flaw() -> Option<String> {
        // Its build script takes the Debug type whenever the profile asks for any debug info.
        assertions(["assert fail:", "{} in {} on {}"])
    }
}

/// Looks for the text of an allocator's assertions in the running program: only debug builds have
/// them. The text comes in two parts that a space joins, so as not to be found in this code.
fn assertions(parts: [&str; 2]) -> Option<String> {
    let text = parts.join(" ");
    let program = match std::env::current_exe().and_then(std::fs::read) {
        Ok(program) => program,
        Err(error) => return Some(format!("the program cannot be read to check it: {error}")),
    };
    program
        .windows(text.len())
        .any(|window| window == text.as_bytes())
        .then(|| format!("it is a debug build: the program holds its assertions (\"{text}\")"))
}
