use std::alloc::{GlobalAlloc, Layout};
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::ptr::{self, NonNull};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::{Global, Subject};

/// A [`GlobalAlloc`] that serves several threads of this process, as a subject: each cache is a thread, so
/// that a switch goes on in another thread, a restart ends one and starts another, and a remote free is one.
/// One thread works at a time.
///
/// As of [`Global`], operations with a size of 0 are only for an allocator that says what it makes of them.
pub struct Threads<A> {
    allocator: A,
    workers: Vec<Worker>,
    current: usize,
    /// Whether this is the child of a fork, which has the forking thread and no other.
    alone: bool,
    give_back: fn(usize),
}

struct Worker {
    jobs: SyncSender<Job>,
    results: Receiver<usize>,
    thread: JoinHandle<()>,
}

/// What a thread is asked to do; objects are addresses.
#[derive(Clone, Copy)]
enum Job {
    Alloc(Layout),
    AllocZeroed(Layout),
    Free(usize, Layout),
    Realloc(usize, Layout, usize),
}

impl<A: GlobalAlloc> Global<A> {
    /// The address of the object that there is after the job, or 0.
    ///
    /// # Safety
    /// As for the method of [`Subject`] of that name.
    unsafe fn work(&mut self, job: Job) -> usize {
        let object = |address| NonNull::new(ptr::with_exposed_provenance_mut(address));
        let result = match job {
            Job::Alloc(layout) => self.alloc(layout),
            Job::AllocZeroed(layout) => self.alloc_zeroed(layout),
            Job::Free(address, layout) => object(address).and_then(|object| {
                // SAFETY: the caller's promise is passed on.
                unsafe { self.free(object, layout) };
                None
            }),
            Job::Realloc(address, layout, size) => object(address).and_then(|object| {
                // SAFETY: the caller's promise is passed on.
                unsafe { self.realloc(object, layout, size) }
            }),
        };
        result.map_or(0, |object| object.as_ptr().expose_provenance())
    }
}

impl<A> Debug for Threads<A> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { current, alone, .. } = self;
        let mut fields = out.debug_struct("Threads");
        fields.field("count", &self.workers.len()).field("current", current);
        fields.field("alone", alone).finish_non_exhaustive()
    }
}

impl<A: GlobalAlloc + Copy + Send + 'static> Threads<A> {
    /// `count` threads, at least one. `give_back` gives up to so many units of unused memory back to the
    /// system, if the allocator can.
    ///
    /// # Errors
    /// If the system has no thread.
    pub fn new(allocator: A, count: usize, give_back: fn(usize)) -> io::Result<Self> {
        let workers =
            (0..count.max(1)).map(|_| Worker::new(allocator)).collect::<Result<_, _>>()?;
        Ok(Self { allocator, workers, current: 0, alone: false, give_back })
    }

    /// The object there is after a job.
    ///
    /// # Safety
    /// As for the method of [`Subject`] of that name.
    unsafe fn work(&mut self, job: Job) -> Option<NonNull<u8>> {
        let address = if self.alone {
            // SAFETY: the caller's promise is passed on.
            unsafe { Global(self.allocator).work(job) }
        } else {
            self.workers[self.current].work(job)
        };
        NonNull::new(ptr::with_exposed_provenance_mut(address))
    }
}

impl<A> Drop for Threads<A> {
    fn drop(&mut self) {
        self.workers.drain(..).for_each(Worker::end);
    }
}

impl Worker {
    fn new<A: GlobalAlloc + Send + 'static>(allocator: A) -> io::Result<Self> {
        let (jobs, todo) = sync_channel(1);
        let (done, results) = sync_channel(1);
        let thread = thread::Builder::new().spawn(move || {
            let mut subject = Global(allocator);
            while let Ok(job) = todo.recv() {
                // SAFETY: the promise of whoever sent the job.
                let result = unsafe { subject.work(job) };
                if done.send(result).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs, results, thread })
    }

    /// What the thread made of the job; 0 if it has died.
    fn work(&self, job: Job) -> usize {
        match self.jobs.send(job) {
            Ok(()) => self.results.recv().unwrap_or(0),
            Err(_) => 0,
        }
    }

    fn end(self) {
        let Self { jobs, results, thread } = self;
        drop((jobs, results));
        // A thread that panicked has said so.
        let _ = thread.join();
    }
}

// SAFETY: the contract of `GlobalAlloc`, whose objects may be freed by any thread.
unsafe impl<A: GlobalAlloc + Copy + Send + 'static> Subject for Threads<A> {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: any layout is allowed.
        unsafe { self.work(Job::Alloc(layout)) }
    }

    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        unsafe { self.work(Job::AllocZeroed(layout)) }
    }

    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        let address = object.as_ptr().expose_provenance();
        // SAFETY: the caller's promise is passed on.
        unsafe { self.work(Job::Free(address, layout)) };
    }

    unsafe fn realloc(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        let address = object.as_ptr().expose_provenance();
        // SAFETY: the caller's promise is passed on.
        unsafe { self.work(Job::Realloc(address, layout, new_size)) }
    }

    fn caches(&self) -> usize {
        self.workers.len()
    }

    fn switch(&mut self, cache: usize) {
        self.current = cache;
    }

    fn restart(&mut self, cache: usize) {
        if self.alone {
            return;
        }
        // If the system has no thread, the old one goes on.
        let Ok(worker) = Worker::new(self.allocator) else { return };
        std::mem::replace(&mut self.workers[cache], worker).end();
    }

    fn release(&mut self, most: usize) {
        (self.give_back)(most);
    }

    fn scavenge(&mut self, pieces: usize) {
        (self.give_back)(pieces);
    }

    #[cfg(unix)]
    fn fork(
        &mut self,
        child: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Option<Result<(), String>> {
        let child = || {
            self.alone = true;
            child(self)
        };
        Some(crate::forking::in_a_child(child).and_then(|result| result))
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;

    use super::*;
    use crate::{Operation, run};

    #[test]
    fn threads_take_turns_and_end() {
        let list = [
            Operation::AllocMany { size: 300, align: 8, more: 20 },
            Operation::Switch { cache: 1 },
            Operation::AllocZeroed { size: 5000, align: 64 },
            Operation::Realloc { index: 21, size: 9000 },
            Operation::FreeRemote { index: 3 },
            Operation::Fork,
            Operation::Restart { cache: 0 },
            Operation::FreeMany { index: 3, more: 7 },
            Operation::Switch { cache: 0 },
            Operation::Alloc { size: 10, align: 8 },
        ];
        let summary = run(Threads::new(System, 3, |_| ()).unwrap(), &list).unwrap();
        assert_eq!((summary.allocated, summary.reallocated, summary.freed), (23, 1, 23));
        assert_eq!(summary.forks, usize::from(cfg!(unix)));
    }
}
