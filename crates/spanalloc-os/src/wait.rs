//! How threads wait on the system this crate is compiled for.

#[cfg(all(any(target_os = "linux", target_os = "android"), not(loom)))]
pub use self::futex::Futex;

/// The system's way to wait: [`Futex`] on Linux, yielding elsewhere, spinning in a model.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(loom)))]
pub type SystemWait = Futex;
/// The system's way to wait: `Futex` on Linux, yielding elsewhere, spinning in a model.
#[cfg(all(not(any(target_os = "linux", target_os = "android")), not(loom)))]
pub type SystemWait = YieldThread;
/// The system's way to wait: `Futex` on Linux, yielding elsewhere, spinning in a model.
#[cfg(loom)]
pub type SystemWait = spanalloc_sync::Spin;

#[cfg(all(any(target_os = "linux", target_os = "android"), not(loom)))]
mod futex {
    use core::ffi::c_int;
    use core::ptr;

    use spanalloc_sync::Wait;
    use spanalloc_sync::atomic::AtomicU32;

    use crate::errno;

    /// Waits in the kernel (`man 2 futex`), and leaves `errno` as it was.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Futex;

    /// One futex call on `word` that nobody outside of this process takes part in.
    fn call(word: &AtomicU32, operation: c_int, value: u32) {
        // SAFETY: `word` is an aligned, live u32. The kernel only compares it, and takes no
        // timeout from a null pointer.
        errno::keep(|| unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                (operation | libc::FUTEX_PRIVATE_FLAG) as libc::c_long,
                value as libc::c_long,
                ptr::null::<libc::timespec>(),
            )
        });
    }

    // SAFETY: the kernel compares the word and goes to sleep in one step with respect to a wake, and
    // the call returns on a wake, on a signal, or at once when the word differs.
    unsafe impl Wait for Futex {
        fn wait(word: &AtomicU32, expected: u32) {
            call(word, libc::FUTEX_WAIT, expected);
        }

        fn wake_one(word: &AtomicU32) {
            call(word, libc::FUTEX_WAKE, 1);
        }
    }
}

/// Waits by giving the processor to another thread.
#[cfg(all(not(any(target_os = "linux", target_os = "android")), not(loom)))]
#[derive(Clone, Copy, Debug, Default)]
pub struct YieldThread;

// SAFETY: `wait` returns after a while in any case, so it misses no wake.
#[cfg(all(not(any(target_os = "linux", target_os = "android")), not(loom)))]
unsafe impl spanalloc_sync::Wait for YieldThread {
    fn wait(_word: &spanalloc_sync::atomic::AtomicU32, _expected: u32) {
        #[cfg(unix)]
        // SAFETY: asks the system to run somebody else.
        crate::errno::keep(|| unsafe { libc::sched_yield() });
        #[cfg(not(unix))]
        std::thread::yield_now();
    }

    fn wake_one(_word: &spanalloc_sync::atomic::AtomicU32) {}
}
