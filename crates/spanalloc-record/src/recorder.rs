//! Where events go.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use spanalloc_log::{Event, Kind, Log};

/// The log, written once before [`RECORDS`] is set.
static mut LOG: Option<Log<'static>> = None;

/// Whether this process records.
static RECORDS: AtomicBool = AtomicBool::new(false);

/// The key by which the system tells that a thread ends, plus one; 0 while there is none.
static END_KEY: AtomicU32 = AtomicU32::new(0);

/// The keys below this have a place in each thread from its start, so that setting one allocates nothing.
const KEYS_AT_HAND: u32 = 32;

/// From now on events go to `log`.
///
/// # Safety
/// Called once, before there are other threads.
pub(crate) unsafe fn begin(log: Log<'static>) {
    // SAFETY: nobody reads the log before the flag is set, and nobody writes it twice.
    unsafe { (&raw mut LOG).write(Some(log)) };
    let mut key = 0;
    // SAFETY: the place is ours, and the function stays as long as the process.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends)) } == 0 {
        if key < KEYS_AT_HAND {
            END_KEY.store(key + 1, Ordering::Relaxed);
        } else {
            // SAFETY: the key was made just now.
            unsafe { libc::pthread_key_delete(key) };
        }
    }
    // Release pairs with the Acquire load in `log`.
    RECORDS.store(true, Ordering::Release);
}

/// The child of a fork: its memory is not the parent's, which alone is recorded.
pub(crate) extern "C" fn forget() {
    RECORDS.store(false, Ordering::Relaxed);
}

#[inline]
fn log() -> Option<Log<'static>> {
    // Acquire pairs with the Release store in `begin`.
    if !RECORDS.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: the log was written before the flag was set, and is not written again.
    unsafe { (&raw const LOG).read() }
}

/// Writes an event of the calling thread down, if this process records.
#[inline]
pub(crate) fn note(kind: Kind, object: *mut c_void, size: usize, align_log2: u8) {
    let Some(log) = log() else { return };
    // SAFETY: asks for a number.
    let thread = unsafe { libc::pthread_self() };
    let nanoseconds = now();
    watch_the_end();
    log.push(Event { kind, address: object.addr(), size, align_log2, thread, nanoseconds });
}

/// Sees to it that the end of the calling thread is noted.
#[inline]
fn watch_the_end() {
    let Some(key) = END_KEY.load(Ordering::Relaxed).checked_sub(1) else { return };
    // SAFETY: the key was made by `begin`. Its value is no pointer that anybody follows.
    unsafe {
        if libc::pthread_getspecific(key).is_null() {
            libc::pthread_setspecific(key, ptr::without_provenance(1));
        }
    }
}

/// A thread that allocates or frees after this (other keys have functions, too) is watched again.
extern "C" fn thread_ends(_: *mut c_void) {
    if let Some(log) = log() {
        // SAFETY: asks for a number.
        let thread = unsafe { libc::pthread_self() };
        log.push(Event { kind: Kind::End, thread, nanoseconds: now(), ..Event::default() });
    }
}

/// Nanoseconds of a clock that only goes on.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is ours. This clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}
