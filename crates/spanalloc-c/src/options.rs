//! The options of the process: read from its environment when it starts, used when it exits.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use crate::heap;
use spanalloc::limits::Cgroup;

use crate::setting::{self, LONGEST_PATH, Limit, Setting};
use crate::system::{self, Descriptor, STDERR};

/// Whether the heap is described at exit, and whether it is drawn.
pub(crate) static STATS: AtomicBool = AtomicBool::new(false);
pub(crate) static MAP: AtomicBool = AtomicBool::new(false);

/// Whether a thread of its own gives memory back.
static BACKGROUND: AtomicBool = AtomicBool::new(false);

/// The only process that reports; 0 for any.
static REPORT_PID: AtomicI32 = AtomicI32::new(0);

/// The file that the report goes to; empty for standard error.
static REPORT: Path = Path(UnsafeCell::new([0; LONGEST_PATH]));

/// A copy of standard error as it was at the start, which the program may close before it exits:
/// the descriptor, -1 for none, and whether a file of this identity is still behind it.
static ERROR_COPY: AtomicI32 = AtomicI32::new(-1);
static ERROR_DEVICE: AtomicU64 = AtomicU64::new(0);
static ERROR_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The least number of that copy: one that programs are not surprised by.
const COPY_FROM: c_int = 200;

/// A path, and null bytes behind it.
struct Path(UnsafeCell<[u8; LONGEST_PATH]>);

// SAFETY: written by `start` only, before the program runs.
unsafe impl Sync for Path {}

impl Path {
    /// Sets the path; a relative one is of the current directory, wherever the program goes later.
    ///
    /// # Safety
    /// Nobody else uses the path.
    unsafe fn set(&self, path: &[u8]) {
        // SAFETY: the caller's promise.
        let place = unsafe { &mut *self.0.get() };
        let directory = match path.first() {
            Some(b'/') => 0,
            _ => system::current_directory(place).unwrap_or(0),
        };
        let slash = if directory > 1 { b"/".as_slice() } else { b"" };
        let bytes = slash.iter().chain(path);
        let fits = directory + slash.len() + path.len() < LONGEST_PATH;
        let rest = if fits { place.get_mut(directory..) } else { None };
        // A directory that leaves no space for the name: the name alone may still do.
        match rest {
            Some(rest) => copy(bytes, rest),
            None => copy(path.iter(), place),
        }
    }

    fn get(&self) -> Option<&CStr> {
        // SAFETY: the path was set before the program runs, and is not changed any more.
        let path = unsafe { &*self.0.get() };
        CStr::from_bytes_until_nul(path).ok().filter(|path| !path.is_empty())
    }
}

/// Copies `bytes` and a null byte behind them.
fn copy<'a>(bytes: impl Iterator<Item = &'a u8>, place: &mut [u8]) {
    for (place, byte) in place.iter_mut().zip(bytes.chain(&[0])) {
        *place = *byte;
    }
}

/// Reads the options. Called when the library is loaded, before the program runs.
pub(crate) fn start() {
    if system::is_privileged() {
        return;
    }
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the C library, whose constructors run before this one, has set the pointer, to null or
    // to a list of strings that ends with null. Nobody else is running.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            let variable = CStr::from_ptr(*next);
            match setting::read(variable.to_bytes()) {
                Ok(setting) => apply(setting),
                Err(wrong) => wrong.tell(STDERR),
            }
            next = next.add(1);
        }
    }
    if reports() && REPORT.get().is_none() {
        copy_standard_error();
    }
    if BACKGROUND.load(Ordering::Relaxed) && !heap::start_background() {
        let mut buffer = [0; 64];
        let mut text = crate::text::Text::new(&mut buffer, STDERR);
        text.put("spanalloc: no thread for SPANALLOC_BACKGROUND\n").send();
    }
}

/// # Safety
/// The program does not run yet.
unsafe fn apply(setting: Setting<'_>) {
    match setting {
        Setting::Check(true) | Setting::Nothing => {}
        Setting::Check(false) => heap::trust_program(),
        Setting::Stats(stats) => STATS.store(stats, Ordering::Relaxed),
        Setting::Map(map) => MAP.store(map, Ordering::Relaxed),
        // SAFETY: the caller's promise.
        Setting::Report(path) => unsafe { REPORT.set(path) },
        Setting::Background(background) => BACKGROUND.store(background, Ordering::Relaxed),
        Setting::ReportPid(process) => REPORT_PID.store(process, Ordering::Relaxed),
        Setting::SoftLimit(Limit::Bytes(bytes)) => heap::set_soft_limit(bytes),
        Setting::HardLimit(Limit::Bytes(bytes)) => heap::set_hard_limit(bytes),
        Setting::SoftLimit(Limit::Cgroup(percent)) => {
            let percent = percent.unwrap_or(Cgroup::SOFT_PERCENT);
            heap::set_soft_limit(Cgroup::of_this_process().soft(percent));
        }
        Setting::HardLimit(Limit::Cgroup(percent)) => {
            let percent = percent.unwrap_or(Cgroup::HARD_PERCENT);
            heap::set_hard_limit(Cgroup::of_this_process().hard(percent));
        }
        Setting::ThreadCache(bytes) => heap::set_thread_cache(bytes),
        Setting::HugePages(huge) => heap::set_huge_pages(huge),
    }
}

/// Whether this process reports when it exits.
fn reports() -> bool {
    let process = REPORT_PID.load(Ordering::Relaxed);
    (STATS.load(Ordering::Relaxed) || MAP.load(Ordering::Relaxed))
        && (process == 0 || process == system::process())
}

/// Where this process reports to now, if it does.
pub(crate) fn report_to() -> Option<Descriptor> {
    if !reports() {
        return None;
    }
    match REPORT.get() {
        Some(path) => Descriptor::append_to(path).or_else(|| {
            complain(path);
            None
        }),
        None => Some(standard_error()),
    }
}

/// Says that the report has no place.
#[cold]
#[inline(never)]
fn complain(path: &CStr) {
    let mut buffer = [0; 256];
    let mut text = crate::text::Text::new(&mut buffer, STDERR);
    text.put("spanalloc: cannot write the report to ").put_bytes(path.to_bytes()).put("\n").send();
}

fn copy_standard_error() {
    let (Some(copy), Some(identity)) = (STDERR.duplicate(COPY_FROM), STDERR.identity()) else {
        return;
    };
    ERROR_DEVICE.store(identity.device, Ordering::Relaxed);
    ERROR_NUMBER.store(identity.number, Ordering::Relaxed);
    ERROR_COPY.store(copy.0, Ordering::Relaxed);
}

/// The copy of standard error if the program left it alone, else what standard error is now.
fn standard_error() -> Descriptor {
    let copy = Descriptor(ERROR_COPY.load(Ordering::Relaxed));
    let untouched = copy.identity().is_some_and(|identity| {
        identity.device == ERROR_DEVICE.load(Ordering::Relaxed)
            && identity.number == ERROR_NUMBER.load(Ordering::Relaxed)
    });
    if untouched { copy } else { STDERR }
}
