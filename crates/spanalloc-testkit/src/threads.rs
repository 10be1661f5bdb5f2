use std::alloc::{GlobalAlloc, Layout};
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::{Failure, Global, Operation, Replay, Subject, Violation};

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
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

/// Where a thread finds what it is to do.
struct Desk {
    todo: Mutex<Todo>,
    changed: Condvar,
}

enum Todo {
    Nothing,
    Task(Task),
    /// The thread ends, or has ended.
    End,
}

/// A closure on the stack of a thread that waits for what comes of it.
#[derive(Clone, Copy)]
struct Task {
    run: unsafe fn(*mut ()),
    call: *mut (),
}

// SAFETY: who put it on a desk promised that it may run in another thread.
unsafe impl Send for Task {}

struct Call<F, R> {
    work: Option<F>,
    result: Option<R>,
}

impl Task {
    fn of<F: FnOnce() -> R, R>(call: &mut Call<F, R>) -> Self {
        /// # Safety
        /// `call` is a `Call<F, R>` that nobody else uses now.
        unsafe fn run<F: FnOnce() -> R, R>(call: *mut ()) {
            // SAFETY: the caller's promise.
            let call = unsafe { &mut *call.cast::<Call<F, R>>() };
            call.result = call.work.take().map(|work| work());
        }
        Self { run: run::<F, R>, call: ptr::from_mut(call).cast() }
    }
}

/// Says that a task is done, or that its thread is: it panicked.
struct Done<'a>(&'a Desk);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.put(if thread::panicking() { Todo::End } else { Todo::Nothing });
    }
}

impl Desk {
    fn put(&self, next: Todo) {
        *self.todo.lock().unwrap_or_else(PoisonError::into_inner) = next;
        self.changed.notify_all();
    }

    /// The task that comes next, or None if the thread is to end.
    fn next(&self) -> Option<Task> {
        let todo = self.todo.lock().unwrap_or_else(PoisonError::into_inner);
        let todo = self.changed.wait_while(todo, |todo| matches!(todo, Todo::Nothing));
        match *todo.unwrap_or_else(PoisonError::into_inner) {
            Todo::Task(task) => Some(task),
            Todo::Nothing | Todo::End => None,
        }
    }

    fn serve(&self) {
        while let Some(task) = self.next() {
            let _done = Done(self);
            // SAFETY: whoever put it there waits until it is done.
            unsafe { (task.run)(task.call) };
        }
    }

    /// Does `work` in the thread at this desk; None if it has died.
    ///
    /// # Safety
    /// All that `work` uses may be used by that thread while this one waits.
    unsafe fn call<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        let mut call = Call { work: Some(work), result: None };
        let mut todo = self.todo.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*todo, Todo::End) {
            return None;
        }
        *todo = Todo::Task(Task::of(&mut call));
        self.changed.notify_all();
        let done = self.changed.wait_while(todo, |todo| matches!(todo, Todo::Task(_)));
        drop(done.unwrap_or_else(PoisonError::into_inner));
        call.result
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

impl<A: GlobalAlloc + Copy> Threads<A> {
    /// `count` threads, at least one. `give_back` gives up to so many units of unused memory back to the
    /// system, if the allocator can.
    ///
    /// # Errors
    /// If the system has no thread.
    pub fn new(allocator: A, count: usize, give_back: fn(usize)) -> io::Result<Self> {
        let workers = (0..count.max(1)).map(|_| Worker::new()).collect::<Result<_, _>>()?;
        Ok(Self { allocator, workers, current: 0, alone: false, give_back })
    }

    /// What comes of `work` in the thread that serves; None if it has died.
    fn there<T>(&self, work: impl FnOnce(&mut Global<A>) -> Option<T>) -> Option<T> {
        let mut subject = Global(self.allocator);
        let Worker { desk, thread } = &self.workers[self.current];
        if self.alone || thread.thread().id() == thread::current().id() {
            return work(&mut subject);
        }
        // SAFETY: the work uses an allocator, which any thread may use, and what it is told of objects.
        unsafe { desk.call(|| work(&mut subject)) }.flatten()
    }
}

impl<A: GlobalAlloc + Copy + Send> Replay<Threads<A>> {
    /// Does the operations as [`apply`](Self::apply) does one by one, but all between two switches in the thread that
    /// they are for, shadow and audits included. Threads wait for each other there and at remote frees,
    /// not at each object.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn play(&mut self, operations: &[Operation]) -> Result<(), Failure> {
        // What starts and ends threads is not done in one of them.
        let is_outside = |operation: &Operation| {
            matches!(
                operation,
                Operation::Switch { .. } | Operation::Restart { .. } | Operation::Fork
            )
        };
        for part in operations.chunk_by(|one, next| !is_outside(one) && !is_outside(next)) {
            let threads = self.subject();
            let desk = Arc::clone(&threads.workers[threads.current].desk);
            let mut work = || part.iter().try_for_each(|operation| self.apply(operation));
            let result = if part.first().is_some_and(is_outside) {
                Some(work())
            } else {
                // SAFETY: a replay is data that any thread may use, and an allocator as in `there`.
                unsafe { desk.call(work) }
            };
            let died = || Violation::Accounts(String::from("a thread died"));
            result.unwrap_or_else(|| {
                Err(Failure { step: 0, operation: part.first().copied(), violation: died() })
            })?;
        }
        Ok(())
    }
}

impl<A> Drop for Threads<A> {
    fn drop(&mut self) {
        self.workers.drain(..).for_each(Worker::end);
    }
}

impl Worker {
    fn new() -> io::Result<Self> {
        let desk = Arc::new(Desk { todo: Mutex::new(Todo::Nothing), changed: Condvar::new() });
        let served = Arc::clone(&desk);
        let thread = thread::Builder::new().spawn(move || served.serve())?;
        Ok(Self { desk, thread })
    }

    fn end(self) {
        let Self { desk, thread } = self;
        desk.put(Todo::End);
        // A thread that panicked has said so.
        let _ = thread.join();
    }
}

// SAFETY: the contract of `GlobalAlloc`, whose objects may be freed by any thread.
unsafe impl<A: GlobalAlloc + Copy> Subject for Threads<A> {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.there(|subject| subject.alloc(layout))
    }

    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.there(|subject| subject.alloc_zeroed(layout))
    }

    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        self.there(|subject| {
            // SAFETY: the caller's promise is passed on.
            unsafe { subject.free(object, layout) };
            Some(())
        });
    }

    unsafe fn realloc(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is passed on.
        self.there(|subject| unsafe { subject.realloc(object, layout, new_size) })
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
        let Ok(worker) = Worker::new() else { return };
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

    const LIST: [Operation; 10] = [
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

    #[test]
    fn threads_take_turns_and_end() {
        let summary = run(Threads::new(System, 3, |_| ()).unwrap(), &LIST).unwrap();
        assert_eq!((summary.allocated, summary.reallocated, summary.freed), (23, 1, 23));
        assert_eq!(summary.forks, usize::from(cfg!(unix)));
    }

    /// The threads that freed objects, one by one.
    static FREED_BY: Mutex<Vec<thread::ThreadId>> = Mutex::new(Vec::new());

    #[derive(Clone, Copy)]
    struct Watched;

    // SAFETY: that of the system.
    unsafe impl GlobalAlloc for Watched {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
            FREED_BY.lock().unwrap().push(thread::current().id());
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(object, layout) }
        }
    }

    #[test]
    fn what_is_played_is_done_in_the_same_threads() {
        let operations = LIST.map(|operation| match operation {
            Operation::Fork => Operation::Realloc { index: 2, size: 500 },
            other => other,
        });
        let play = |one_by_one: bool| {
            let mut replay = Replay::new(Threads::new(Watched, 3, |_| ()).unwrap());
            let here = thread::current().id();
            let threads = replay.subject().workers.iter().map(|worker| worker.thread.thread().id());
            let threads: Vec<_> = threads.collect();
            if one_by_one {
                operations.iter().try_for_each(|operation| replay.apply(operation)).unwrap();
            } else {
                replay.play(&operations).unwrap();
            }
            let freed = std::mem::take(&mut *FREED_BY.lock().unwrap());
            assert!(!freed.contains(&here));
            let number = |id: &thread::ThreadId| threads.iter().position(|thread| thread == id);
            let freed: Vec<_> = freed.iter().map(number).collect();
            assert!(freed.contains(&Some(1)) && freed.contains(&Some(2)));
            replay.finish().unwrap();
            FREED_BY.lock().unwrap().clear();
            (freed, replay.summary())
        };
        assert_eq!(play(true), play(false));
    }

    #[derive(Clone, Copy)]
    struct Broken;

    // SAFETY: it returns nothing.
    unsafe impl GlobalAlloc for Broken {
        unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
            panic!("on purpose")
        }

        unsafe fn dealloc(&self, _object: *mut u8, _layout: Layout) {}
    }

    #[test]
    fn a_thread_that_dies_is_noticed() {
        let list = [Operation::Alloc { size: 10, align: 8 }];
        let mut replay = Replay::new(Threads::new(Broken, 1, |_| ()).unwrap());
        assert!(replay.play(&list).is_err());
        assert!(replay.apply(&list[0]).is_ok(), "it has no memory");
        assert_eq!(replay.summary().refused, 1);
    }
}
