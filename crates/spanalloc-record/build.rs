//! How the shared library is linked.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    // Threads that end and destructors that run late still call into the library: once loaded, it
    // stays. Everything is bound when it is loaded: binding later takes locks of the dynamic linker.
    let flags = ["-z,nodelete", "-z,now", "-z,relro", "-soname,libspanalloc_record.so"];
    for flag in flags {
        println!("cargo:rustc-cdylib-link-arg=-Wl,{flag}");
    }
    // No frame of a release build has anything to clean up, and none of Rust's ways to unwind is
    // needed. The linker would keep them, as long as the tables of the standard library name them.
    if env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--defsym=rust_eh_personality=0");
    }
}
