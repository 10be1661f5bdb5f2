use std::alloc::Layout;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::NonNull;

use spanalloc_os::Verb;

use crate::{Subject, Tally};

/// Seconds that a child may take: one that waits for a lock that nobody opens waits for ever.
const SECONDS: u32 = 60;

/// A subject in a process that forks: a [`Fork`](crate::Operation::Fork) makes a child, which looks at all
/// objects, allocates some and frees everything, in a copy of the whole process with one thread.
///
/// The whole process is copied, other tests included, so the child must not touch what they share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forking<S>(pub S);

// SAFETY: the subject inside keeps the contract.
unsafe impl<S: Subject> Subject for Forking<S> {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.alloc(layout)
    }

    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.alloc_zeroed(layout)
    }

    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.free(object, layout) };
    }

    unsafe fn realloc(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.realloc(object, layout, new_size) }
    }

    fn caches(&self) -> usize {
        self.0.caches()
    }

    fn switch(&mut self, cache: usize) {
        self.0.switch(cache);
    }

    fn restart(&mut self, cache: usize) {
        self.0.restart(cache);
    }

    fn release(&mut self, most: usize) {
        self.0.release(most);
    }

    fn advance(&mut self, microseconds: u32) {
        self.0.advance(microseconds);
    }

    fn scavenge(&mut self, pieces: usize) {
        self.0.scavenge(pieces);
    }

    fn os_fails(&mut self, verb: Verb, after: usize, calls: usize) {
        self.0.os_fails(verb, after, calls);
    }

    fn os_works(&mut self) {
        self.0.os_works();
    }

    fn fork(
        &mut self,
        child: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Option<Result<(), String>> {
        Some(in_a_child(|| child(self)).and_then(|result| result))
    }

    fn audit(&mut self, tally: Tally) -> Result<(), String> {
        self.0.audit(tally)
    }
}

/// Runs `child` in a child of this process and waits for its end: what it returned, or how it died.
pub(crate) fn in_a_child(
    child: impl FnOnce() -> Result<(), String>,
) -> Result<Result<(), String>, String> {
    let failed = |error: io::Error| format!("no child: {error}");
    let (mut reader, writer) = UnixStream::pair().map_err(failed)?;
    // SAFETY: the child goes on with one thread, which does what it was given and ends the process.
    match unsafe { libc::fork() } {
        -1 => Err(failed(io::Error::last_os_error())),
        0 => {
            // SAFETY: a system call; the child's own alarm.
            unsafe { libc::alarm(SECONDS) };
            let result = panic::catch_unwind(AssertUnwindSafe(child));
            let result = result.unwrap_or_else(|_| Err(String::from("it panicked")));
            if let Err(text) = &result {
                // The parent sees the exit code even if this fails.
                let _ = File::from(OwnedFd::from(writer)).write_all(text.as_bytes());
            }
            // SAFETY: nothing of the parent's is to be run or dropped here.
            unsafe { libc::_exit(result.is_err().into()) }
        }
        id => {
            drop(writer);
            let mut text = String::new();
            let read = reader.read_to_string(&mut text);
            let status = wait_for(id).map_err(failed)?;
            read.map_err(failed)?;
            Ok(match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
                (true, 0) => Ok(()),
                (true, _) => Err(text),
                (false, _) => Err(format!("it died of signal {}", libc::WTERMSIG(status))),
            })
        }
    }
}

fn wait_for(id: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the status may be written to.
        if unsafe { libc::waitpid(id, &raw mut status, 0) } == id {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;

    use super::*;
    use crate::{Global, Operation, run};

    #[test]
    fn a_child_has_a_copy_of_everything() {
        let list = [
            Operation::AllocMany { size: 300, align: 8, more: 20 },
            Operation::Fork,
            Operation::FreeMany { index: 3, more: 7 },
            Operation::Fork,
        ];
        let summary = run(Forking(Global(System)), &list).unwrap();
        assert_eq!((summary.forks, summary.allocated, summary.freed), (2, 21, 21));
        // Without the wrapper nothing forks.
        assert_eq!(run(Global(System), &list).unwrap().forks, 0);
    }

    #[test]
    fn what_a_child_finds_or_dies_of_is_told() {
        assert_eq!(in_a_child(|| Ok(())), Ok(Ok(())));
        assert_eq!(in_a_child(|| Err("as it is".into())), Ok(Err("as it is".into())));
        // SAFETY: a system call that takes no memory.
        let died = in_a_child(|| unsafe { libc::_exit(libc::raise(libc::SIGKILL)) });
        assert_eq!(died, Ok(Err("it died of signal 9".into())));
    }
}
