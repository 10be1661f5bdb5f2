//! The clock of the comparison.

use std::time::Duration;

/// Time the calling thread has computed, in its own code and in the system's on its behalf.
///
/// Unlike the time on the wall, it does not contain what other programs do meanwhile.
#[cfg(unix)]
#[must_use]
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    let error = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(error, 0, "the system has no clock for threads");
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// Time on the wall since the first call.
#[cfg(not(unix))]
#[must_use]
pub fn thread_time() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::thread_time;

    #[test]
    fn time_goes_on() {
        let start = thread_time();
        while thread_time() == start {}
        assert!(thread_time() > start);
    }
}
