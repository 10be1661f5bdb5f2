//! What the library tells of its heap is what the kernel counts.
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

use std::ffi::{CStr, c_int, c_void};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;

use common::calls::{free, malloc, malloc_trim};
use common::job::{job, say};
use common::limited::passes;
use spanalloc_testkit::resident::{Arenas, below, mappings, whole_size};

const MB: usize = 1 << 20;
/// What the child has at most: 1 % of it is more than what the heap makes ready ahead of its use.
const PEAK: usize = 512 * MB;

/// `struct spanalloc_snapshot`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Snapshot {
    reserved: usize,
    committed: usize,
    live: usize,
    cached: usize,
    free: usize,
    wasted: usize,
    metadata: usize,
    objects: usize,
    large_objects: usize,
    large: usize,
    threads: usize,
    returned: usize,
}

/// A function of the library that this process runs under.
fn function(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends with null.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    assert!(!function.is_null(), "{name:?}");
    function
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::default();
    // SAFETY: the function has this signature, and the place is writable.
    unsafe {
        let get: unsafe extern "C" fn(*mut Snapshot) =
            std::mem::transmute(function(c"spanalloc_get_snapshot"));
        get(&raw mut snapshot);
    }
    snapshot
}

/// What the function writes.
fn dump(name: &CStr) -> String {
    let mut file = tempfile::tempfile().unwrap();
    // SAFETY: the function has this signature.
    let dump: extern "C" fn(c_int) -> c_int = unsafe { std::mem::transmute(function(name)) };
    assert_eq!(dump(file.as_raw_fd()), 0);
    file.rewind().unwrap();
    let mut text = String::new();
    File::read_to_string(&mut file, &mut text).unwrap();
    text
}

fn resident() -> usize {
    mappings().unwrap().iter().map(|it| it.resident).sum()
}

#[derive(Default)]
struct Program {
    arenas: Arenas,
    objects: Vec<*mut u8>,
    seed: u64,
    /// What was in memory, and what the library said, before it all began.
    before: (usize, usize),
}

impl Program {
    fn make(&mut self, bytes: usize, sizes: [usize; 2]) {
        let mut left = bytes;
        while left > 0 {
            let size = whole_size(&mut self.seed, sizes);
            let object = malloc(size);
            assert!(!object.is_null());
            // SAFETY: the object has this size.
            unsafe { self.arenas.touch(object, size) };
            self.objects.push(object);
            left = left.saturating_sub(size);
        }
    }

    fn free(&mut self, of_thousand: usize) {
        let Self { objects, seed, .. } = self;
        objects.retain(|object| {
            let stays = below(seed, 1000) >= of_thousand;
            if !stays {
                free(*object);
            }
            stays
        });
    }

    #[track_caller]
    fn compare(&self, when: &str) {
        let said = snapshot();
        let mappings = mappings().unwrap();
        let heap = self.arenas.resident(&mappings);
        assert!(said.committed.abs_diff(heap) <= heap / 100, "{when}: {heap} in memory: {said:?}");
        let all = mappings.iter().map(|it| it.resident).sum::<usize>() - self.before.0;
        let told = said.committed + said.metadata - self.before.1;
        say(when, format_args!("{heap}/{} {all}/{told}", said.committed));
        assert!(told.abs_diff(all) <= all / 100, "{when}: {told} told, {all} in memory: {said:?}");
        let parts = said.live + said.cached + said.free + said.wasted;
        assert_eq!(parts, said.committed, "{when}: {said:?}");
        assert_eq!(said.committed + said.returned, said.reserved, "{when}: {said:?}");
    }
}

/// Every format tells what the snapshot does.
fn compare_formats() {
    let [json, prometheus] = [c"spanalloc_dump_json", c"spanalloc_dump_prometheus"].map(dump);
    let said = snapshot();
    for (name, number) in [
        ("/memory/classes/heap/released:bytes", said.returned),
        ("/spanalloc/resident:bytes", said.committed + said.metadata),
        ("/spanalloc/heap/reserved:bytes", said.reserved),
        ("/spanalloc/objects/large:objects", said.large_objects),
    ] {
        assert!(json.contains(&format!("\"{name}\":{number},")), "{name} {number}: {json}");
        let path = name.strip_prefix("/spanalloc").unwrap_or(name).replace(['/', ':'], "_");
        let line = format!("\nspanalloc{path} {number}\n");
        assert!(prometheus.contains(&line), "{line}: {prometheus}");
    }
}

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    if job().is_none() {
        return;
    }
    let mut program = Program::default();
    // All of the list is in memory, as all objects are.
    program.objects.resize(2 * MB, std::ptr::null_mut());
    program.objects.clear();
    program.make(MB, [16, 32 << 10]);
    let said = snapshot();
    program.before = (resident(), said.committed + said.metadata);
    program.make(PEAK / 2, [16, 32 << 10]);
    program.make(PEAK / 2, [64 << 10, 4 * MB]);
    program.compare("peak");
    program.free(300);
    program.compare("holes");
    program.make(PEAK / 8, [24, 64 << 10]);
    program.compare("filled");
    program.free(150);
    assert_eq!(malloc_trim(), 1);
    program.compare("trimmed");
    compare_formats();
    program.make(PEAK / 2, [100, MB]);
    program.compare("grown");
    program.free(1000);
    malloc_trim();
    say("objects", snapshot().objects);
}

#[test]
fn the_figures_are_what_is_in_memory() {
    let ended = passes(&mut common::child("lives"), 120);
    assert!(ended.figure("objects") < 10_000, "{ended:?}");
}
