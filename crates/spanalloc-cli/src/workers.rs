//! Several threads for one piece of work.

use std::panic;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::Error;

/// Runs `work` once on each of `threads` threads and returns what they made of it, when every
/// thread has ended (its thread locals included). A panic in one goes on here.
pub(crate) fn run<T: Send>(threads: usize, work: impl Fn() -> T + Sync) -> Result<Vec<T>, Error> {
    thread::scope(|scope| {
        let mut handles = Vec::with_capacity(threads);
        for _ in 0..threads.max(1) {
            handles.push(thread::Builder::new().spawn_scoped(scope, &work).map_err(Error::Thread)?);
        }
        let results = handles.into_iter().map(|handle| handle.join());
        Ok(results.map(|it| it.unwrap_or_else(|panic| panic::resume_unwind(panic))).collect())
    })
}

/// Work that threads take one piece at a time.
pub(crate) struct Queue<I>(Mutex<I>);

impl<I: Iterator> Queue<I> {
    pub(crate) fn new(items: impl IntoIterator<IntoIter = I>) -> Self {
        Self(Mutex::new(items.into_iter()))
    }

    /// The next piece; None when all are taken.
    pub(crate) fn next(&self) -> Option<I::Item> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_taken_once() {
        let queue = Queue::new(0..1000u32);
        let work = || std::iter::from_fn(|| queue.next()).collect::<Vec<_>>();
        let mut taken = run(4, work).unwrap().concat();
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..1000));
    }

    #[test]
    #[should_panic(expected = "from a worker")]
    fn a_panic_goes_on() {
        let _ = run(2, || panic!("from a worker"));
    }
}
