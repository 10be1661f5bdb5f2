//! Runs a workload on jemalloc.

use std::ffi::{CStr, c_char};
use std::process::ExitCode;
use std::ptr;

use spanalloc_bench::worker::{self, Linked};
use tikv_jemalloc_sys::mallctl;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    worker::main(&Linked { version, notes: "", flaw, locks: None })
}

fn version() -> String {
    let mut text: *const c_char = c"unknown".as_ptr();
    let mut size = size_of_val(&text);
    // SAFETY: "version" reads one pointer to a static string into `text`, which is one before too.
    let text = unsafe {
        let old = (&raw mut text).cast();
        let _error = mallctl(c"version".as_ptr(), old, &raw mut size, ptr::null_mut(), 0);
        CStr::from_ptr(text).to_string_lossy()
    };
    text.split('-').next().unwrap_or_default().to_owned()
}

fn flaw() -> Option<String> {
    let mut debug = true;
    let mut size = size_of_val(&debug);
    // SAFETY: "config.debug" reads one bool into `debug`.
    let error = unsafe {
        let old = (&raw mut debug).cast();
        mallctl(c"config.debug".as_ptr(), old, &raw mut size, ptr::null_mut(), 0)
    };
    (error != 0 || debug).then(|| "it was configured with --enable-debug".into())
}
