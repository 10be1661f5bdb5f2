//! What this library offers beyond the C library's functions: what `spanalloc.h` declares.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::Ordering;

use crate::heap::{self, Listener};
use spanalloc::HugePages;
use spanalloc::limits::Cgroup;

use crate::options::{MAP, STATS};
use crate::report::{self, Wanted};
use crate::snapshot::figures;
use crate::system::Descriptor;
use crate::text::{Sink, Text};

/// Nothing is reported when the process exits.
pub const SPANALLOC_REPORT_NOTHING: c_int = 0;
/// What the heap holds is reported when the process exits, as with SPANALLOC_STATS=1.
pub const SPANALLOC_REPORT_STATS: c_int = 1;
/// The heap is drawn when the process exits, as with SPANALLOC_MAP=1.
pub const SPANALLOC_REPORT_MAP: c_int = 2;

/// No memory is asked to be huge pages. What the system does by itself is its own affair.
pub const SPANALLOC_HUGE_PAGES_OFF: c_int = 0;
/// Memory that is expected to be filled from end to end is.
pub const SPANALLOC_HUGE_PAGES_ADVISE: c_int = 1;
/// All memory is, by blocks of 2 MB.
pub const SPANALLOC_HUGE_PAGES_ALWAYS: c_int = 2;

/// What the heap holds, in bytes unless named otherwise. Exact while no other thread is in the
/// allocator; otherwise each number is one that was true at some moment. The sums hold in any case:
/// `committed = live + cached + free + wasted`, `reserved = committed + returned`, and
/// `committed + metadata` is what is in memory if all of it was touched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types, reason = "the name in C")]
pub struct spanalloc_snapshot {
    /// Address space for objects.
    pub reserved: usize,
    /// The part of it that has memory: live, cached, free and wasted.
    pub committed: usize,
    /// Objects of the program, with what their sizes were rounded up by.
    pub live: usize,
    /// Free slots that threads have at hand, and free pages that they keep.
    pub cached: usize,
    /// Free slots, and free pages that have memory.
    pub free: usize,
    /// Ends of spans, too short for a slot, and pages that became metadata.
    pub wasted: usize,
    /// Memory of the allocator's own tables, beside `committed`.
    pub metadata: usize,
    /// Number of objects, small and large.
    pub objects: usize,
    /// Number of objects above 32 KB.
    pub large_objects: usize,
    /// Bytes of those; part of `live`.
    pub large: usize,
    /// Number of threads that have a cache.
    pub threads: usize,
    /// Address space for objects without memory: given back to the system, never used, or a guard.
    pub returned: usize,
}

/// The version of the library, as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Writes to `*snapshot` what the heap holds now. Allocates nothing.
///
/// # Safety
/// `snapshot` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanalloc_get_snapshot(snapshot: *mut spanalloc_snapshot) {
    let figures = figures();
    let cached = figures.cached + figures.kept_pages;
    let free = figures.free + figures.free_pages;
    let answer = spanalloc_snapshot {
        reserved: figures.reserved,
        committed: figures.ready,
        live: figures.live(),
        cached,
        free,
        wasted: figures.tails + figures.metadata_pages,
        metadata: figures.metadata - figures.metadata_pages,
        objects: figures.objects,
        large_objects: figures.large_objects,
        large: figures.live_large,
        threads: figures.threads,
        returned: figures.returned + figures.guards,
    };
    // SAFETY: the caller's promise.
    unsafe { snapshot.write(answer) };
}

/// Writes to the file descriptor what the heap holds now, for people. Allocates nothing. Returns 0, or
/// -1 if it could not be written.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_dump(file: c_int) -> c_int {
    write_to(file, |text| report::write(text, Wanted { stats: true, map: false }))
}

/// As spanalloc_dump, as JSON: one object on one line, `{"/memory/classes/heap/objects:bytes":1234,...}`.
/// The names are those of Go's `runtime/metrics` where it has the same; the last is `"classes"`, an
/// array with one object for each size class in use.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_dump_json(file: c_int) -> c_int {
    write_to(file, |text| report::tell(text, |report, text| report.json(text)))
}

/// As spanalloc_dump, in the text format of Prometheus: the same figures as in JSON, as
/// `spanalloc_memory_classes_heap_objects_bytes 1234`.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_dump_prometheus(file: c_int) -> c_int {
    write_to(file, |text| report::tell(text, |report, text| report.prometheus(text)))
}

/// Lets `write` write to the file. 0, or -1 if it could not be written.
fn write_to(file: c_int, write: impl FnOnce(&mut Text<'_, &mut Watched>)) -> c_int {
    let mut buffer = [0; 1024];
    let mut to = Watched { file: Descriptor(file), failed: false };
    write(&mut Text::new(&mut buffer, &mut to));
    if to.failed { -1 } else { 0 }
}

/// A file, and whether writing to it failed.
struct Watched {
    file: Descriptor,
    failed: bool,
}

impl Sink for Watched {
    fn write(&mut self, text: &[u8]) {
        self.failed = self.failed || !self.file.write_all(text);
    }
}

/// Starts a thread that gives free memory back to the system as it is no longer needed, as with
/// SPANALLOC_BACKGROUND=1, if there is none in this process. The child of a fork has none. Returns 0, or -1 if
/// the system has no thread to give.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_start_background() -> c_int {
    if heap::start_background() { 0 } else { -1 }
}

/// Gives free memory back to the system. Returns how many bytes that was.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_release() -> usize {
    heap::release()
}

/// Sets from how many bytes on memory goes back to the system, as SPANALLOC_SOFT_LIMIT does: free pages
/// first, then what the threads keep, as soon as each comes by. If that is not enough, the function that was
/// given to `spanalloc_on_pressure` is called. No allocation fails for it. SIZE_MAX is no limit.
///
/// What counts is `committed` of the snapshot, and `metadata`.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_set_soft_limit(bytes: usize) {
    heap::set_soft_limit(bytes);
}

/// Sets how many bytes there may be at most, counted in the same way, as SPANALLOC_HARD_LIMIT does. An
/// allocation that would take more fails with ENOMEM, once everything free that the thread can reach went
/// back to the system. SIZE_MAX is no limit. If there are more bytes already, they stay.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_set_hard_limit(bytes: usize) {
    heap::set_hard_limit(bytes);
}

/// Sets both limits by what the control group of the process may have now, as SPANALLOC_HARD_LIMIT=cgroup and
/// SPANALLOC_SOFT_LIMIT=cgroup do: the hard one to 90 percent of it, the soft one to 80. Returns 0, or -1 if the
/// group has no bounds; then there are no limits.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_set_limits_by_cgroup() -> c_int {
    let cgroup = Cgroup::of_this_process();
    heap::set_hard_limit(cgroup.hard(Cgroup::HARD_PERCENT));
    heap::set_soft_limit(cgroup.soft(Cgroup::SOFT_PERCENT));
    if cgroup == Cgroup::NONE { -1 } else { 0 }
}

/// Sets what is called, with `context`, when there is more memory than the soft limit and nothing that could
/// be given back: `committed` bytes. It is called once, and not again before the memory was within the limit.
/// Null is nobody.
///
/// The function is called by a thread that has just allocated, which holds no lock of the allocator: it may
/// allocate and free. What it frees goes back to the system by and by. It leaves errno as it was, and
/// does not throw. A thread may be in the function for one last time after another one has taken its place.
///
/// # Safety
/// Any thread may call the function with this context, several at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanalloc_on_pressure(
    callback: Option<unsafe extern "C" fn(context: *mut c_void, committed: usize, limit: usize)>,
    context: *mut c_void,
) {
    // SAFETY: the caller's promise is passed on.
    heap::set_listener(callback.map(|call| unsafe { Listener::new(call, context) }));
}

/// Sets the most bytes that each thread keeps of what it freed, as SPANALLOC_THREAD_CACHE does: a quarter of them as
/// large objects, a quarter as small ones at hand, the rest as pages for small objects of any size. SIZE_MAX, as
/// at first, is as many as the thread's use suggests, up to fixed bounds.
///
/// Whatever the number, a thread keeps two objects at hand of each size class that it uses, and of a bound below 1 MB
/// the pages that the next ones come from, up to 512 KB. What a thread keeps already goes as it frees more.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_set_thread_cache(bytes: usize) {
    heap::set_thread_cache(bytes);
}

/// Chooses for which memory the system is asked for huge pages from now on, as SPANALLOC_HUGE_PAGES does: one of
/// SPANALLOC_HUGE_PAGES_OFF, SPANALLOC_HUGE_PAGES_ADVISE, which is the first choice, and
/// SPANALLOC_HUGE_PAGES_ALWAYS. Returns 0, or -1 if it is none of them.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_set_huge_pages(choice: c_int) -> c_int {
    let huge = match choice {
        SPANALLOC_HUGE_PAGES_OFF => HugePages::Off,
        SPANALLOC_HUGE_PAGES_ADVISE => HugePages::Advise,
        SPANALLOC_HUGE_PAGES_ALWAYS => HugePages::Always,
        _ => return -1,
    };
    heap::set_huge_pages(huge);
    0
}

/// Trusts the program from now on, as with SPANALLOC_CHECK=0: what cannot be freed is left alone
/// instead of ending the process.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_trust_program() {
    heap::trust_program();
}

/// Says what is reported when the process exits: SPANALLOC_REPORT_NOTHING, or the sum of
/// SPANALLOC_REPORT_STATS and SPANALLOC_REPORT_MAP. Returns what was reported before.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_report_at_exit(what: c_int) -> c_int {
    let stats = STATS.swap(what & SPANALLOC_REPORT_STATS != 0, Ordering::Relaxed);
    let map = MAP.swap(what & SPANALLOC_REPORT_MAP != 0, Ordering::Relaxed);
    c_int::from(stats) * SPANALLOC_REPORT_STATS + c_int::from(map) * SPANALLOC_REPORT_MAP
}
