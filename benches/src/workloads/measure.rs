//! How workloads take the time.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::clock::thread_time;
use crate::locks::counted;

/// One of so many operations is timed by itself.
const SAMPLED: u64 = 128;
/// The longest time of one operation that is told from longer ones.
const LONGEST: Duration = Duration::from_secs(10);

/// Stops while something is done that is not measured.
pub(super) struct Clock {
    stopped: Duration,
}

impl Clock {
    /// Does what is not measured.
    pub(super) fn pause<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let start = thread_time();
        let result = work();
        self.stopped += thread_time() - start;
        result
    }
}

/// The time the thread computes in `work`.
pub(super) fn computed(work: impl FnOnce(&mut Clock)) -> Duration {
    counted(|| {
        let mut clock = Clock { stopped: Duration::ZERO };
        let start = thread_time();
        work(&mut clock);
        thread_time() - start - clock.stopped
    })
}

/// The time on the wall from before the first thread starts until the last one has ended. There is
/// a thread for each of `parts`, and it does the work with it. Returns what they return, too.
pub(super) fn on_threads<P: Send, R: Send>(
    parts: impl IntoIterator<Item = P>,
    work: impl Fn(P) -> R + Sync,
) -> (Duration, Vec<R>) {
    counted(|| {
        let start = Instant::now();
        let results = thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                parts.into_iter().map(|part| scope.spawn(move || work(part))).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|result| result.expect("a workload does not panic")).collect()
        });
        (start.elapsed(), results)
    })
}

/// The time on the wall that `work` takes, which has threads of its own.
pub(super) fn on_pool(work: impl FnOnce()) -> Duration {
    counted(|| {
        let start = Instant::now();
        work();
        start.elapsed()
    })
}

/// A histogram of nanoseconds that allocates nothing more.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST.as_nanos() as u64, 2).expect("the bounds are in order")
}

/// Does an operation so many times, and records how long some of them take.
#[inline]
pub(super) fn sampled(operations: u64, latency: &mut Histogram<u64>, mut operation: impl FnMut()) {
    for index in 0..operations {
        if index % SAMPLED == 0 {
            let start = Instant::now();
            operation();
            latency.saturating_record(start.elapsed().as_nanos() as u64);
        } else {
            operation();
        }
    }
}

/// The memory this process holds, if the system tells.
pub(super) fn resident_bytes() -> Option<u64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
