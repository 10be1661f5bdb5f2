//! What the checked heap asks of the system: signals, processors, forks.

#[cfg(target_os = "linux")]
use core::ptr;
use core::time::Duration;

use spanalloc_sync::atomic::AtomicU32;
#[cfg(not(target_os = "linux"))]
use spanalloc_sync::atomic::Ordering;

/// A point in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(Duration);

impl Limit {
    /// The point that is `time` from now.
    pub(crate) fn in_future(time: Duration) -> Self {
        Self(now().saturating_add(time))
    }

    pub(crate) fn is_past(self) -> bool {
        now() >= self.0
    }
}

/// The time since some point in the past.
#[cfg(unix)]
pub(crate) fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is valid for writing. The clock is there, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    // Neither is ever negative.
    Duration::from_secs(time.tv_sec as u64)
        .saturating_add(Duration::from_nanos(time.tv_nsec as u64))
}

/// The time since some point in the past.
#[cfg(not(unix))]
pub(crate) fn now() -> Duration {
    std::thread_local! {
        static START: std::time::Instant = std::time::Instant::now();
    }
    START.with(std::time::Instant::elapsed)
}

/// The number by which the system knows the calling thread; 0 where that is of no use.
pub(crate) fn thread() -> u32 {
    #[cfg(target_os = "linux")]
    // SAFETY: asks for a number. Cannot fail, so `errno` stays.
    unsafe {
        libc::syscall(libc::SYS_gettid) as u32
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// Runs another thread, if there is one.
pub(crate) fn yield_now() {
    #[cfg(unix)]
    // SAFETY: asks the system to run somebody else. Cannot fail on Linux, so `errno` stays.
    unsafe {
        libc::sched_yield();
    }
    #[cfg(not(unix))]
    std::thread::yield_now();
}

/// Sleeps while `word` is `value`, but not longer than `time`. Leaves `errno` as it was.
#[cfg(target_os = "linux")]
pub(super) fn sleep_while(word: &AtomicU32, value: u32, time: Duration) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let time = libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: time.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the word is a live, aligned u32, the kernel reads the time; the error number is this
    // thread's own.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::syscall(
            libc::SYS_futex,
            ptr::from_ref(word),
            operation as libc::c_long,
            value as libc::c_long,
            &raw const time,
        );
        *errno = before;
    }
}

/// Wakes everybody who sleeps on `word`.
#[cfg(target_os = "linux")]
pub(super) fn wake_all(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is a live, aligned u32. Waking cannot fail, so `errno` stays.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            ptr::from_ref(word),
            operation as libc::c_long,
            i32::MAX as libc::c_long,
        );
    }
}

/// Looks some times at `word`, as long as it is `value`.
#[cfg(not(target_os = "linux"))]
pub(super) fn sleep_while(word: &AtomicU32, value: u32, _time: Duration) {
    for _ in 0..1000 {
        if word.load(Ordering::Relaxed) != value {
            return;
        }
        yield_now();
    }
}

/// Nobody sleeps.
#[cfg(not(target_os = "linux"))]
pub(super) fn wake_all(_word: &AtomicU32) {}

/// All signals of the calling thread are blocked as long as this lives.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    before: libc::sigset_t,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn block() -> Self {
        // SAFETY: an all-zero set is a valid place for a set; both sets are valid for the calls,
        // which change nothing but the thread's own mask, and no `errno`.
        unsafe {
            let mut all: libc::sigset_t = core::mem::zeroed();
            let mut before: libc::sigset_t = core::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

#[cfg(unix)]
impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: the set is the one that the thread had.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, core::ptr::null_mut());
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn block() -> Self {
        Self {}
    }
}

/// Calls the three functions around every fork of this process: before it, and after it in the
/// parent and in the child.
pub(crate) fn at_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    #[cfg(unix)]
    // SAFETY: the three functions are there as long as the process. If the system has no memory for
    // them, forks are not watched.
    unsafe {
        libc::pthread_atfork(Some(prepare), Some(parent), Some(child));
    }
    #[cfg(not(unix))]
    let _ = (prepare, parent, child);
}
