use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;

use spanalloc_os::{OsError, OsSource, Report, Request};

/// A source that gives back to the one below, when it is dropped, all that was reserved through it.
///
/// A page heap never gives address space back, because it is meant to live as long as the program.
/// A test makes thousands of them.
#[derive(Debug)]
pub struct Returning<O: OsSource> {
    inner: O,
    reserved: Mutex<Vec<(NonNull<u8>, usize)>>,
}

// SAFETY: the addresses are only used to give them back.
unsafe impl<O: OsSource + Send> Send for Returning<O> {}
// SAFETY: as above, and under a lock.
unsafe impl<O: OsSource + Sync> Sync for Returning<O> {}

impl<O: OsSource> Returning<O> {
    /// A source over `inner`.
    ///
    /// # Safety
    /// Nothing that came from this source is used once it is dropped.
    pub const unsafe fn new(inner: O) -> Self {
        Self { inner, reserved: Mutex::new(Vec::new()) }
    }

    /// The source below.
    pub const fn inner(&self) -> &O {
        &self.inner
    }

    fn list(&self) -> MutexGuard<'_, Vec<(NonNull<u8>, usize)>> {
        // Waiting is done here and not in the standard library, which is compiled without the race detector:
        // what that does not see of a lock it reports as a race.
        loop {
            match self.reserved.try_lock() {
                Ok(list) => return list,
                Err(TryLockError::Poisoned(list)) => return list.into_inner(),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
    }
}

impl<O: OsSource> Drop for Returning<O> {
    fn drop(&mut self) {
        let reserved = std::mem::take(&mut *self.list());
        for (at, bytes) in reserved.into_iter().rev() {
            // SAFETY: reserved below, not released since, and unused by the promise made to `new`.
            // What the source below refuses to take back is lost, which a test can bear.
            let _ = unsafe { self.inner.release(at, bytes) };
        }
    }
}

// SAFETY: every verb is passed on unchanged to a source that keeps the contract.
unsafe impl<O: OsSource> OsSource for Returning<O> {
    type Wait = O::Wait;

    fn below(&self) -> Option<&(impl OsSource + ?Sized)> {
        Some(&self.inner)
    }

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        let mut list = self.list();
        let at = self.inner.reserve(request)?;
        list.push((at, request.bytes));
        Ok(at)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.commit(at, bytes) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.decommit(at, bytes) }
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut list = self.list();
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.release(at, bytes)? };
        // What was released in part stays on the list with the part that is left.
        let (low, high) = (at.addr().get(), at.addr().get() + bytes);
        let mut left = Vec::new();
        list.retain(|&(start, length)| {
            let (from, to) = (start.addr().get(), start.addr().get() + length);
            if high <= from || to <= low {
                return true;
            }
            if from < low {
                left.push((start, low - from));
            }
            if high < to {
                left.push((at.map_addr(|_| start.addr().saturating_add(high - from)), to - high));
            }
            false
        });
        list.append(&mut left);
        Ok(())
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}
